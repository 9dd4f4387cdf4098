"""The paper's split by image beside a leak-free one, of the same shares, and the count of what leaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from diffmiczoo.data.catalog import DATASETS
from diffmiczoo.data.checks import find_copies
from diffmiczoo.data.copies import shared_names
from diffmiczoo.data.downloads import recognized_download
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.splits import make_splits
from diffmiczoo.reporting.reproduction.records import Leaks, SplitRecord
from diffmiczoo.reporting.reproduction.sources import Source
from diffmiczoo.zoo.factory import get_config

#: Share of the test pictures: the paper has 8:2 for PMG2000 and 7:3 for HAM10000 and APTOS2019.
_TEST = {"pmg2000": 0.2}
_OTHERS_TEST = 0.3

#: Share of all pictures that is taken from the training pictures to choose epochs by; the paper names none.
_VAL = 0.1

#: Of all splits, so that every run and everybody has the same ones.
SPLIT_SEED = 0


@dataclass(frozen=True)
class Pictures:
    """The pictures of a data set with what is related among them.

    Attributes:
        source: where they come from.
        manifest: group: the cluster of relatives; split: the official one, or None.
        given: the group that the data give each picture; None where they give none.
        copy_pairs: places of pictures that show the same.
        whole: all pictures, where these are only some of them.
    """

    source: Source
    manifest: Manifest
    given: tuple[str | None, ...]
    copy_pairs: tuple[tuple[int, int], ...]
    whole: Pictures | None = None

    @property
    def official(self) -> bool:
        """Whether the data come with the split of their publication."""
        return all(record.split in ("train", "val", "test") for record in self.manifest.records)


#: Finds the sets of names of pictures that show the same.
Copies = Callable[[Manifest], Sequence[Sequence[str]]]


def copied_names(manifest: Manifest, progress: bool | None = None) -> list[list[str]]:
    """Returns the sets of names of pictures that show the same, by `find_copies`; every picture is read for it."""
    return [list(found.names) for found in find_copies(manifest, get_config("diffmicv2_nano"), progress)]


def read_pictures(source: Source, most: int = 0, copies: Copies = copied_names) -> Pictures:
    """Reads a data set, looks for copies, and joins groups and copies to clusters of relatives.

    Args:
        source: of the data set.
        most: pictures that are kept, whole clusters, classes in proportion; 0 for all.
        copies: what finds pictures that show the same.

    Raises:
        FileNotFoundError, ValueError: as `as_manifest` does.
    """
    manifest = source.read()
    pairs = _pairs(manifest, copies(manifest))
    given = tuple(record.group for record in manifest.records)
    clusters = _clusters(given, pairs)
    official = bool(manifest.benchmark) or _official_lists(source, manifest)
    records = [
        replace(record, group=cluster, split=record.split if official else None)
        for record, cluster in zip(manifest.records, clusters, strict=True)
    ]
    return _bounded(Pictures(source, manifest.with_records(records), given, tuple(pairs)), most)


def _official_lists(source: Source, manifest: Manifest) -> bool:
    folder = Path(source.data)
    return folder.is_dir() and recognized_download(folder) is not None and manifest.has_splits


def _pairs(manifest: Manifest, found: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    place = {name: number for number, name in enumerate(shared_names(manifest.records))}
    sets = [[place[name] for name in names if name in place] for names in found]
    return [(places[0], other) for places in sets for other in places[1:]]


def _clusters(given: Sequence[str | None], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Returns a name for each picture, the same for all that groups and pairs connect."""
    root = list(range(len(given)))

    def find(place: int) -> int:
        while root[place] != place:
            root[place] = root[root[place]]
            place = root[place]
        return place

    first: dict[str, int] = {}
    same = [(place, first.setdefault(group, place)) for place, group in enumerate(given) if group is not None]
    for one, other in (*same, *pairs):
        low, high = sorted((find(one), find(other)))
        root[high] = low
    return [f"cluster{find(place)}" for place in range(len(given))]


def _bounded(pictures: Pictures, most: int) -> Pictures:
    """Keeps some of the pictures, whole clusters, of each official split in proportion."""
    manifest = pictures.manifest
    if not most or len(manifest) <= most:
        return pictures
    share = most / len(manifest)
    splits = {record.split for record in manifest.records}
    numbered = [replace(record, key=place) for place, record in enumerate(manifest.records)]
    chosen: set[object] = set()
    for split in splits:
        part = manifest.with_records(record for record in numbered if record.split == split)
        dealt = make_splits(part, val=0, test=share, seed=SPLIT_SEED)
        chosen |= {record.key for record in dealt.records if record.split == "test"}
    kept = [place for place in range(len(manifest)) if place in chosen]
    new = {place: number for number, place in enumerate(kept)}
    return Pictures(
        pictures.source,
        manifest.with_records(manifest.records[place] for place in kept),
        tuple(pictures.given[place] for place in kept),
        tuple((new[one], new[other]) for one, other in pictures.copy_pairs if one in new and other in new),
        pictures,
    )


def split_by(pictures: Pictures, protocol: str) -> tuple[Manifest, str]:
    """Returns the pictures with their splits, and in a sentence how these were made.

    Args:
        pictures: of a data set.
        protocol: "paper" deals pictures one by one, or takes the official lists; "grouped" keeps relatives together.
    """
    manifest, test = pictures.manifest, _TEST.get(pictures.source.stands_for, _OTHERS_TEST)
    ratio = f"{round(100 * (1 - test))}:{round(100 * test)}"
    if protocol == "grouped":
        dealt = make_splits(manifest, val=_VAL, test=test, seed=SPLIT_SEED)
        return dealt, f"{ratio}, groups and copies stay together, validation {_VAL:.0%} of all from training, seed 0"
    single = manifest.with_records(replace(record, group=None) for record in manifest.records)
    if pictures.official:
        return _with_validation(manifest), "the official lists, validation 10 % from training where they have none"
    dealt = make_splits(single, val=_VAL, test=test, seed=SPLIT_SEED)
    pairs = zip(dealt.records, manifest.records, strict=True)
    records = [replace(record, split=each.split) for each, record in pairs]
    return manifest.with_records(records), f"{ratio} by image, validation {_VAL:.0%} of all from training, seed 0"


def _with_validation(manifest: Manifest) -> Manifest:
    if any(record.split == "val" for record in manifest.records):
        return manifest
    parted = iter(make_splits(manifest.split("train"), val=0.1, test=0, seed=SPLIT_SEED).records)
    return manifest.with_records(next(parted) if each.split == "train" else each for each in manifest.records)


def count_leaks(split: Manifest, given: Sequence[str | None], pairs: Sequence[tuple[int, int]]) -> Leaks:
    """Counts the test pictures that have a relative among the training or validation pictures.

    Args:
        split: the pictures, with clusters as groups.
        given: the group that the data give each picture, or None.
        pairs: places of pictures that show the same.
    """
    is_test = [record.split == "test" for record in split.records]
    seen_groups = {group for group, test in zip(given, is_test, strict=True) if not test and group is not None}
    seen_clusters = {record.group for record, test in zip(split.records, is_test, strict=True) if not test}
    copied = {place for pair in pairs for place, other in (pair, pair[::-1]) if is_test[place] and not is_test[other]}
    places = [place for place, test in enumerate(is_test) if test]
    grouped = all(group is not None for group in given)
    return Leaks(
        test=len(places),
        groups=sum(given[place] in seen_groups for place in places) if grouped else None,
        copies=len(copied),
        either=sum(split.records[place].group in seen_clusters for place in places),
    )


def record_of(pictures: Pictures, split: Manifest, protocol: str, rule: str) -> SplitRecord:
    """Returns the line of a split."""
    test = split.split("test")
    ordinal = any(each.ordinal and each.class_names == split.class_names for each in DATASETS.values())
    return SplitRecord(
        dataset=pictures.source.dataset,
        stands_for=pictures.source.stands_for,
        protocol=protocol,
        title=pictures.source.title,
        rule=rule,
        digest=split.digest(),
        task=split.task,
        ordinal=ordinal,
        class_names=split.class_names,
        counts={name: sum(record.split == name for record in split.records) for name in ("train", "val", "test")},
        leaks=count_leaks(split, pictures.given, pictures.copy_pairs),
        names=tuple(shared_names(test.records)),
        labels=tuple(record.labels for record in test.records),
        groups=tuple(str(record.group) for record in test.records),
        whole=None if pictures.whole is None else _leaks_of(pictures.whole, protocol),
    )


def _leaks_of(pictures: Pictures, protocol: str) -> Leaks:
    return count_leaks(split_by(pictures, protocol)[0], pictures.given, pictures.copy_pairs)
