"""Labels that somebody hands in beside pictures → targets of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.classes import own_names
from diffmiczoo.data.groups import is_missing
from diffmiczoo.data.labels import is_bare, number_text
from diffmiczoo.errors import InvalidTypeError, InvalidValueError


def given_targets(labels: Any, count: int, config: DiffMICConfig) -> np.ndarray:
    """Returns (N,) int64 class numbers, or (N, C) float32 zeros and ones for "multilabel".

    Args:
        labels: one entry per picture: "multiclass" a class name, or a number: the class's place, or where all names are
            numbers ("1", "2", …) its name; "multilabel" a list of class names, or a row of C zeros and ones. A list,
            tuple, array, tensor or Series of them.
        count: N.
        config: the model's.

    Raises:
        TypeError: it is no such list, or an entry is of another kind.
        ValueError: there are not N entries, one is missing or is not among the model's classes, or they are for another
            task; the message names the first.
    """
    rows = _rows(labels)
    if len(rows) != count:
        raise InvalidValueError(f"labels has {len(rows):,} entries for {count:,} images; expected one for each")
    names = {name: None for row in rows for name in _names(row)}
    known = _known(list(names), config)
    if config.task == "multiclass":
        numbers = _numbers(config)
        return np.array([_number(row, place, known, numbers) for place, row in enumerate(rows)], dtype=np.int64)
    return np.stack([_indicators(row, place, known, config) for place, row in enumerate(rows)])


def _rows(labels: Any) -> Sequence[Any]:
    if isinstance(labels, str | bytes | dict | set) or not isinstance(labels, Iterable):
        raise InvalidTypeError(f"labels={labels!r} must be a list with an entry for each image")
    detached = labels.detach().cpu() if hasattr(labels, "detach") else labels
    rows = detached.tolist() if hasattr(detached, "tolist") else list(detached)
    if not isinstance(rows, list):
        raise InvalidTypeError(f"labels={rows!r} must be a list with an entry for each image")
    return [each.tolist() if hasattr(each, "tolist") else each for each in rows]


def _names(row: Any) -> list[str]:
    return [each for each in (row if isinstance(row, list | tuple | set) else [row]) if isinstance(each, str)]


def _known(names: list[str], config: DiffMICConfig) -> dict[str, int]:
    """Returns name → class number.

    Raises:
        ValueError: the model does not know one of them.
    """
    found = {}
    for name in names:
        own = own_names([name], config.labels)
        if own is None:
            raise InvalidValueError(f"labels has {name!r}, which is none of the model's classes {list(config.labels)}")
        found[name] = config.labels.index(own[name])
    return found


def _numbers(config: DiffMICConfig) -> dict[int, int]:
    """Returns number → class; where all names are numbers they are meant, as in data that `fit` takes."""
    names = config.labels if config.class_names and is_bare(config.labels) else map(str, range(config.num_classes))
    return {int(number_text(name) or 0): place for place, name in enumerate(names)}


def _number(row: Any, place: int, known: dict[str, int], numbers: dict[int, int]) -> int:
    if isinstance(row, list | tuple | set):
        raise InvalidValueError(
            f"labels[{place}]={row!r} has several entries; a multiclass model takes one class name or number per image"
        )
    if isinstance(row, str):
        return known[row]
    number = _whole(row, place)
    if number not in numbers:
        places = list(numbers) == list(range(len(numbers)))
        expected = f"0..{len(numbers) - 1}" if places else f"one of {', '.join(map(str, numbers))}"
        raise InvalidValueError(f"labels[{place}]={row!r} is no class number; expected {expected}")
    return numbers[number]


def _whole(value: Any, place: int) -> int:
    if is_missing(value):
        raise InvalidValueError(f"labels[{place}] is missing ({value!r}); leave images without a label out")
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidTypeError(f"labels[{place}]={value!r} must be a class name or number")
    if value in (float("inf"), float("-inf")) or value != int(value):
        raise InvalidValueError(f"labels[{place}]={value!r} is no whole number")
    return int(value)


def _indicators(row: Any, place: int, known: dict[str, int], config: DiffMICConfig) -> np.ndarray:
    if is_missing(row):
        raise InvalidValueError(f"labels[{place}] is missing ({row!r}); an image without any label has an empty list")
    if not isinstance(row, list | tuple | set):
        raise InvalidValueError(
            f"labels[{place}]={row!r} is one entry; a multilabel model takes a list of class names, or a row of "
            f"{config.num_classes} zeros and ones, per image"
        )
    found = np.zeros(config.num_classes, dtype=np.float32)
    if all(isinstance(each, str) for each in row):
        found[[known[each] for each in row]] = 1
        return found
    if isinstance(row, set):
        raise InvalidTypeError(
            f"labels[{place}]={row!r} has no order; expected class names, or a row of zeros and ones"
        )
    values = [int(each) if isinstance(each, bool) else _whole(each, place) for each in row]
    if len(values) != config.num_classes or not set(values) <= {0, 1}:
        raise InvalidValueError(
            f"labels[{place}]={row!r} is no row of {config.num_classes} zeros and ones, one for each class"
        )
    return np.array(values, dtype=np.float32)
