"""The lines of a CSV as cells, strictly: a quotation mark without its pair may not swallow the rows that follow."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.errors import InvalidValueError

#: What separates columns, the likeliest first.
_DELIMITERS = ",\t;|"

_FILE_NAME = re.compile(r"\.(png|jpe?g|tiff?|bmp|gif|dcm|dicom|webp|jp2)$", re.IGNORECASE)


@dataclass(frozen=True)
class CsvRecord:
    """One row of cells.

    Attributes:
        line: where it begins, from 1.
        lines: how many lines it takes.
        cells: as they are written, without their quotation marks.
    """

    line: int
    lines: int
    cells: list[str]


def text_lines(text: str) -> list[str]:
    """Returns the lines of a text with their ends, which may be LF, CRLF or CR."""
    return list(io.StringIO(text, newline=""))


def find_delimiter(header: str) -> str:
    """Returns what separates the columns of a header, quoted names aside."""
    return max(_DELIMITERS, key=lambda sign: len(next(csv.reader([header], delimiter=sign), [])))


def csv_records(path: Path, lines: Sequence[str], delimiter: str) -> tuple[list[CsvRecord], list[int]]:
    """Returns the records of the lines of a CSV, and the lines whose quotation marks are read as ordinary signs.

    Where quotation marks do not pair, or a quoted value holds lines that look like rows, the lines are read one by one,
    if each of them is then a whole row.

    Raises:
        ValueError: a quotation mark is not closed, or closed within a value, and what belongs to it cannot be told.
    """
    with _long_fields():
        records, unpaired = _quoted(lines, delimiter)
        width = len(records[0].cells) if records else 0
        start = unpaired or _swallowing(records, lines, delimiter, width)
        if start is None:
            return records, []
        return _line_by_line(path, lines, delimiter, start)


@contextmanager
def _long_fields() -> Iterator[None]:
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _quoted(lines: Sequence[str], delimiter: str) -> tuple[list[CsvRecord], int | None]:
    """Returns the records up to the first whose quotation marks do not pair, and the line of that one."""
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True, skipinitialspace=True)
    records: list[CsvRecord] = []
    start = 1
    try:
        for cells in reader:
            if cells:
                records.append(CsvRecord(start, reader.line_num - start + 1, cells))
            start = reader.line_num + 1
    except csv.Error:
        return records, start
    return records, None


def _swallowing(records: Sequence[CsvRecord], lines: Sequence[str], delimiter: str, width: int) -> int | None:
    """Returns the line of the first record one of whose quoted values holds lines that look like rows."""
    shapes = {_shape(record.cells[0]) for record in records if record.lines == 1}
    for record in records:
        for line in lines[record.line : record.line + record.lines - 1]:
            cells = _unquoted(line, delimiter)
            if len(cells) == width and (_shape(cells[0]) in shapes or any(map(_FILE_NAME.search, cells))):
                return record.line
    return None


def _shape(cell: str) -> str:
    """Returns what a name looks like, whatever its letters and digits: "img12.png" and "img7.png" are alike."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip().strip('"')))


def _unquoted(line: str, delimiter: str) -> list[str]:
    return [cell.strip(" ") for cell in line.rstrip("\r\n").split(delimiter)]


def _line_by_line(path: Path, lines: Sequence[str], delimiter: str, start: int) -> tuple[list[CsvRecord], list[int]]:
    records: list[CsvRecord] = []
    literal = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        alone, unpaired = _quoted([line], delimiter)
        if unpaired or not alone:
            literal.append(number)
        cells = alone[0].cells if alone and not unpaired else _unquoted(line, delimiter)
        if records and len(cells) != len(records[0].cells):
            raise InvalidValueError(
                f"{path}, line {start}: a quotation mark opens here and has no pair; close it, or write it twice "
                '("") where it is part of the text'
            )
        records.append(CsvRecord(number, 1, cells))
    return records, literal
