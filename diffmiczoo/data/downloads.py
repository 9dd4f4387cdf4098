"""The paper's data sets as they are downloaded, found by the file that holds their labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from diffmiczoo.data.catalog import DATASETS, DatasetInfo
from diffmiczoo.data.manifest import Record
from diffmiczoo.data.rows import read_rows, require_columns
from diffmiczoo.data.table_files import TableFiles
from diffmiczoo.errors import InvalidValueError, MissingFileError


def recognized_download(folder: Path) -> str | None:
    """Returns which of the data sets of `diffmiczoo.data.catalog` a folder holds as downloaded, or None."""
    found = _recognized(folder)
    return None if found is None else found[0].name


def _recognized(folder: Path) -> tuple[DatasetInfo, Path] | None:
    """Returns the data set that a folder holds as downloaded, and the table of its labels."""
    for dataset in DATASETS.values():
        tables = [path for pattern in dataset.label_tables for path in sorted(folder.glob(pattern)) if path.is_file()]
        if tables and (not dataset.label_columns or set(dataset.label_columns) <= set(_header(tables[0]))):
            return dataset, tables[0]
    return None


def download_records(folder: Path) -> tuple[tuple[Record, ...], tuple[str, ...], str]:
    """Reads HAM10000, APTOS2019 or ChestX-ray14 from the folder that its downloads were unpacked into.

    HAM10000: `HAM10000_metadata.csv` and the JPEGs in any sub-folder; `group` is the lesion. APTOS2019: `train.csv` and
    `train_images/`; the published test images have no labels. ChestX-ray14: `Data_Entry_2017*.csv`, the PNGs in any
    sub-folder, `group` is the patient; with `train_val_list.txt` and `test_list.txt` their split. PMG2000 is a folder
    per grade, which any folder may be.

    Returns:
        Records, class names in the order of the package's weights, and task.

    Raises:
        FileNotFoundError: an image of the metadata is missing.
        ValueError: the folder holds none of them, or a table has other columns.
    """
    found = _recognized(folder)
    if found is None:
        raise InvalidValueError(f"{folder}: holds neither HAM10000, APTOS2019 nor ChestX-ray14 as downloaded")
    dataset, table = found
    return _READERS[dataset.name](table, dataset.class_names), dataset.class_names, dataset.task


def _ham10000(table: Path, classes: tuple[str, ...]) -> tuple[Record, ...]:
    rows = _checked_rows(table, ("image_id", "lesion_id", "dx"))
    files = _images(table, [row["image_id"] for row in rows])
    return tuple(Record(files[row["image_id"]], (row["dx"],), group=row["lesion_id"], columns=row) for row in rows)


def _aptos2019(table: Path, classes: tuple[str, ...]) -> tuple[Record, ...]:
    rows = _checked_rows(table, ("id_code", "diagnosis"))
    files = _images(table, [row["id_code"] for row in rows])
    wrong = next((row for row in rows if row["diagnosis"] not in tuple("01234")), None)
    if wrong is not None:
        raise InvalidValueError(f"{table}: {wrong['id_code']} has diagnosis {wrong['diagnosis']!r}; expected 0 to 4")
    return tuple(Record(files[row["id_code"]], (classes[int(row["diagnosis"])],), columns=row) for row in rows)


def _chestxray14(table: Path, classes: tuple[str, ...]) -> tuple[Record, ...]:
    rows = _checked_rows(table, ("Image Index", "Finding Labels", "Patient ID"))
    files = _images(table, [row["Image Index"] for row in rows])
    records = [
        Record(
            files[row["Image Index"]],
            tuple(label for label in row["Finding Labels"].split("|") if label != "No Finding"),
            group=row["Patient ID"],
            columns=row,
        )
        for row in rows
    ]
    return tuple(_official_split(table.parent, records))


def _official_split(folder: Path, records: list[Record]) -> Iterable[Record]:
    lists = {"train": folder / "train_val_list.txt", "test": folder / "test_list.txt"}
    if not all(path.is_file() for path in lists.values()):
        return records
    split = {name: key for key, path in lists.items() for name in path.read_text(encoding="utf-8").split()}
    missing = [record.path.name for record in records if record.path.name not in split]
    if missing:
        raise InvalidValueError(
            f"{folder}: {len(missing)} images are in neither list of the official split, first {missing[0]}"
        )
    return [replace(record, split=split[record.path.name]) for record in records]


#: Data set → what reads its archives: from the table of labels and the class names in their order, the records.
_READERS: dict[str, Callable[[Path, tuple[str, ...]], tuple[Record, ...]]] = {
    "ham10000": _ham10000,
    "aptos2019": _aptos2019,
    "chestxray14": _chestxray14,
}


def _header(table: Path) -> list[str]:
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return next(csv.reader(file), [])


def _checked_rows(table: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    rows = [{name: cell.strip() for name, cell in row.items()} for _, row in read_rows(table)]
    require_columns(table, rows, columns)
    return rows


def _images(table: Path, names: list[str]) -> dict[str, Path]:
    """Returns name or id → image, anywhere below the table."""
    files, found = TableFiles(table.parent), {}
    for name in names:
        path = files.find(name).path
        if path is not None:
            found[name] = path
    missing = [name for name in names if name not in found]
    if missing:
        raise MissingFileError(
            f"{table}: {len(missing):,} of {len(names):,} images were not found below {table.parent}, first "
            f"{missing[0]}; unpack all archives there"
        )
    return found
