"""`read_manifest`: labelled images from a table, a folder, arrays, a dataset of torch, or the paper's downloads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diffmiczoo.data.arrays import dataset_records, npz_records
from diffmiczoo.data.columns import ColumnChoice
from diffmiczoo.data.downloads import download_records, recognized_download
from diffmiczoo.data.folders import folder_records
from diffmiczoo.data.manifest import Manifest, Reading, Record
from diffmiczoo.data.rows import SPREADSHEETS, TABLE_EXTENSIONS
from diffmiczoo.data.split_names import check_split_words
from diffmiczoo.data.tables import table_records
from diffmiczoo.errors import InvalidValueError, MissingFileError


@dataclass(frozen=True)
class Source:
    """A table or folder, with what somebody says about its columns; `fit` and `evaluate` take it like a path.

    Attributes:
        path: of the table or folder.
        choice: which columns are used, and what the words for splits mean.
    """

    path: str | os.PathLike[str]
    choice: ColumnChoice = field(default_factory=ColumnChoice)


def as_manifest(data: Any, *, class_names: Sequence[str] | None = None, task: str | None = None) -> Manifest:
    """Returns a `Manifest` as it is, and anything else as `read_manifest` reads it; a dataset of torch as well.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `read_manifest` does, or the dataset is none of (image, label).
    """
    if isinstance(data, Manifest):
        return data
    if isinstance(data, str | os.PathLike):
        return _read(Path(data), ColumnChoice(), class_names, task)
    if isinstance(data, Source):
        return _read(Path(data.path), data.choice, class_names, task)
    own = class_names or getattr(data, "classes", None)
    return _checked_manifest(type(data).__name__, type(data).__name__, dataset_records(data, class_names), own, task)


def read_manifest(
    source: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
    file_column: str | None = None,
    label_column: str | Sequence[str] | None = None,
    group_column: str | None = None,
    split_column: str | None = None,
    map_split: Mapping[str, str] | None = None,
) -> Manifest:
    """Reads labelled images from a table, a folder or an `.npz`; docs/inputs.md says what is read how.

    Args:
        source: one of
            - a CSV, TSV or Parquet table with the columns `file` (relative to the table) and `label` (several joined by
              `|`, an empty one means none of them), or a column of 0 and 1 per label instead; optionally `split`
              (train, val, test) and `group` (a patient, a lesion); well-known names of such columns are recognised;
            - an `.npz` like MedMNIST's;
            - a folder with `labels.csv`, with a sub-folder per class, with such ones in `train`, `val` and `test`, or
              with these in the classes;
            - the folder of HAM10000, APTOS2019 or ChestX-ray14 as downloaded, see `data.downloads.download_records`.
        class_names: the classes in order; by default the sorted labels found.
        task: "multiclass" or "multilabel"; by default multi-label if any image has several labels.
        file_column: the column of files, where it has another name or several may be meant.
        label_column: the column of labels, or several of 0 and 1.
        group_column: the column of groups; "none" for no groups.
        split_column: the column of splits; "none" for no splits.
        map_split: word for a split, in a column or the name of a folder → train, val, test, or skip for images that are
            left out.

    Returns:
        The images; `notes` says what was decided, `skipped` what was left out and why.

    Raises:
        FileNotFoundError: `source` or a file that it lists does not exist.
        ValueError: a column or value is wrong, or may be read in two ways; the message names the file and line.
    """
    labels = (label_column,) if isinstance(label_column, str) else tuple(label_column or ())
    choice = ColumnChoice(file_column, labels, group_column, split_column, dict(map_split or {}))
    return _read(Path(source), choice, class_names, task)


def _read(path: Path, choice: ColumnChoice, class_names: Sequence[str] | None, task: str | None) -> Manifest:
    check_split_words(choice.map_split)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; expected a table, an .npz or a folder of images")
    if path.is_dir() and (path / "labels.csv").is_file():
        path = path / "labels.csv"
    name = _data_set_name(path)
    if path.is_dir() and recognized_download(path) is not None:
        _refuse_columns(path, choice)
        records, names, own_task = download_records(path)
        return _checked_manifest(name, path, records, class_names or names, task or own_task)
    reading = _reading(path, choice, class_names, task)
    manifest = _checked_manifest(name, path, reading.records, class_names, task)
    return replace(manifest, notes=reading.notes, skipped=reading.skipped)


def _reading(path: Path, choice: ColumnChoice, class_names: Sequence[str] | None, task: str | None) -> Reading:
    ending = path.suffix.lower()
    if not path.is_dir() and ending in (*TABLE_EXTENSIONS, *SPREADSHEETS):
        return table_records(path, class_names, task, choice)
    _refuse_columns(path, choice)
    if path.is_dir():
        return folder_records(path, choice.map_split)
    if ending == ".npz":
        return Reading(npz_records(path, class_names))
    raise InvalidValueError(f"{path}: expected a table ({', '.join(TABLE_EXTENSIONS)}), an .npz or a folder of images")


def _refuse_columns(path: Path, choice: ColumnChoice) -> None:
    """Refuses names of columns for what is no table."""
    columns = [*choice.labels, *(name for name in (choice.file, choice.group, choice.split) if name)]
    if columns:
        raise InvalidValueError(f"{path}: has no columns such as {columns[0]}; only tables have")


def _checked_manifest(
    name: str, source: Any, records: tuple[Record, ...], class_names: Sequence[str] | None, task: str | None
) -> Manifest:
    """Checks that labels, classes and task belong together."""
    task = task or _task_of(records, source)
    found = {label for record in records for label in record.labels}
    names = tuple(class_names) if class_names else tuple(sorted(found, key=_label_key))
    unknown = sorted(found - set(names))
    if unknown:
        raise InvalidValueError(f"{source}: labels {unknown} are not among the classes {list(names)}")
    if task == "multiclass":
        wrong = next((record for record in records if len(record.labels) != 1), None)
        if wrong is not None:
            raise InvalidValueError(
                f"{source}: {wrong.path.name} has {len(wrong.labels)} labels, a multiclass image needs one"
            )
    if len(names) < 2:
        raise InvalidValueError(f"{source}: found {len(names)} class ({list(names)}); at least two are needed")
    return Manifest(name, records, names, task)


def _label_key(label: str) -> tuple[bool, int, str]:
    """Sorts numbers as numbers, before names."""
    return (not label.isdecimal(), int(label) if label.isdecimal() else 0, label)


def _task_of(records: Sequence[Record], source: Any) -> str:
    """Tells the task from the labels; an empty label alone may as well be a mistake."""
    if any(len(record.labels) > 1 for record in records):
        return "multilabel"
    empty = next((record for record in records if not record.labels), None)
    if empty is not None:
        raise InvalidValueError(
            f"{source}: {empty.path.name} has no label; give it one, or set the task to multilabel if no label applies"
        )
    return "multiclass"


def _data_set_name(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.name == "labels.csv" else path.stem
