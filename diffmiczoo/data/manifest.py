"""Where the images are and what they show: a CSV (`file,label[,split][,group]`) or a folder per class."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from diffmiczoo.preprocessing import list_images

SPLITS = ("train", "val", "test")

#: Name of a folder that holds one split in a folder per class → the split.
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Record:
    """One image: where it is, its labels (one for multiclass, any number for multi-label), split and group."""

    path: Path
    labels: tuple[str, ...]
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Labelled images of one data set, in file order.

    Attributes:
        name: of the data set, for reports.
        records: the images.
        class_names: in the order of the model's outputs.
        task: "multiclass" or "multilabel".
    """

    name: str
    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    task: str

    def __len__(self) -> int:
        return len(self.records)

    def split(self, name: str) -> Manifest:
        """Returns the images of one split.

        Raises:
            ValueError: no image belongs to it.
        """
        records = tuple(record for record in self.records if record.split == name)
        if not records:
            have = ", ".join(sorted({str(record.split) for record in self.records}))
            raise ValueError(f"{self.name}: no image belongs to split {name!r}; its splits are {have}")
        return Manifest(self.name, records, self.class_names, self.task)

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


def read_manifest(
    source: str | os.PathLike[str], *, class_names: Sequence[str] | None = None, task: str | None = None
) -> Manifest:
    """Reads a CSV manifest, or a folder: with `labels.csv`, with a sub-folder per class, or with such ones per split.

    Args:
        source: a CSV with the columns `file` (relative to the CSV), `label`, and optionally `split` (train, val, test)
            and `group`; several labels are joined by `|`, an empty label means none of them. Or a folder.
        class_names: the classes in order; by default the sorted labels found.
        task: "multiclass" or "multilabel"; by default multi-label if any image has several labels.

    Raises:
        FileNotFoundError: `source` or a file that it lists does not exist.
        ValueError: a column or value is wrong; the message names the file and line.
    """
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected a CSV manifest or a folder of images")
    if path.is_dir() and (path / "labels.csv").is_file():
        path = path / "labels.csv"
    records = _folder_records(path) if path.is_dir() else _csv_records(path)
    task = task or _task_of(records, path)
    found = {label for record in records for label in record.labels}
    names = tuple(class_names) if class_names else tuple(sorted(found))
    unknown = sorted(found - set(names))
    if unknown:
        raise ValueError(f"{path}: labels {unknown} are not among the classes {list(names)}")
    if task == "multiclass":
        wrong = next((record for record in records if len(record.labels) != 1), None)
        if wrong is not None:
            raise ValueError(f"{path}: {wrong.path.name} has {len(wrong.labels)} labels, a multiclass image needs one")
    if len(names) < 2:
        raise ValueError(f"{path}: found {len(names)} class ({list(names)}); at least two are needed")
    return Manifest(_data_set_name(path), records, names, task)


def read_files(source: str | os.PathLike[str], split: str | None = None) -> list[Path]:
    """Returns the files that a CSV lists in its column `file`; labels are not needed.

    Args:
        source: a CSV with the column `file` (relative to the CSV) and optionally `split`.
        split: only the files of this one.

    Raises:
        FileNotFoundError: `source` does not exist.
        ValueError: a column is missing, or no file belongs to the split; the message names the file.
    """
    path = Path(source)
    with _opened(path) as file:
        rows = csv.DictReader(file)
        missing = {"file", *(["split"] if split else [])} - set(rows.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: has no column {' and '.join(sorted(missing))}; found {rows.fieldnames or []}")
        listed = [path.parent / row["file"] for row in rows if row["file"] and (not split or row["split"] == split)]
    if not listed:
        raise ValueError(f"{path}: lists no file" + (f" of split {split!r}" if split else ""))
    return listed


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Opens a CSV as text.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is not UTF-8.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a CSV file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 ({error.reason}); save it as CSV UTF-8") from error


def _task_of(records: Sequence[Record], path: Path) -> str:
    """Tells the task from the labels; an empty label alone may as well be a mistake."""
    if any(len(record.labels) > 1 for record in records):
        return "multilabel"
    empty = next((record for record in records if not record.labels), None)
    if empty is not None:
        raise ValueError(
            f"{path}: {empty.path.name} has no label; give it one, or set the task to multilabel if no label applies"
        )
    return "multiclass"


def _data_set_name(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.name == "labels.csv" else path.stem


def _folder_records(folder: Path) -> tuple[Record, ...]:
    folders = _sub_folders(folder)
    if folders and all(entry.name in _SPLIT_FOLDERS and _sub_folders(entry) for entry in folders):
        return tuple(
            Record(path, (entry.name,), _SPLIT_FOLDERS[part.name])
            for part in folders
            for entry in _sub_folders(part)
            for path in list_images(entry)
        )
    if len(folders) < 2:
        raise ValueError(f"{folder}: expected a labels.csv, or at least two sub-folders, one per class")
    return tuple(Record(path, (entry.name,)) for entry in folders for path in list_images(entry))


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _csv_records(path: Path) -> tuple[Record, ...]:
    with _opened(path) as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        if not {"file", "label"} <= columns:
            raise ValueError(f"{path}: needs the columns file and label, separated by commas; found {sorted(columns)}")
        records = [_csv_record(path, rows.line_num, row) for row in rows]
    if not records:
        raise ValueError(f"{path}: lists no images")
    without = [record for record in records if record.split is None]
    if without and len(without) < len(records):
        raise ValueError(
            f"{path}: {len(without)} of {len(records)} images have no split, first {without[0].path.name}; give all of "
            f"them one ({', '.join(SPLITS)}), or none"
        )
    repeated = [str(file) for file, count in Counter(record.path for record in records).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: lists {len(repeated)} files more than once, first {repeated[0]}")
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise FileNotFoundError(f"{path}: {len(missing)} of {len(records)} files do not exist, first {missing[0]}")
    return tuple(records)


def _csv_record(path: Path, line: int, row: dict[str, str]) -> Record:
    if not row["file"]:
        raise ValueError(f"{path}, line {line}: column file is empty")
    split = row.get("split") or None
    if split is not None and split not in SPLITS:
        raise ValueError(f"{path}, line {line}: split {split!r} is not one of {', '.join(SPLITS)}")
    labels = tuple(label.strip() for label in (row["label"] or "").split("|") if label.strip())
    return Record(path.parent / row["file"], labels, split, row.get("group") or None)
