"""Tables of labelled images: CSV, TSV and Parquet with the columns `file`, `label` or one of 0 and 1 per label."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from diffmiczoo.data.manifest import SPLITS, Record
from diffmiczoo.errors import InvalidValueError, MissingExtraError, MissingFileError

#: Endings of the files that are read as tables, in lower case.
TABLE_EXTENSIONS = (".csv", ".tsv", ".parquet")

#: Columns that are not labels.
_OWN = ("file", "label", "split", "group")

_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", ""}


def table_records(path: Path, class_names: Sequence[str] | None = None) -> tuple[Record, ...]:
    """Reads the images that a table lists.

    Args:
        path: a table with the column `file` (relative to the table), and `label` (several joined by `|`) or one column
            of 0 and 1 per label; optionally `split` and `group`.
        class_names: without a column `label`, which columns are labels; by default all others.

    Raises:
        FileNotFoundError: the table, or a file that it lists, does not exist.
        ValueError: a column or value is wrong; the message names the table and the line.
    """
    rows = read_rows(path)
    if not rows:
        raise InvalidValueError(f"{path}: lists no images")
    columns = list(rows[0][1])
    if "file" not in columns:
        raise InvalidValueError(f"{path}: needs the columns file and label; found {columns}")
    labels = None if "label" in columns else _label_columns(path, columns, rows, class_names)
    records = [_record(path, line, row, labels) for line, row in rows]
    _check_records(path, records)
    return tuple(records)


def read_files(source: Path | str, split: str | None = None) -> list[Path]:
    """Returns the files that a table lists in its column `file`; labels are not needed.

    Args:
        source: a CSV, TSV or Parquet table with the column `file` (relative to the table) and optionally `split`.
        split: only the files of this one.

    Raises:
        FileNotFoundError: `source` does not exist.
        ValueError: a column is missing, or no file belongs to the split; the message names the table.
    """
    path = Path(source)
    rows = [row for _, row in read_rows(path)]
    if rows:
        require_columns(path, rows, ("file", "split") if split else ("file",))
    listed = [path.parent / row["file"] for row in rows if row["file"] and (not split or row["split"] == split)]
    if not listed:
        raise InvalidValueError(f"{path}: lists no file" + (f" of split {split!r}" if split else ""))
    return listed


def read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Returns the rows of a CSV, TSV or Parquet table with their line numbers, all values as text.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is not such a table.
        ImportError: it is a Parquet file and pyarrow is not installed.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; expected a table ({', '.join(TABLE_EXTENSIONS)})")
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path)
    with _opened(path) as file:
        header = file.readline()
        file.seek(0)
        rows = csv.DictReader(file, delimiter=_delimiter(header), restkey="", restval="")
        found = [(rows.line_num, row) for row in rows]
    ragged = next((line for line, row in found if "" in row and any(_listed(row[""]))), None)
    if ragged is not None:
        raise InvalidValueError(
            f"{path}, line {ragged}: has more values than there are columns; quote values with separators"
        )
    return [(line, {key.strip(): _text(value) for key, value in row.items() if key}) for line, row in found]


def require_columns(path: Path, rows: Sequence[dict[str, str]], columns: Sequence[str]) -> None:
    """Refuses a table without some columns, or without any row.

    Raises:
        ValueError: the message names the table, what is missing and what was found.
    """
    missing = [name for name in columns if not rows or name not in rows[0]]
    if missing:
        raise InvalidValueError(
            f"{path}: has no column {' and '.join(missing)}; found {list(rows[0]) if rows else 'no rows'}"
        )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _delimiter(header: str) -> str:
    """Returns what separates the columns: a comma, a tab or a semicolon (spreadsheets in many locales)."""
    return max(",\t;", key=header.count)


def _parquet_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtraError('Parquet tables need pyarrow: pip install "diffmiczoo[parquet]"') from error
    try:
        rows = parquet.read_table(path).to_pylist()
    except ArrowInvalid as error:
        raise InvalidValueError(f"{path}: is not a Parquet table ({error})") from error
    return [(line, {key: _text(value) for key, value in row.items()}) for line, row in enumerate(rows, start=1)]


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Opens a CSV as text.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{path}: is not UTF-8 ({error.reason}); save it as CSV UTF-8") from error


def _label_columns(
    path: Path, columns: list[str], rows: list[tuple[int, dict[str, str]]], class_names: Sequence[str] | None
) -> list[str]:
    """Returns the columns that are labels, each of 0 and 1."""
    labels = list(class_names) if class_names else [name for name in columns if name not in _OWN]
    missing = [name for name in labels if name not in columns]
    if len(labels) < 2 or missing:
        what = f"has no column for the labels {missing}" if missing else "needs the columns file and label"
        raise InvalidValueError(f"{path}: {what}, or a column of 0 and 1 for each label; found {columns}")
    for name in labels:
        wrong = next(((line, row[name]) for line, row in rows if row[name].lower() not in _YES | _NO), None)
        if wrong is not None:
            raise InvalidValueError(
                f"{path}, line {wrong[0]}: column {name} holds {wrong[1]!r}; without a column label, every column "
                f"besides {', '.join(_OWN)} is a label of 0 and 1. Remove it, or name the labels with class_names"
            )
    return labels


def _record(path: Path, line: int, row: dict[str, str], columns: list[str] | None) -> Record:
    if not row["file"]:
        raise InvalidValueError(f"{path}, line {line}: column file is empty")
    split = row.get("split") or None
    if split is not None and split not in SPLITS:
        raise InvalidValueError(f"{path}, line {line}: split {split!r} is not one of {', '.join(SPLITS)}")
    if columns is None:
        labels = tuple(label.strip() for label in row["label"].split("|") if label.strip())
    else:
        labels = tuple(name for name in columns if row[name].lower() in _YES)
    if len(set(labels)) < len(labels):
        raise InvalidValueError(f"{path}, line {line}: a label is given twice in {row['label']!r}")
    return Record(path.parent / row["file"], labels, split, row.get("group") or None)


def _check_records(path: Path, records: list[Record]) -> None:
    _check_all_or_none(path, records, "split", f"give all of them one ({', '.join(SPLITS)}), or none")
    _check_all_or_none(path, records, "group", "give each one (of its own where it is alone), or none")
    repeated = [str(file) for file, count in Counter(record.path for record in records).items() if count > 1]
    if repeated:
        raise InvalidValueError(f"{path}: lists {len(repeated)} files more than once, first {repeated[0]}")
    missing = [record.path for record in records if not record.path.is_file()]
    if missing:
        raise MissingFileError(f"{path}: {len(missing)} of {len(records)} files do not exist, first {missing[0]}")


def _check_all_or_none(path: Path, records: list[Record], field: str, advice: str) -> None:
    without = [record for record in records if getattr(record, field) is None]
    if without and len(without) < len(records):
        first = without[0].path.name
        raise InvalidValueError(
            f"{path}: {len(without)} of {len(records)} images have no {field}, first {first}; {advice}"
        )
