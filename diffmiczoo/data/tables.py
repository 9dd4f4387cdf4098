"""Tables of labelled images: CSV, TSV and Parquet → records, with every row accounted for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from diffmiczoo.data.cells import is_empty, single_cell, whole_numbers
from diffmiczoo.data.columns import ColumnChoice, Columns, choose_columns, choose_file, choose_split, read_split
from diffmiczoo.data.label_cells import LabelColumn, read_labels
from diffmiczoo.data.manifest import SPLITS, Reading, Record
from diffmiczoo.data.rows import Row, Table, read_table
from diffmiczoo.data.table_files import TableFiles, find_files, how_found
from diffmiczoo.data.table_lines import Line, Lines
from diffmiczoo.data.table_text import is_undecoded
from diffmiczoo.data.zeros_and_ones import is_one
from diffmiczoo.errors import InvalidValueError

#: Names of folders that hold what belongs together.
_PATIENT = re.compile(r"(patient|pat|subject|sub|participant|person|case|lesion|p)s?[ _-]?\d+", re.IGNORECASE)


def table_records(
    path: Path,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
    choice: ColumnChoice | None = None,
) -> Reading:
    """Reads the images that a table lists.

    Args:
        path: a table with a column of files (relative to the table), and a column of labels or one of 0 and 1 per
            label; optionally columns of splits and groups. docs/inputs.md says what is read how.
        class_names: the classes, where they are known.
        task: "multiclass" or "multilabel", where somebody said so.
        choice: which columns are used; by default told from their names.

    Raises:
        FileNotFoundError: the table, or a file that it lists, does not exist.
        ValueError: a column or value is wrong, or may be read in two ways; the message names the table and the line.
    """
    choice = choice or ColumnChoice()
    table = _with_rows(read_table(path))
    files = TableFiles(path.parent)
    columns = choose_columns(table, choice, class_names, files.exists)
    _check_text(table, columns)
    labels = _labels(table, columns, class_names, task)
    lines = Lines(table, _lines(table, columns, choice, labels))
    lines.drop_unlabelled(task)
    cells = [(line.number, line.cell) for line in lines.kept]
    found = find_files(table, files, cells, all_needed=not choice.keep_faults)
    lines.set_paths([file.path for file in found])
    lines.join_repeats(task, keep_faults=choice.keep_faults)
    records = tuple(
        Record(line.path, line.labels or (), line.split, line.group, columns=line.columns) for line in lines.kept
    )
    _check_all_or_none(path, records, "split", f"give all of them one ({', '.join(SPLITS)}), or none")
    _check_all_or_none(path, records, "group", "give each one (of its own where it is alone), or none")
    names, without = _names_of_columns(columns, records, task)
    patients = _patients_in_paths(records) if choice.group is None else ()
    notes = (*table.notes, *columns.notes, *labels.notes, *without, *how_found(found), *patients, *lines.account())
    return Reading(records, notes, (*table.skipped, *lines.skipped), names)


def _patients_in_paths(records: Sequence[Record]) -> tuple[str, ...]:
    """Says so where folders are called like patients with several images, and no column says which belong together."""
    if any(record.group is not None for record in records):
        return ()
    found = Counter(part for record in records for part in record.path.parent.parts if _PATIENT.fullmatch(part))
    # A folder around all images tells nothing apart.
    several = [name for name, count in found.items() if 1 < count < len(records)]
    if not several:
        return ()
    return (
        f"images lie in folders such as {several[0]}, and no column says which belong together; if these are patients, "
        "add a column group, so that none is on two sides of a split",
    )


def _names_of_columns(
    columns: Columns, records: Sequence[Record], task: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the classes that columns of 0 and 1 name, sorted, and a sentence on columns without any 1.

    Of several labels one that no image has is still a label; a class of one label each that no image shows is none.
    """
    shown = {label for record in records for label in record.labels}
    without = [name for name in columns.labels if name not in shown] if len(columns.labels) > 1 else []
    if len(columns.labels) < 2:
        return (), ()
    if task == "multilabel" or any(len(record.labels) != 1 for record in records):
        said = f"no image has the label {', '.join(without)}" if without else ""
        return tuple(sorted(columns.labels)), (said,) if said else ()
    return (), (f"no image shows {', '.join(without)}: not a class",) if without else ()


def read_files(source: Path | str, split: str | None = None, choice: ColumnChoice | None = None) -> Reading:
    """Returns the files that a table lists, as records without labels; rows are accounted for as with labels.

    Args:
        source: a CSV, TSV or Parquet table with a column of files (relative to the table) and optionally of splits.
        split: only the files of this one.
        choice: which columns are used; by default told from their names.

    Raises:
        FileNotFoundError: `source` does not exist, or none of its files.
        ValueError: a column is missing, or no file belongs to the split; the message names the table.
    """
    path, choice = Path(source), choice or ColumnChoice()
    table = _with_rows(read_table(path))
    files = TableFiles(path.parent)
    column = choose_file(table, choice, files.exists)
    of_splits = choose_split(table, choice, {column}) if split else None
    if split and of_splits is None:
        raise InvalidValueError(f"{path}: has no column split; found {list(table.columns)}")
    columns = Columns(column, (), None, of_splits)
    lines = Lines(table, _lines(table, columns, choice, None))
    lines.drop(f"rows of other splits than {split}", lambda line: split is not None and line.split != split)
    if not lines.kept:
        raise InvalidValueError(f"{path}: lists no file of split {split!r}")
    found = find_files(table, files, [(line.number, line.cell) for line in lines.kept], all_needed=False)
    lines.set_paths([file.path for file in found])
    lines.join_repeats(None)
    told = () if column == "file" else (f"column {column} is used as file",)
    notes = (*table.notes, *told, *how_found(found), *lines.account())
    return Reading(tuple(Record(line.path, ()) for line in lines.kept), notes, (*table.skipped, *lines.skipped))


def _with_rows(table: Table) -> Table:
    if not table.rows:
        raise InvalidValueError(f"{table.path}: lists no images")
    return table


def _check_text(table: Table, columns: Columns) -> None:
    """Refuses cells that hold half of a pair of quotation marks, or are not UTF-8; names of files may be anything."""
    for line, row in table.rows:
        half = [name for name in columns.of_all() if line in table.unpaired and '"' in row[name]]
        if half:
            raise InvalidValueError(
                f"{table.where(line)}: column {half[0]} holds {row[half[0]]!r}, a quotation mark without its pair; "
                'close it, or write it twice ("") where it is part of the text'
            )
        for name in columns.of_all() - {columns.file}:
            if is_undecoded(row[name]):
                raise InvalidValueError(
                    f"{table.path}: is not UTF-8 ({table.unit} {line}: {row[name]!r}); save it as CSV UTF-8"
                )


def _labels(table: Table, columns: Columns, class_names: Sequence[str] | None, task: str | None) -> LabelColumn:
    if len(columns.labels) == 1:
        cells = [row[columns.labels[0]] for _, row in table.rows]
        return read_labels(cells, [table.where(line) for line, _ in table.rows], class_names, task)
    labels = tuple(_ones(row, columns.labels) for _, row in table.rows)
    empty = [row[name] for _, row in table.rows for name in columns.labels if is_empty(row[name])]
    rows = sum(each is None for each in labels)
    inside = len(empty) - rows * len(columns.labels)
    return LabelColumn(labels, (f"{inside} empty cells in columns of 0 and 1 are read as 0",) if inside else ())


def _ones(row: dict[str, str], names: Sequence[str]) -> tuple[str, ...] | None:
    """Returns the labels whose columns hold 1; None where all of them are empty."""
    if all(is_empty(row[name]) for name in names):
        return None
    return tuple(name for name in names if is_one(row[name]))


def _lines(table: Table, columns: Columns, choice: ColumnChoice, labels: LabelColumn | None) -> list[Line]:
    groups = _groups(table.rows, columns.group)
    return [
        Line(
            number,
            _file_of(table, number, row[columns.file]),
            None if labels is None else labels.labels[place],
            None if columns.split is None else read_split(table, number, row[columns.split], choice),
            groups[place],
            columns=row,
        )
        for place, (number, row) in enumerate(table.rows)
    ]


def _groups(rows: Sequence[Row], column: str | None) -> list[str | None]:
    if column is None:
        return [None] * len(rows)
    cells = whole_numbers([row[column] for _, row in rows])
    return [None if is_empty(cell) else single_cell(cell) for cell in cells]


def _file_of(table: Table, number: int, cell: str) -> str:
    if is_empty(cell):
        raise InvalidValueError(f"{table.where(number)}: column file is empty")
    return cell


def _check_all_or_none(path: Path, records: Sequence[Record], field: str, advice: str) -> None:
    without = [record for record in records if getattr(record, field) is None]
    if without and len(without) < len(records):
        first = without[0].path.name
        raise InvalidValueError(
            f"{path}: {len(without)} of {len(records)} images have no {field}, first {first}; {advice}"
        )
