"""Well-known names of columns: of files, labels, groups and splits, as tables of public data sets have them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffmiczoo.data.cells import is_empty
from diffmiczoo.data.rows import Table
from diffmiczoo.data.zeros_and_ones import is_zero_or_one
from diffmiczoo.images.containers import bare

#: Names of labels, in lower case and without signs; the first is the package's own.
LABELS = (
    "label labels class classes target targets dx diagnosis diagnostic finding findings findinglabels y category "
    "classname gtlabel"
).split()
#: Names of labels where no column has one of the above.
_RARER_LABELS = "level grade severity pathology retinopathygrade drgrade findingclass classid labelid".split()
_ID = re.compile(r"\w*(id|uid|code|nr|no|num|number)")
_GROUP = re.compile(
    r"(group|groups|groupid|(\w*(patient|lesion|subject|participant|person)s?)(id|uid|code|nr|no|num|number|name)?"
    r"|(\w*(case|study|series|exam))(id|uid|nr|num|number|instanceuid)|mrn|pid)"
)
_SPLIT = re.compile(
    r"\w*split\w*|sets?|\w*folds?|foldid|partition|subset|(is)?(train|test|valid)(ing)?|(is)?(val|validation|holdout)"
    r"|traintest|trainvaltest|trainorvalid"
)


def label_columns(table: Table) -> list[str]:
    """Returns the columns that are called like labels; a y beside an x is one only if it holds 0 and 1."""
    names = [name for name in known_columns(table, LABELS) if bare(name) != "y" or name.lower() == "y"]
    if any(name.lower() == "x" for name in table.columns):
        names = [name for name in names if name.lower() != "y" or _holds_zeros_and_ones(table, name)]
    return names or known_columns(table, _RARER_LABELS)


def never_labels(table: Table, file: str) -> set[str]:
    """Returns the columns that look like groups or splits, whether used or not; those of 0 and 1 may be labels."""
    like = group_columns(table, {file}) + split_columns(table, {file})
    return {name for name in like if is_id(name) or not _holds_zeros_and_ones(table, name)}


def _holds_zeros_and_ones(table: Table, name: str) -> bool:
    return holds_something(table, name) and all(is_zero_or_one(row[name]) for _, row in table.rows)


def holds_something(table: Table, name: str) -> bool:
    """Whether a column has a cell that is not empty."""
    return any(not is_empty(row[name]) for _, row in table.rows)


def is_id(name: str) -> bool:
    """Whether a column is called like one of numbers or codes of something."""
    return _ID.fullmatch(bare(name)) is not None


def group_columns(table: Table, used: set[str]) -> list[str]:
    """Returns the columns that are called like groups."""
    return _matching(table, _GROUP, used)


def split_columns(table: Table, used: set[str]) -> list[str]:
    """Returns the columns that are called like splits."""
    return _matching(table, _SPLIT, used)


def known_columns(table: Table, names: Sequence[str]) -> list[str]:
    """Returns the columns of some names, in the order of these, whatever their case and signs."""
    return sorted((name for name in table.columns if bare(name) in names), key=lambda name: names.index(bare(name)))


def _matching(table: Table, pattern: re.Pattern[str], used: set[str]) -> list[str]:
    return [name for name in table.columns if name not in used and pattern.fullmatch(bare(name))]
