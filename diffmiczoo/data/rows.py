"""The rows of a table, CSV or Parquet, as text: all of them, with the lines that they are on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffmiczoo.data.cells import plain_text
from diffmiczoo.data.csv_lines import CsvRecord, csv_records, find_delimiter, text_lines
from diffmiczoo.data.manifest import Skipped
from diffmiczoo.data.table_text import is_undecoded, table_text
from diffmiczoo.errors import InvalidValueError, MissingExtraError, MissingFileError

#: Endings of the files that are read as tables, in lower case.
TABLE_EXTENSIONS = (".csv", ".tsv", ".tab", ".txt", ".parquet")

#: Endings of tables that are not read.
SPREADSHEETS = (".xlsx", ".xls", ".xlsm", ".ods", ".numbers")

Row = tuple[int, dict[str, str]]

#: What the missing values of Parquet become: a word that says so.
_MISSING = "NaN"


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        path: where it is.
        columns: their names, without blanks around them; those without a name are called "Unnamed: 0" and so on.
        rows: line and column → cell as it is written, of all rows that are not empty.
        notes: what was decided while reading, a sentence each.
        skipped: empty rows and comments.
        repeated: names that more than one column has.
        unnamed: the columns without a name, such as the index of a DataFrame.
        unit: what messages call the number of a row.
        unpaired: lines whose quotation marks have no pair and are read as they stand.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    repeated: frozenset[str] = frozenset()
    unnamed: frozenset[str] = frozenset()
    unit: str = "line"
    unpaired: frozenset[int] = frozenset()

    def where(self, line: int) -> str:
        """Returns what messages call a row."""
        return f"{self.path}, {self.unit} {line}"


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of a CSV, TSV or Parquet table with their line numbers, all cells as text as it is written.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is not such a table.
        ImportError: it is a Parquet file and pyarrow is not installed.
    """
    return list(read_table(path).rows)


def read_table(path: Path) -> Table:
    """Reads a CSV, TSV or Parquet table; raises as `read_rows` does."""
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; expected a table ({', '.join(TABLE_EXTENSIONS)})")
    if path.suffix.lower() in SPREADSHEETS:
        raise InvalidValueError(f"{path}: spreadsheets are not read; save it as CSV UTF-8")
    return _parquet_table(path) if path.suffix.lower() == ".parquet" else _csv_table(path)


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


def _csv_table(path: Path) -> Table:
    lines = text_lines(table_text(path))
    begin, delimiter, comments = _preamble(lines)
    if begin == len(lines):
        raise InvalidValueError(f"{path}: lists no images, it is empty")
    lines = ["\n"] * begin + [_without_sign(lines[begin])] + lines[begin + 1 :]
    records, unpaired = csv_records(path, lines, delimiter or find_delimiter(lines[begin]))
    header, *body = records
    rows, empty, more = _whole_rows(path, header, body, lines, delimiter or find_delimiter(lines[begin]))
    notes = []
    if unpaired:
        notes.append(f"quotation marks without a pair are read as they stand, in line {', '.join(map(str, unpaired))}")
    skipped = [
        Skipped(what, tuple(f"line {line}" for line in numbers))
        for what, numbers in (("rows that are empty or the header again", empty), ("comments", comments + more))
        if numbers
    ]
    table = _table(path, header.cells, rows, tuple(notes), tuple(skipped))
    return replace(table, unpaired=frozenset(unpaired))


def _preamble(lines: Sequence[str]) -> tuple[int, str | None, list[int]]:
    """Returns where the header is, the delimiter that a line `sep=;` gives, and the comments above the header."""
    delimiter: str | None = None
    comments: list[int] = []
    for place, line in enumerate(lines):
        said = re.fullmatch(r'"?sep=(\\t|.)"?[,;\t]*\s*', line, re.IGNORECASE | re.DOTALL)
        if said and not comments and delimiter is None:
            delimiter = "\t" if said[1] == "\\t" else said[1]
        elif line.startswith("#") and not _is_header(line, lines[place + 1 :]):
            comments.append(place + 1)
        elif line.strip():
            return place, delimiter, comments
    return len(lines), delimiter, comments


def _without_sign(header: str) -> str:
    """Returns a header without the # that some programs put before it; alone it is the name of a column."""
    return header if re.match(r"#\s*[,;\t|]", header) else header.lstrip("# ")


def _is_header(line: str, rest: Sequence[str]) -> bool:
    """Whether a line that begins with # names the columns of the next one, as NumPy writes it."""
    following = next((each for each in rest if each.strip()), "")
    delimiter = find_delimiter(following)
    cells = [cell.strip(' #"\r\n').lower().replace("_", "") for cell in line.split(delimiter)]
    return len(cells) == len(following.split(delimiter)) and bool({"file", "filename", "image", "imageid"} & {*cells})


def _whole_rows(
    path: Path, header: CsvRecord, body: Sequence[CsvRecord], lines: Sequence[str], delimiter: str
) -> tuple[list[tuple[int, list[str]]], list[int], list[int]]:
    """Returns the rows with as many cells as the header has, and the lines of empty rows and of comments."""
    width = len(header.cells)
    rows: list[tuple[int, list[str]]] = []
    empty: list[int] = []
    comments: list[int] = []
    for record in body:
        cells = record.cells
        if len(cells) != width and lines[record.line - 1].startswith("#"):
            comments.append(record.line)
        elif not any(cell.strip() for cell in cells) or cells == header.cells:
            empty.append(record.line)
        else:
            rows.append((record.line, cells))
    _check_width(path, rows, width, delimiter)
    return [(line, (cells + [""] * width)[:width]) for line, cells in rows], empty, comments


def _check_width(path: Path, rows: Sequence[tuple[int, list[str]]], width: int, delimiter: str) -> None:
    long = [(line, len(cells)) for line, cells in rows if any(cell.strip() for cell in cells[width:])]
    if not long:
        return
    if len(long) == len(rows) > 1 and {count for _, count in long} == {width + 1}:
        raise InvalidValueError(
            f"{path}: every row has one value more than the header names; if the first is a number or name of the row "
            "(R writes tables so), put a name for it in front of the header"
        )
    line, count = long[0]
    raise InvalidValueError(
        f"{path}, line {line}: has more values than there are columns ({count}, not {width}); put a value that holds "
        f"{delimiter!r} into quotation marks"
    )


def _table(
    path: Path,
    header: Sequence[str],
    rows: Sequence[tuple[int, Sequence[str]]],
    notes: tuple[str, ...] = (),
    skipped: tuple[Skipped, ...] = (),
    unit: str = "line",
) -> Table:
    """Names the columns, drops those that trailing delimiters make, and counts names that occur twice."""
    names: list[str] = []
    unnamed, repeated, used = set(), set(), []
    for place, text in enumerate(header):
        name = plain_text(text)
        if not name and not any(cells[place].strip() for _, cells in rows):
            continue
        if is_undecoded(name):
            raise InvalidValueError(f"{path}: is not UTF-8 (column {name!r}); save it as CSV UTF-8")
        if not name or re.fullmatch(r"Unnamed: \d+|__index_level_\d+__", name):
            name = name or f"Unnamed: {place}"
            unnamed.add(name)
        if name in names:
            repeated.add(name)
            name = f"{name}.{names.count(name)}"
        names.append(name)
        used.append(place)
    table = tuple((line, {name: cells[place] for name, place in zip(names, used, strict=True)}) for line, cells in rows)
    return Table(path, tuple(names), table, notes, skipped, frozenset(repeated), frozenset(unnamed), unit)


def _parquet_table(path: Path) -> Table:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise MissingExtraError('Parquet tables need pyarrow: pip install "diffmiczoo[parquet]"') from error
    try:
        table = parquet.read_table(path)
    except ArrowInvalid as error:
        raise InvalidValueError(f"{path}: is not a Parquet table ({error})") from error
    columns = [[_cell(value) for value in column.to_pylist()] for column in table.columns]
    rows = [(line, list(cells)) for line, cells in enumerate(zip(*columns, strict=True), start=1)]
    return _table(path, table.column_names, rows, unit="row")


def _cell(value: Any) -> str:
    """Returns the text of a value of Parquet: lists as JSON, missing values as a word that says so."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _MISSING
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, bytes | dict):
        return f"<{type(value).__name__}>"
    return str(value)
