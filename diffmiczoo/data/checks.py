"""Checks of labelled images before training: classes without images, leaks between splits, duplicates."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.duplicates import Copy, Prints, near_copies, same_content
from diffmiczoo.data.image_cache import as_bytes
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.splits import leaks
from diffmiczoo.files import write_text
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_squares
from diffmiczoo.runtime.progress import progress_bar

#: Squares whose prints are computed at once.
_BATCH = 64


@dataclass(frozen=True)
class CopiedImages:
    """Two images that show the same picture, or more where their pixels are equal.

    Attributes:
        names: of the images, below the directory that all images share.
        splits: of each image.
        labels: of each image, several joined by " + ".
        how: "same pixels", or what has happened to the second one.
    """

    names: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    how: str

    @property
    def across_splits(self) -> bool:
        """Whether they are in more than one split."""
        return len(set(self.splits)) > 1

    @property
    def contradicts(self) -> bool:
        """Whether they have different labels."""
        return len(set(self.labels)) > 1

    def __str__(self) -> str:
        sides = [
            f"{name} ({label}, {split})"
            for name, label, split in zip(self.names, self.labels, self.splits, strict=True)
        ]
        return f"{' = '.join(sides[:4])}{' = …' * (len(sides) > 4)} ({self.how})"


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        counts: split → class → images.
        without_images: split → classes that no image of it shows.
        leaks: "train and val" → groups with images in both.
        duplicates: images in different splits that show the same picture.
        contradictions: images with different labels that show the same picture.
        unreadable: messages about test images that cannot be read, which training does not need.
        made: a sentence on splits that were made; the empty text where they were given.
        task: of the data.
    """

    counts: dict[str, dict[str, int]]
    without_images: dict[str, list[str]]
    leaks: dict[str, list[str]]
    duplicates: list[CopiedImages]
    contradictions: list[CopiedImages]
    unreadable: list[str] = dataclasses.field(default_factory=list)
    made: str = ""
    task: str = "multiclass"

    @property
    def problems(self) -> list[str]:
        """Sentences about what makes training wrong."""
        missing = self.without_images.get("train", [])
        if not missing or self.task == "multilabel":
            return []
        return [f"no training image shows {', '.join(missing)}; a class cannot be learned without one"]

    @property
    def warnings(self) -> list[str]:
        """Sentences about what makes results better or worse than they look."""
        found = [
            f"{_count(groups, 'group has', 'groups have')} images in {pair}, first {groups[0]}: results on the second "
            "will look better than they are"
            for pair, groups in self.leaks.items()
        ]
        found += [*self._duplicates(), *self._missing_labels()]
        if self.contradictions:
            found.append(
                f"{_count(self.contradictions, 'image occurs', 'images occur')} with different labels, first "
                f"{self.contradictions[0]}"
            )
        if self.unreadable:
            found.append(
                f"{_count(self.unreadable, 'test image', 'test images')} cannot be read and were not compared with the "
                f"others, first {self.unreadable[0]}"
            )
        return found

    def _duplicates(self) -> Iterator[str]:
        pairs: dict[str, list[CopiedImages]] = {}
        for copied in self.duplicates:
            pairs.setdefault(" and ".join(name for name in self.counts if name in copied.splits), []).append(copied)
        for pair, all_of_them in pairs.items():
            yield (
                f"{_count(all_of_them, 'image is', 'images are')} in more than one split ({pair}), first "
                f"{all_of_them[0]}: results will look better than they are"
            )

    def _missing_labels(self) -> Iterator[str]:
        absent = self.without_images.get("train", [])
        if absent and self.task == "multilabel":
            yield f"no training image shows {', '.join(absent)}: the model will not learn to give that label"
        missing = self.without_images.get("val", [])
        if missing:
            yield f"no validation image shows {', '.join(missing)}: how well they are found is not measured"

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields and the sentences as JSON-ready values."""
        return {**dataclasses.asdict(self), "problems": self.problems, "warnings": self.warnings}

    def save(self, path: Path) -> None:
        """Writes the report as JSON.

        Raises:
            OSError: the directory cannot be written, or the disk is full.
        """
        write_text(path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")


def _count(entries: list[Any], one: str, several: str) -> str:
    return f"1 {one}" if len(entries) == 1 else f"{len(entries):,} {several}"


def check_data(
    splits: dict[str, ImageDataset], whole: Manifest, *, made: str = "", progress: bool | None = None
) -> DataReport:
    """Compares the images of all splits with each other; those of the test split are read for it, one at a time.

    Args:
        splits: "train" and "val" → their images, decoded.
        whole: all images with their groups, for the count of torn groups and for the test split.
        made: a sentence on splits that were made.
        progress: show a bar while test images are read; by default where the standard error is a terminal.
    """
    counts = {name: data.manifest.counts for name, data in splits.items()}
    records = [(name, record) for name, data in splits.items() for record in data.manifest.records]
    prints = [Prints.of(data.squares.split(_BATCH)) for data in splits.values()]
    unreadable: list[str] = []
    test = whole.with_records(record for record in whole.records if record.split == "test" and "test" not in splits)
    if len(test):
        config = next(iter(splits.values())).config
        read, unreadable, of_test = _read_prints(test, config, progress)
        records, prints = [*records, *(("test", record) for record in read)], [*prints, of_test]
        counts["test"] = test.counts
    copied = _copied(records, Prints.joined(prints))
    return DataReport(
        counts=counts,
        without_images={
            name: missing
            for name, classes in counts.items()
            if (missing := [label for label, count in classes.items() if not count])
        },
        leaks={" and ".join(pair): groups for pair, groups in leaks(whole).items()},
        duplicates=[images for images in copied if images.across_splits],
        contradictions=[images for images in copied if images.contradicts],
        unreadable=unreadable,
        made=made,
        task=whole.task,
    )


def _read_prints(
    manifest: Manifest, config: DiffMICConfig, progress: bool | None
) -> tuple[list[Record], list[str], Prints]:
    """Returns the images that can be read, what is wrong with the others, and the prints of the former."""
    records: list[Record] = []
    unreadable: list[str] = []

    def batches() -> Iterator[Tensor]:
        squares: list[Tensor] = []
        items = [record.item() for record in manifest.records]
        with progress_bar(len(items), f"compare {manifest.name}", "img", progress) as bar:
            for record, square in zip(manifest.records, read_squares(items, config), strict=True):
                bar.update()
                if isinstance(square, ImageError):
                    unreadable.append(str(square))
                    continue
                records.append(record)
                squares.append(as_bytes(square))
                if len(squares) == _BATCH:
                    yield torch.stack(squares)
                    squares.clear()
        if squares:
            yield torch.stack(squares)

    prints = Prints.of(batches())
    return records, unreadable, prints


def _copied(records: list[tuple[str, Record]], prints: Prints) -> list[CopiedImages]:
    """Returns the images that are in different splits, or have different labels, and show the same picture."""
    folders = {os.path.dirname(record.path) for _, record in records}
    shared = os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else ""

    def named(places: list[int], how: str) -> CopiedImages:
        images = [records[place] for place in places]
        return CopiedImages(
            tuple(os.path.relpath(record.path, shared) if shared else str(record.path) for _, record in images),
            tuple(split for split, _ in images),
            tuple(" + ".join(sorted(record.labels)) or "no label" for _, record in images),
            how,
        )

    copied = [named(places, "same pixels") for places in same_content(prints)]
    codes = [_codes(split for split, _ in records), _codes(frozenset(record.labels) for _, record in records)]

    def asked(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([code[first] != code[second] for code in codes]).any(0)

    near = near_copies(prints, asked=asked)
    copied += [named([copy.first, copy.second], _how(copy)) for copy in near]
    return [images for images in copied if images.across_splits or images.contradicts]


def _codes(values: Iterable[Hashable]) -> Tensor:
    """Returns a number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(value, len(numbers)) for value in values])


def _how(copy: Copy) -> str:
    return f"{copy.turn or 'saved or resized anew'}, correlation {copy.correlation:.3f}"
