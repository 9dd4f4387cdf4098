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
from diffmiczoo.data.labels import canonical_labels, is_bare, label_order, names_of, numbering_of
from diffmiczoo.data.manifest import Manifest, Reading, Record
from diffmiczoo.data.medmnist import medmnist_records
from diffmiczoo.data.medmnist_names import is_medmnist, parse_medmnist
from diffmiczoo.data.rows import SPREADSHEETS, TABLE_EXTENSIONS, read_table
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


def as_manifest(data: Any, *, class_names: Any = None, task: str | None = None, known: Sequence[str] = ()) -> Manifest:
    """Returns a `Manifest` as it is, and anything else as `read_manifest` reads it; a dataset of torch as well.

    Args:
        data: as `read_manifest` takes it, a `Source`, a dataset or a `Manifest`.
        class_names: as for `read_manifest`.
        task: as for `read_manifest`.
        known: classes of a model that the images are for: one class is enough then, and in a table of a column per
            label these are the labels, if all have one.

    Raises:
        FileNotFoundError, ValueError, TypeError: as `read_manifest` does, or the dataset is none of (image, label).
    """
    if isinstance(data, Manifest):
        if class_names is None:
            return data
        own = Reading(data.records, data.notes, data.skipped, data.class_names, data.task, data.ordered, data.benchmark)
        return _checked_manifest(data.name, data.name, own, class_names, task, known)
    if isinstance(data, str | os.PathLike):
        return _read(Path(data), ColumnChoice(), class_names, task, known)
    if isinstance(data, Source):
        return _read(Path(data.path), data.choice, class_names, task, known)
    name, found = type(data).__name__, dataset_records(data, named=class_names is not None)
    return _checked_manifest(name, name, found, class_names, task, known)


def read_manifest(
    source: str | os.PathLike[str],
    *,
    class_names: Any = None,
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
            - an `.npz` like MedMNIST's, or the name of a set of MedMNIST: "medmnist:dermamnist@224", see
              `data.medmnist_names.parse_medmnist`;
            - a folder with `labels.csv`, with a sub-folder per class, with such ones in `train`, `val` and `test`, or
              with these in the classes;
            - the folder of HAM10000, APTOS2019 or ChestX-ray14 as downloaded, see `data.downloads.download_records`.
        class_names: the classes in order, and what the numbers 0, 1, … stand for where labels are bare numbers (a
            dictionary of number → name where they do not count from 0); by default the data's own names in their
            order, else the sorted labels found.
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
    return _read(Path(source), choice, class_names, task, ())


def _read(path: Path, choice: ColumnChoice, class_names: Any, task: str | None, known: Sequence[str]) -> Manifest:
    check_split_words(choice.map_split)
    if is_medmnist(path):
        _refuse_columns(path, choice)
        name = parse_medmnist(path)
        own = class_names is None or set(name.known.class_names) <= set(names_of(class_names))
        found = medmnist_records(name, named=own)
        return _checked_manifest(name.text, path, found, class_names, task, known)
    if not path.exists():
        raise MissingFileError(f"{path} does not exist; expected a table, an .npz or a folder of images")
    folder = path
    if path.is_dir() and (path / "labels.csv").is_file():
        path = path / "labels.csv"
    names = None if class_names is None else names_of(class_names)
    reading = None
    if names is None and known and not path.is_dir() and _is_table(path):
        try:
            reading = _reading(path, choice, known, task)
        except InvalidValueError:
            if set(known) <= set(read_table(path).columns):
                raise
    if reading is None:
        reading = _reading(path, choice, known if names is None and path.is_dir() else names, task)
    if path != folder:
        reading = replace(reading, notes=(f"{path.name} in the folder says what the images are", *reading.notes))
    return _checked_manifest(_data_set_name(path), path, reading, class_names, task, known)


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in (*TABLE_EXTENSIONS, *SPREADSHEETS)


def _reading(path: Path, choice: ColumnChoice, class_names: Sequence[str] | None, task: str | None) -> Reading:
    if not path.is_dir() and _is_table(path):
        return table_records(path, class_names, task, choice)
    _refuse_columns(path, choice)
    if path.is_dir():
        return _folder(path, choice, class_names)
    if path.suffix.lower() == ".npz":
        return npz_records(path)
    raise InvalidValueError(f"{path}: expected a table ({', '.join(TABLE_EXTENSIONS)}), an .npz or a folder of images")


def _folder(path: Path, choice: ColumnChoice, class_names: Sequence[str] | None) -> Reading:
    if recognized_download(path) is None:
        return folder_records(path, choice.map_split, class_names)
    records, names, task = download_records(path)
    return Reading(records, names=names, task=task, ordered=True)


def _refuse_columns(path: Path, choice: ColumnChoice) -> None:
    """Refuses names of columns for what is no table."""
    columns = [*choice.labels, *(name for name in (choice.file, choice.group, choice.split) if name)]
    if columns:
        raise InvalidValueError(f"{path}: has no columns such as {columns[0]}; only tables have")


def _checked_manifest(
    name: str, source: Any, found: Reading, class_names: Any, task: str | None, known: Sequence[str]
) -> Manifest:
    """Names labels and checks that they, the classes and the task belong together."""
    own = [record.path.name for record in found.records]
    labels = canonical_labels([record.labels for record in found.records], own, source)
    names, ordered = _own_order(found, labels)
    if class_names is not None:
        labels = _renamed(labels, names, class_names, source)
        names, ordered = names_of(class_names), True
    unknown = sorted({label for each in labels for label in each} - set(names))
    if unknown:
        raise InvalidValueError(f"{source}: labels {unknown} are not among the classes {list(names)}")
    records = tuple(record.with_labels(each) for record, each in zip(found.records, labels, strict=True))
    task = task or found.task or _task_of(records, source)
    if task == "multiclass":
        wrong = next((record for record in records if len(record.labels) != 1), None)
        if wrong is not None:
            raise InvalidValueError(
                f"{source}: {wrong.path.name} has {len(wrong.labels)} labels, a multiclass image needs one"
            )
    if len(names) < (1 if known else 2):
        raise InvalidValueError(f"{source}: found {len(names)} class ({list(names)}); at least two are needed")
    return Manifest(name, records, names, task, found.notes, found.skipped, ordered, found.benchmark)


def _own_order(found: Reading, labels: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], bool]:
    """Returns the classes in the data's own order, and whether that is more than a way to number them."""
    names = found.names or tuple({label: None for each in labels for label in each})
    in_order = tuple(sorted(names, key=label_order))
    if not found.names or is_bare(names):
        return in_order, False
    return names, found.ordered


def _renamed(
    labels: list[tuple[str, ...]], names: tuple[str, ...], class_names: Any, source: Any
) -> list[tuple[str, ...]]:
    """Returns labels with the given names in place of bare numbers."""
    if set(names) <= set(names_of(class_names)) or not is_bare(names):
        return labels
    numbering = numbering_of(class_names)
    missing = sorted((int(name) for name in names if int(name) not in numbering), key=int)
    if missing:
        raise InvalidValueError(
            f"{source}: class_names has no name for the class numbers {missing}; it names "
            f"{numbering}. Give a dictionary, number → name, where they do not count from 0"
        )
    return [tuple(numbering[int(label)] for label in each) for each in labels]


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
