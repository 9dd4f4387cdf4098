"""`Record` and `Manifest`: labelled images of a data set, wherever they come from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffmiczoo.data.labels import is_bare
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import Item

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Skipped:
    """What was left out of a data set, and why.

    Attributes:
        reason: such as "segmentation masks of pictures that lie there too".
        names: the files, folders or rows.
    """

    reason: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        first = self.names[0] if len(self.names) == 1 else f"{len(self.names):,}, first {self.names[0]}"
        return f"{self.reason}: {first}"


@dataclass(frozen=True)
class Record:
    """One image.

    Attributes:
        path: where it is; for an image that is no file of its own, what it is called.
        labels: one for multiclass, any number for multi-label.
        split: "train", "val", "test" or None.
        group: the lesion, patient or the like that it shows.
        source: pixels, or a function that returns them, of an image that is no file of its own.
        key: what tells it from all other images; None means its path.
        columns: all columns of its row → cell as it is written, where it comes from a table, to divide images by.
    """

    path: Path
    labels: tuple[str, ...]
    split: str | None = None
    group: str | None = None
    source: Any = field(default=None, compare=False, repr=False)
    key: Hashable = field(default=None, compare=False, repr=False)
    columns: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def identity(self) -> Hashable:
        """What tells the image from all others."""
        return self.path.resolve() if self.key is None else self.key

    def with_labels(self, labels: Iterable[str]) -> Record:
        """Returns the same image with other labels."""
        return replace(self, labels=tuple(labels))

    def item(self) -> Item:
        """Returns the image as `predict` takes it; nothing is read yet."""
        return Item(str(self.path), self.path if self.source is None else self.source)


@dataclass(frozen=True)
class Reading:
    """What was read from a table or folder or anything else.

    Attributes:
        records: the images.
        notes: what was decided, a sentence each.
        skipped: what was left out, and why.
        names: of the classes, by the data themselves; () where these do not tell.
        task: by the data; None where these do not tell.
        ordered: see `Manifest.ordered`.
        benchmark: see `Manifest.benchmark`.
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    names: tuple[str, ...] = ()
    task: str | None = None
    ordered: bool = False
    benchmark: str = ""


@dataclass(frozen=True)
class Manifest:
    """Labelled images of one data set, in file order.

    Attributes:
        name: of the data set, for reports.
        records: the images.
        class_names: in the order of the model's outputs.
        task: "multiclass" or "multilabel".
        notes: what was decided when they were read, a sentence each.
        skipped: what was left out, and why.
        ordered: the order of `class_names` was given, or follows from the names, and is not that of the alphabet.
        benchmark: whose own metrics are shown too: "medmnist", or "" for none.
    """

    name: str
    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    task: str
    notes: tuple[str, ...] = field(default=(), compare=False)
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)
    ordered: bool = field(default=False, compare=False)
    benchmark: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def counts(self) -> dict[str, int]:
        """Returns the number of images of each class, in the order of `class_names`."""
        found = Counter(label for record in self.records for label in record.labels)
        return {name: found[name] for name in self.class_names}

    @property
    def named(self) -> bool:
        """Whether the classes have names; bare numbers do not say what they stand for."""
        return not is_bare(self.class_names)

    def with_records(self, records: Iterable[Record]) -> Manifest:
        """Returns a manifest of the same classes with other images."""
        return replace(self, records=tuple(records))

    def with_classes(
        self, class_names: Sequence[str], renamed: Mapping[str, str] | None = None, *, ordered: bool = True
    ) -> Manifest:
        """Returns the same images with their classes in another order.

        Args:
            class_names: all classes of the images, and any more.
            renamed: old name → new name, of classes that are called otherwise from now on.
            ordered: see `Manifest.ordered`.
        """
        records = self.records
        if renamed:
            records = tuple(record.with_labels(renamed.get(name, name) for name in record.labels) for record in records)
        return replace(self, records=records, class_names=tuple(class_names), ordered=ordered)

    def split(self, name: str) -> Manifest:
        """Returns the images of one split.

        Raises:
            ValueError: no image belongs to it.
        """
        records = tuple(record for record in self.records if record.split == name)
        if not records:
            have = ", ".join(sorted({record.split or "without a split" for record in self.records}))
            raise InvalidValueError(f"{self.name}: no image belongs to split {name!r}; its images are {have or 'none'}")
        return self.with_records(records)

    @property
    def has_splits(self) -> bool:
        """Whether every image belongs to a split."""
        return all(record.split is not None for record in self.records)

    def digest(self) -> str:
        """Returns a hash of what the images are called, their labels, splits and groups, in order."""
        rows = [[record.path.name, *record.labels, str(record.split), str(record.group)] for record in self.records]
        return hashlib.sha256(json.dumps([self.class_names, self.task, rows]).encode()).hexdigest()

    def targets(self) -> np.ndarray:
        """Returns (N,) int64 class numbers, or (N, C) float32 zeros and ones for multi-label."""
        index = {name: number for number, name in enumerate(self.class_names)}
        if self.task == "multiclass":
            return np.array([index[record.labels[0]] for record in self.records], dtype=np.int64)
        targets = np.zeros((len(self.records), len(self.class_names)), dtype=np.float32)
        for row, record in enumerate(self.records):
            targets[row, [index[label] for label in record.labels]] = 1
        return targets

    def groups(self) -> list[str] | None:
        """Returns the group of every image (a lesion, a patient), or None where the images have none."""
        groups = [record.group for record in self.records]
        return None if any(group is None for group in groups) else [str(group) for group in groups]
