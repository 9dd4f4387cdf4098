"""Which column of a table holds files, labels, groups and splits: by what the user says, else by well-known names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from diffmiczoo.data.cells import is_empty, plain_text
from diffmiczoo.data.column_names import (
    group_columns,
    holds_something,
    is_id,
    known_columns,
    label_columns,
    never_labels,
    split_columns,
)
from diffmiczoo.data.manifest import SPLITS
from diffmiczoo.data.rows import Table
from diffmiczoo.data.split_names import SKIP, split_of
from diffmiczoo.data.zeros_and_ones import all_zero_or_one, checked_zeros_and_ones, is_zero_or_one
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.containers import FILE_COLUMNS

#: Said of a column that is not to be used.
NO_COLUMN = "none"

_LOOKS_LIKE_FILE = re.compile(r"\.(png|jpe?g|tiff?|bmp|dcm|dicom|webp)$", re.IGNORECASE)


@dataclass(frozen=True)
class ColumnChoice:
    """What somebody says about the columns of a table; everything else is told from their names.

    Attributes:
        file: the column of files or their ids.
        labels: one column of labels, or several of 0 and 1.
        group: the column of patients, lesions or the like; "none" for no groups.
        split: the column of splits; "none" for no splits.
        map_split: word for a split → "train", "val", "test", or "skip" for rows that are left out.
        keep_faults: files that do not exist, and rows that contradict each other about a file, become images all the
            same, for whoever tells of them.
    """

    file: str | None = None
    labels: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    map_split: Mapping[str, str] = field(default_factory=dict)
    keep_faults: bool = False


@dataclass(frozen=True)
class Columns:
    """The columns that are used.

    Attributes:
        file, group, split: their names; None where there are none.
        labels: one column of labels, or several of 0 and 1.
        notes: how they were told, a sentence each.
    """

    file: str
    labels: tuple[str, ...] = ()
    group: str | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()

    def of_all(self) -> set[str]:
        """Returns the names of all columns that are used."""
        return {name for name in (self.file, *self.labels, self.group, self.split) if name is not None}


def choose_columns(
    table: Table, choice: ColumnChoice, class_names: Sequence[str] | None, exists: Callable[[str], bool]
) -> Columns:
    """Decides which columns of a table are used.

    Args:
        table: with at least one row.
        choice: what the user says.
        class_names: the classes, which may be columns of 0 and 1.
        exists: whether a cell names a file that is there; decides between several columns of files.

    Raises:
        ValueError: a column is missing, or may be used but need not; the message names it and the option that says so.
    """
    file = choose_file(table, choice, exists, "needs the columns file and label")
    group = _choose_group(table, choice, {file})
    split = choose_split(table, choice, {file, group or file})
    chosen = Columns(file, (), group, split)
    labels = _choose_labels(table, choice, class_names, chosen.of_all() | never_labels(table, file))
    chosen = replace(chosen, labels=labels)
    repeated = sorted(chosen.of_all() & table.repeated)
    if repeated:
        raise InvalidValueError(f"{table.path}: more than one column is called {' and '.join(repeated)}; rename one")
    return replace(chosen, notes=tuple(_notes(table, chosen)))


def choose_file(
    table: Table, choice: ColumnChoice, exists: Callable[[str], bool], needed: str = "has no column file"
) -> str:
    """Returns the column of files.

    Args:
        table: with at least one row.
        choice: what the user says.
        exists: as for `choose_columns`.
        needed: what to say of a table without one.

    Raises:
        ValueError: there is none, or there are several.
    """
    if choice.file is not None:
        return _named(table, choice.file, "--file-column")
    if "file" in table.columns:
        return "file"
    known = known_columns(table, FILE_COLUMNS)
    if len(known) > 1:
        there = [name for name in known if any(exists(row[name]) for _, row in table.rows[:20])]
        known = there or known
    if len(known) == 1:
        return known[0]
    if known:
        raise InvalidValueError(
            f"{table.path}: columns {' and '.join(known)} may hold the files; say which with --file-column {known[0]} "
            f"(file_column in Python)"
        )
    named = [name for name in table.columns if name not in table.unnamed]
    there = [name for name in named if all(exists(row[name]) for _, row in table.rows[:50])]
    if len(there) == 1 and not any(_LOOKS_LIKE_FILE.search(name) for name in table.columns):
        return there[0]
    raise InvalidValueError(f"{table.path}: {needed}; found {list(table.columns)}{_file_hint(table)}")


def _file_hint(table: Table) -> str:
    looks = _LOOKS_LIKE_FILE
    if any(looks.search(name) for name in table.columns):
        return "; its first line looks like a row, put the names of the columns above it"
    if len(table.columns) == 1 and " " in table.columns[0]:
        return "; columns are separated by commas, tabs, semicolons or |, not by blanks, and named in the first line"
    fitting = [name for name in table.columns if all(looks.search(row[name].strip()) for _, row in table.rows)]
    if len(fitting) == 1:
        return f"; if column {fitting[0]} holds the files, say --file-column {fitting[0]}"
    if fitting:
        return f"; {' and '.join(fitting)} may hold the files: say which does with --file-column {fitting[0]}"
    return "; say which column holds the files with --file-column NAME (file_column in Python)"


def _choose_group(table: Table, choice: ColumnChoice, used: set[str]) -> str | None:
    if choice.group is not None:
        return None if choice.group == NO_COLUMN else _named(table, choice.group, "--group-column")
    if "group" in table.columns:
        return "group" if holds_something(table, "group") else None
    found = [name for name in group_columns(table, used) if holds_something(table, name)]
    # A column with one value for all tells nothing apart.
    found = [name for name in found if len({row[name] for _, row in table.rows}) > 1] or found[:1]
    if not found:
        return None
    if not choice.labels and not label_columns(table):
        _check_no_label(table, found)
    coarsest = [name for name in found if all(_holds_whole(table, name, other) for other in found)]
    if not coarsest:
        raise InvalidValueError(
            f"{table.path}: columns {' and '.join(found)} look like groups, and none holds the others whole; say which "
            f"images belong together with --group-column {found[0]}, or {NO_COLUMN} (group_column in Python)"
        )
    name = coarsest[0]
    empty = [line for line, row in table.rows if is_empty(row[name])]
    if empty:
        raise InvalidValueError(
            f"{table.path}, {table.unit} {empty[0]}: column {name} looks like a group and is empty in {len(empty)} of "
            f"{len(table.rows)} rows; give each one, or say --group-column {NO_COLUMN} (group_column in Python)"
        )
    return name


def _check_no_label(table: Table, groups: Sequence[str]) -> None:
    """Refuses a column such as "lesion" of 0 and 1 in a table without a column of labels: it may be one of several."""
    for name in groups:
        if not is_id(name) and all(is_zero_or_one(row[name]) for _, row in table.rows):
            raise InvalidValueError(
                f"{table.path}: column {name} may be a group, or a label of 0 and 1; say --group-column {name} or "
                f"--group-column {NO_COLUMN} (group_column in Python)"
            )


def _holds_whole(table: Table, whole: str, part: str) -> bool:
    """Whether all rows with the same value of `part` have the same value of `whole`."""
    owner: dict[str, str] = {}
    return all(owner.setdefault(row[part], row[whole]) == row[whole] for _, row in table.rows)


def choose_split(table: Table, choice: ColumnChoice, used: set[str]) -> str | None:
    """Returns the column of splits, or None.

    Raises:
        ValueError: a column looks like it, and its words are not known or another one looks like it too.
    """
    if choice.split is not None:
        return None if choice.split == NO_COLUMN else _named(table, choice.split, "--split-column")
    if "split" in table.columns:
        return "split" if holds_something(table, "split") else None
    found = [name for name in split_columns(table, used) if holds_something(table, name)]
    others = set(table.columns) - used - {*choice.labels, *label_columns(table)}
    found = found or [name for name in table.columns if name in others and _holds_splits(table, name)]
    clear = [name for name in found if _strange_split(table, name, choice) is None]
    if len(clear) == 1:
        return clear[0]
    if not found:
        return None
    name = (clear or found)[0]
    strange = _strange_split(table, name, choice)
    advice = f"say --split-column {name} or --split-column {NO_COLUMN} (split_column in Python)"
    if strange is None:
        raise InvalidValueError(f"{table.path}: columns {' and '.join(clear)} look like splits; {advice}")
    raise InvalidValueError(
        f"{table.path}, {table.unit} {strange[0]}: column {name} looks like a split and holds {strange[1]!r}, which is "
        f"none of {', '.join(SPLITS)}; say what it is with --map-split {strange[1] or 'WORD'}=test (or train, val, "
        f"{SKIP}) and so on, or "
        f"--split-column {NO_COLUMN} (map_split and split_column in Python)"
    )


def _holds_splits(table: Table, name: str) -> bool:
    """Whether a column of any name holds a word for train and others."""
    words = {row[name] for _, row in table.rows}
    return len(words) > 1 and any(split_of(word) == "train" for word in words)


def _strange_split(table: Table, name: str, choice: ColumnChoice) -> tuple[int, str] | None:
    """Returns the first line whose split is no known word, and the word."""
    for line, row in table.rows:
        if split_of(row[name], choice.map_split) is None:
            return line, row[name].strip()
    return None


def _choose_labels(
    table: Table, choice: ColumnChoice, class_names: Sequence[str] | None, used: set[str]
) -> tuple[str, ...]:
    if choice.labels:
        named = tuple(_named(table, name, "--label-column") for name in choice.labels)
        return named if len(named) == 1 else checked_zeros_and_ones(table, named)
    if "label" in table.columns:
        return ("label",)
    known = [name for name in label_columns(table) if name not in used]
    if class_names and set(class_names) <= set(table.columns):
        return checked_zeros_and_ones(table, tuple(class_names))
    if len(known) == 1 and not all_zero_or_one(table, used):
        return (known[0],)
    if known:
        known = known if len(known) > 1 else [known[0], "all columns of 0 and 1"]
        raise InvalidValueError(
            f"{table.path}: columns {' and '.join(known)} may hold the labels; say which with --label-column "
            f"{known[0]} (label_column in Python)"
        )
    return _columns_of_zero_and_one(table, class_names, used)


def _columns_of_zero_and_one(table: Table, class_names: Sequence[str] | None, used: set[str]) -> tuple[str, ...]:
    """Returns the columns that are labels, each of 0 and 1: all that have another name than an index."""
    columns = [name for name in table.columns if name not in used and name not in table.unnamed]
    if class_names and set(columns) & set(class_names):
        missing = sorted(set(class_names) - set(columns))
        raise InvalidValueError(
            f"{table.path}: has no column for the labels {missing}, or a column of 0 and 1 for each label; found "
            f"{list(table.columns)}"
        )
    if len(columns) < 2:
        raise InvalidValueError(
            f"{table.path}: needs the columns file and label, or a column of 0 and 1 for each label; found "
            f"{list(table.columns)}; say which column holds the labels with --label-column (label_column in Python)"
        )
    return checked_zeros_and_ones(
        table,
        tuple(columns),
        "without a column label, every column besides file, split, group is a label of 0 and 1. Remove it, or name the "
        "labels with --label-column (label_column or class_names in Python)",
    )


def _named(table: Table, name: str, option: str) -> str:
    """Returns a column by the name that the user gives, in any case if that is clear."""
    if name in table.columns:
        return name
    alike = [column for column in table.columns if column.casefold() == plain_text(name).casefold()]
    if len(alike) == 1:
        return alike[0]
    raise InvalidValueError(f"{table.path}: {option} {name}: there is no such column; found {list(table.columns)}")


def _notes(table: Table, chosen: Columns) -> list[str]:
    """Says which columns are used under another name than the package's own, and which are not used."""
    own = {"file": chosen.file, "group": chosen.group, "split": chosen.split}
    if len(chosen.labels) == 1:
        own["label"] = chosen.labels[0]
    told = [f"{name} as {role}" for role, name in own.items() if name is not None and name != role]
    if len(chosen.labels) > 1:
        told.append(f"{len(chosen.labels)} columns of 0 and 1 as labels ({', '.join(chosen.labels)})")
    unused = [name for name in table.columns if name not in chosen.of_all() and holds_something(table, name)]
    notes = [f"columns used: {', '.join(told)}"] if told else []
    return notes + ([f"columns not used: {', '.join(unused)}"] if unused else [])


def read_split(table: Table, line: int, cell: str, choice: ColumnChoice) -> str | None:
    """Returns the split of a row; None for an empty cell, `SKIP` where the row is to be left out.

    Raises:
        ValueError: it is no known word.
    """
    split = split_of(cell, choice.map_split)
    if split is None and not is_empty(cell):
        raise InvalidValueError(
            f"{table.path}, {table.unit} {line}: split {cell.strip()!r} is not one of {', '.join(SPLITS)}; say what it "
            f"is with --map-split {cell.strip()}=test (or {SKIP}; map_split in Python)"
        )
    return split
