"""Which images of a data set show the same picture, with their names, splits, labels and groups."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor

from diffmiczoo.data.duplicates import Copy, Prints, near_copies, same_content
from diffmiczoo.data.finding import CopiedImages
from diffmiczoo.data.manifest import Record


def shared_names(records: Iterable[Record]) -> list[str]:
    """Returns what images are called: their paths below the directory that all of them share."""
    records = list(records)
    folders = {os.path.dirname(record.path) for record in records}
    shared = os.path.commonpath(folders) if folders and all(map(os.path.isabs, folders)) else ""
    return [os.path.relpath(record.path, shared) if shared else str(record.path) for record in records]


def copied_images(
    records: Sequence[tuple[str, Record]], prints: Prints, *, everywhere: bool, names: Sequence[str] | None = None
) -> list[CopiedImages]:
    """Finds images that show the same picture.

    Of near copies the most similar earlier one is named: one for each pair of splits, apart from it one with other
    labels, and within a split one of another group.

    Args:
        records: split and record of each image, those of one split together.
        prints: of the same images.
        everywhere: also within one split and with the same labels.
        names: of the images; by default `shared_names`.
    """
    names = shared_names(record for _, record in records) if names is None else names
    labels = [" + ".join(sorted(record.labels)) or "no label" for _, record in records]
    grouped = all(record.group is not None for _, record in records)

    def named(places: Sequence[int], how: str, correlation: float = 1.0) -> CopiedImages:
        return CopiedImages(
            tuple(names[place] for place in places),
            tuple(records[place][0] for place in places),
            tuple(labels[place] for place in places),
            how,
            tuple(str(records[place][1].group) for place in places) if grouped else (),
            correlation,
        )

    splits, sets, groups = (
        _codes(values)
        for values in (
            (split for split, _ in records),
            (frozenset(record.labels) for _, record in records),
            (record.group for _, record in records),
        )
    )

    def asked(first: Tensor, second: Tensor) -> Tensor:
        return torch.stack([code[first] != code[second] for code in (splits, sets)]).any(0)

    def sort(first: int, second: int) -> Hashable:
        apart = splits[first] == splits[second] and groups[first] != groups[second]
        return int(splits[first]), bool(sets[first] != sets[second]), bool(apart)

    copied = [named(places, "same pixels") for places in same_content(prints)]
    near = near_copies(prints, None if everywhere else asked, sort)
    copied += [named([copy.first, copy.second], _how(copy), copy.correlation) for copy in near]
    return [images for images in copied if everywhere or images.across_splits or images.contradicts]


def _codes(values: Iterable[Hashable]) -> Tensor:
    """Returns a number for each value, the same for equal ones."""
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(value, len(numbers)) for value in values])


def _how(copy: Copy) -> str:
    return f"{copy.turn or 'saved or resized anew'}, correlation {copy.correlation:.3f}"
