"""Checks of labelled images before training: classes without images, leaks between splits, duplicates."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.splits import leaks
from diffmiczoo.files import write_text


@dataclass(frozen=True)
class DataReport:
    """What `check_data` found.

    Attributes:
        counts: split → class → images.
        without_images: split → classes that no image of it shows.
        leaks: "train and val" → groups with images in both.
        duplicates: names of images with the same pixels in different splits.
        contradictions: names of images with the same pixels and different labels.
        made: a sentence on splits that were made; the empty text where they were given.
        task: of the data.
    """

    counts: dict[str, dict[str, int]]
    without_images: dict[str, list[str]]
    leaks: dict[str, list[str]]
    duplicates: list[list[str]]
    contradictions: list[list[str]]
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
        if self.duplicates:
            found.append(
                f"{_count(self.duplicates, 'image is', 'images are')} in more than one split, first "
                f"{' = '.join(self.duplicates[0])}: results will look better than they are"
            )
        if self.contradictions:
            found.append(
                f"{_count(self.contradictions, 'image occurs', 'images occur')} with different labels, first "
                f"{' = '.join(self.contradictions[0])}"
            )
        absent = self.without_images.get("train", [])
        if absent and self.task == "multilabel":
            found.append(f"no training image shows {', '.join(absent)}: the model will not learn to give that label")
        missing = self.without_images.get("val", [])
        if missing:
            found.append(f"no validation image shows {', '.join(missing)}: how well they are found is not measured")
        return found

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
    return f"1 {one}" if len(entries) == 1 else f"{len(entries)} {several}"


def check_data(splits: dict[str, ImageDataset], whole: Manifest, *, made: str = "") -> DataReport:
    """Compares the images of all splits with each other.

    Args:
        splits: "train", "val", … → their images, decoded.
        whole: all images with their groups, for the count of torn groups.
        made: a sentence on splits that were made.
    """
    counts = {name: data.manifest.counts for name, data in splits.items()}
    same = _same_pixels(splits)
    return DataReport(
        counts=counts,
        without_images={
            name: missing
            for name, classes in counts.items()
            if (missing := [label for label, count in classes.items() if not count])
        },
        leaks={" and ".join(pair): groups for pair, groups in leaks(whole).items()},
        duplicates=[[name for _, name, _ in found] for found in same if len({split for split, _, _ in found}) > 1],
        contradictions=[[name for _, name, _ in found] for found in same if len({labels for *_, labels in found}) > 1],
        made=made,
        task=whole.task,
    )


def _same_pixels(splits: dict[str, ImageDataset]) -> list[list[tuple[str, str, frozenset[str]]]]:
    """Returns the sets of (split, name, labels) whose squares hold the same pixels."""
    found = defaultdict(list)
    for split, data in splits.items():
        for record, square in zip(data.manifest.records, data.squares.numpy(), strict=True):
            key = hashlib.blake2b(square.tobytes(), digest_size=16).digest()
            found[key].append((split, record.path.name, frozenset(record.labels)))
    return [entries for entries in found.values() if len(entries) > 1]
