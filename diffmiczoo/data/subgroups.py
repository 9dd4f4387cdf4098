"""Images divided by a column of their table: by its values, or by ranges of its numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from diffmiczoo.data.cells import is_empty, plain_text, single_cell, whole_numbers
from diffmiczoo.data.labels import label_order
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.containers import bare

#: What images are called whose cell is empty, or says that the value is missing.
MISSING = "(missing)"

#: From this number of different numbers on they are cut into ranges; fewer are taken for codes, as of skin types.
_NUMBERS = 11
#: More values than these are names of single images or patients, not of subgroups.
_MOST = 50

#: Ages are cut at the same years in all data, so that tables of different hospitals can be compared.
_AGE = re.compile(r"((patient|subject)s?)?age(years|inyears|yrs|approx|atdiagnosis|atexam|atstudy)?")
_AGE_EDGES = (20, 40, 60, 80)

#: Days in a year, months in a year …: DICOM writes ages as 058Y, 006M, 003W, 012D.
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
_DICOM_AGE = re.compile(r"(\d{1,3})([YMWD])")


@dataclass(frozen=True)
class Division:
    """Images divided by a column; each belongs to one subgroup.

    Attributes:
        column: its name.
        subgroups: their names in order, each with at least one image; `MISSING` is the last.
        of_image: N, the place in `subgroups` of each image.
        note: how numbers were cut into ranges, a sentence; "" for values as they are.
    """

    column: str
    subgroups: tuple[str, ...]
    of_image: tuple[int, ...]
    note: str = ""


def divide(manifest: Manifest, column: str) -> Division:
    """Divides the images of a manifest by a column of the table that they were read from.

    Numbers of which there are more than ten different ones are cut into ranges: ages at 20, 40, 60 and 80 years, others
    at their quartiles, rounded to three digits.

    Args:
        manifest: the images.
        column: its name, in any case if that is clear.

    Raises:
        ValueError: there is no such column (the message names those that there are), or it has a value of its own for
            nearly each image.
    """
    known = tuple({name: None for record in manifest.records for name in record.columns})
    name = _named(manifest.name, known, column)
    cells = whole_numbers([single_cell(record.columns.get(name, "")) for record in manifest.records])
    cells = [plain_text(cell) for cell in cells]
    years = _AGE.fullmatch(bare(name)) is not None
    numbers = [None if is_empty(cell) else _number(cell, years) for cell in cells]
    given = [number for number in numbers if number is not None]
    numeric = len(given) == sum(not is_empty(cell) for cell in cells)
    if numeric and len(set(given)) >= _NUMBERS:
        edges = _AGE_EDGES if years else _quartiles(given)
        names = [MISSING if number is None else _range(number, edges) for number in numbers]
        order = [_range(number, edges) for number in (edges[0] - 1, *edges)]
        how = "at 20, 40, 60 and 80 years" if years else "near their quartiles"
        return _division(name, names, order, f"numbers cut {how}")
    names = [MISSING if is_empty(cell) else cell for cell in cells]
    order = sorted(set(names), key=label_order)
    if len(order) > _MOST:
        raise InvalidValueError(
            f"{manifest.name}: column {name} has {len(order)} different values, such as {order[0]!r}, more than the "
            f"{_MOST} that make subgroups; take another column, or add one with fewer"
        )
    return _division(name, names, order)


def _named(source: str, known: Sequence[str], column: str) -> str:
    if not known:
        raise InvalidValueError(f"{source}: has no columns such as {column} to divide images by; only tables have")
    if column in known:
        return column
    alike = [name for name in known if name.casefold() == plain_text(column).casefold()]
    if len(alike) == 1:
        return alike[0]
    raise InvalidValueError(f"{source}: has no column {column} to divide images by; found {list(known)}")


def _number(cell: str, years: bool) -> float | None:
    age = _DICOM_AGE.fullmatch(cell) if years else None
    if age is not None:
        return float(age[1]) / _PER_YEAR[age[2]]
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


def _quartiles(numbers: Sequence[float]) -> tuple[float, ...]:
    """Returns the quartiles, rounded to three digits where that keeps them apart; fewer where they are equal."""
    exact = np.quantile(numbers, (0.25, 0.5, 0.75)).tolist()
    rounded = [float(f"{value:.3g}") for value in exact]
    edges = rounded if len(set(rounded)) == len(set(exact)) else exact
    return tuple(sorted(set(edges)))


def _range(number: float, edges: Sequence[float]) -> str:
    place = sum(number >= edge for edge in edges)
    if not place:
        return f"below {edges[0]:g}"
    return f"{edges[-1]:g} and above" if place == len(edges) else f"{edges[place - 1]:g} to below {edges[place]:g}"


def _division(column: str, names: Sequence[str], order: Sequence[str], note: str = "") -> Division:
    there = set(names)
    subgroups = [name for name in order if name in there and name != MISSING] + [MISSING] * (MISSING in there)
    places = {name: place for place, name in enumerate(subgroups)}
    return Division(column, tuple(subgroups), tuple(places[name] for name in names), note)
