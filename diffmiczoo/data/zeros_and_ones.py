"""Columns of 0 and 1, one for each label."""

from __future__ import annotations

from diffmiczoo.data.cells import is_empty
from diffmiczoo.data.rows import Table
from diffmiczoo.errors import InvalidValueError

_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no"}


def all_zero_or_one(table: Table, used: set[str]) -> bool:
    """Whether all columns but those that are used, two at least, hold 0 and 1; each may be one label of several."""
    others = [other for other in table.columns if other not in used | table.unnamed]
    return len(others) > 1 and all(is_zero_or_one(row[other]) for _, row in table.rows for other in others)


def checked_zeros_and_ones(
    table: Table,
    columns: tuple[str, ...],
    advice: str = "a column per label holds 0 and 1; write 0 or 1, or leave out rows whose label is uncertain",
) -> tuple[str, ...]:
    """Returns columns of labels after checking that a cell holds 0, 1 or nothing; −1 for "uncertain" is refused."""
    for name in columns:
        wrong = next(((line, row[name]) for line, row in table.rows if not is_zero_or_one(row[name])), None)
        if wrong is not None:
            raise InvalidValueError(f"{table.where(wrong[0])}: column {name} holds {wrong[1]!r}; {advice}")
    return columns


def is_zero_or_one(cell: str) -> bool:
    """Whether a cell of a column of 0 and 1 can be read; an empty one can."""
    return is_empty(cell) or cell.strip().lower() in _YES | _NO


def is_one(cell: str) -> bool:
    """Whether a cell of a column of 0 and 1 gives the label."""
    return cell.strip().lower() in _YES
