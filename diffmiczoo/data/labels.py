"""One rule for what a label is and what classes are called, wherever labels and names come from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from diffmiczoo.data.cells import plain_text
from diffmiczoo.errors import InvalidTypeError, InvalidValueError

#: Class number → name.
Numbering = Mapping[int, str]

_WHOLE = re.compile(r"(0|[1-9][0-9]*)(\.0*)?")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_NOT_A_NUMBER = re.compile(r"[+-]?(nan|inf)", re.IGNORECASE)

#: From how many different fractions on labels are taken for measurements; grades may have a few, such as 0.5.
_MEASUREMENTS = 10


def names_of(values: Any, what: str = "class_names") -> tuple[str, ...]:
    """Returns names of classes as texts, in order; whole numbers become their text.

    Args:
        values: a list, tuple, array, tensor, Index, Series, view of a dictionary or generator of names; or a dictionary
            of name → number or number → name, as `class_to_idx` and `id2label` are.
        what: the argument, for the error message.

    Raises:
        TypeError: it is one text, has no order, or an entry is neither a text nor a whole number.
        ValueError: a name is empty or there twice.
    """
    if isinstance(values, Mapping):
        numbering = _of_mapping(values, what)
        return names_of([numbering[number] for number in sorted(numbering)], what)
    if isinstance(values, str | bytes):
        raise InvalidTypeError(f"{what}={values!r} is one text; expected a list of names")
    if isinstance(values, set | frozenset) or not isinstance(values, Iterable):
        raise InvalidTypeError(f"{what}={values!r} has no order; expected a list of names")
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    if not isinstance(listed, list):
        raise InvalidTypeError(f"{what}={values!r} is not a list of names")
    names = tuple(_name(f"{what}[{place}]", value) for place, value in enumerate(listed))
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidValueError(f"{what} repeats {', '.join(map(repr, repeated))}")
    return names


def numbering_of(values: Any, what: str = "class_names") -> dict[int, str]:
    """Returns what class numbers stand for: the places of a list from 0 on, or what a dictionary says.

    Raises:
        TypeError, ValueError: as `names_of`.
    """
    if isinstance(values, Mapping):
        numbering = _of_mapping(values, what)
        names_of(list(numbering.values()), what)
        return numbering
    return dict(enumerate(names_of(values, what)))


def _of_mapping(values: Mapping[Any, Any], what: str) -> dict[int, str]:
    """Returns number → name of a dictionary in either direction."""
    names_first = all(isinstance(key, str) for key in values) and not all(isinstance(v, str) for v in values.values())
    if names_first:
        pairs = [(_number(value), _name(what, key)) for key, value in values.items()]
    else:
        pairs = [(_number(key), _name(f"{what}[{key}]", value)) for key, value in values.items()]
    numbers = [number for number, _ in pairs]
    if None in numbers or len(set(numbers)) < len(numbers):
        raise InvalidValueError(f"{what}={values!r} does not give every class a number of its own")
    return {number: name for number, name in pairs if number is not None}


def _name(where: str, value: Any) -> str:
    if isinstance(value, str):
        if not value.strip():
            raise InvalidValueError(f"{where} is empty; give every class a name")
        return plain_text(value)
    number = None if isinstance(value, bool | np.bool_) else _number(value)
    if number is None:
        raise InvalidTypeError(f"{where}={value!r} is no name; expected a text, or a whole number")
    return str(number)


def number_text(text: str) -> str | None:
    """Returns a whole number as its shortest text ("1.0" → "1"), None for any other text; "007" is a name."""
    match = _WHOLE.fullmatch(text.strip())
    return match[1] if match else None


def is_bare(names: Iterable[str]) -> bool:
    """Returns whether names of classes are nothing but numbers, which do not say what they stand for."""
    return all(number_text(name) is not None for name in names)


def label_order(label: str) -> tuple[bool, float, str]:
    """Sorts numbers as numbers, before names."""
    number = _DECIMAL.fullmatch(label) is not None
    return (not number, float(label) if number else 0.0, label)


def _number(value: Any) -> int | None:
    """Returns a whole number ≥ 0 that a text, number or array of one holds; None where it holds something else."""
    if isinstance(value, str):
        text = number_text(value)
        return None if text is None else int(text)
    array = _as_array(value)
    if array.size != 1 or array.dtype.kind not in "biuf":
        return None
    found = array.item()
    return int(found) if found == found and found >= 0 and float(found).is_integer() else None


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy() if value.dtype != torch.bfloat16 else value.detach().cpu().float().numpy()
    try:
        return np.asarray(value)
    except ValueError:  # lists of unequal lengths
        return np.asarray(None)


def label_names(label: Any, numbering: Numbering | None, where: str) -> tuple[str, ...]:
    """Returns the names of the classes that a label gives.

    Args:
        label: a name; a class number as int, float without a fraction, bool, text, or an array or tensor of one; a
            vector of 0 and 1 for every class; or a list of names.
        numbering: what class numbers stand for; None calls them "0", "1", ….
        where: names the image, for the error message.

    Raises:
        TypeError: it is none of these.
        ValueError: a number is negative, has a fraction, is NaN, or stands for no class.
    """
    values = _as_array(label)
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "U":
        texts = [plain_text(str(text)) for text in values.reshape(-1)]
        return tuple(_named_text(text, numbering, where) for text in texts if text)
    if values.dtype.kind not in "biuf":
        raise InvalidTypeError(f"{where}: label {_shown(label)} is no class number and no name of a class")
    if values.size == 1:
        return (_class_name(_checked_number(values.item(), where), numbering, where),)
    values = values.squeeze()
    wrong = values[~np.isin(values, (0, 1))]
    if values.ndim != 1 or wrong.size:
        found = f": it holds {wrong[0].item()}" if values.ndim == 1 else ""
        raise InvalidValueError(
            f"{where}: label {_shown(label)} is neither a class number nor a vector of 0 and 1 for every class{found}"
        )
    if numbering is not None and len(values) != len(numbering):
        raise InvalidValueError(
            f"{where}: label {_shown(label)} has {len(values)} values, but there are the {len(numbering)} classes "
            f"{list(numbering.values())}"
        )
    order = list(range(len(values)) if numbering is None else sorted(numbering))
    return tuple(_class_name(order[place], numbering, where) for place in values.nonzero()[0])


def vector_classes(label: Any) -> tuple[str, ...]:
    """Returns "0", "1", … for every place of a vector of 0 and 1; () for any other label."""
    values = _as_array(label)
    return tuple(map(str, range(values.size))) if values.dtype.kind in "biuf" and values.size > 1 else ()


def _checked_number(value: float, where: str) -> int:
    number = _number(value)
    if number is None:
        reason = "is no whole number" if not value < 0 else "is negative, as marks of uncertain or missing labels are"
        raise InvalidValueError(
            f"{where}: label {value} is no class number: it {reason}; leave the image out, or give it a class"
        )
    return number


def _named_text(text: str, numbering: Numbering | None, where: str) -> str:
    number = number_text(text)
    if number is None or (numbering is not None and text in numbering.values()):
        return text
    return _class_name(int(number), numbering, where)


def _class_name(number: int, numbering: Numbering | None, where: str) -> str:
    if numbering is None:
        return str(number)
    if number not in numbering:
        known = ", ".join(f"{key} ({name})" for key, name in sorted(numbering.items()))
        raise InvalidValueError(
            f"{where}: label {number} is not one of the class numbers {known}; class_names may be a dictionary, number "
            "→ name, where they do not count from 0"
        )
    return numbering[number]


def canonical_labels(labels: Sequence[tuple[str, ...]], names: Sequence[str], source: Any) -> list[tuple[str, ...]]:
    """Returns labels with whole numbers as their shortest text ("1.0" → "1") where all of them are whole numbers.

    Args:
        labels: of N images.
        names: of the N images, for the error message.
        source: of the data, for the error message.

    Raises:
        ValueError: all labels are numbers, and one is negative or NaN, or very many are fractions.
    """
    found = {label for each in labels for label in each}
    odd = {label for label in found if _NOT_A_NUMBER.fullmatch(label)}
    if not found or all(map(str.isdecimal, found)) or not all(map(_DECIMAL.fullmatch, found - odd)):
        return list(labels)
    fractions = {label for label in found - odd if float(label) % 1}
    odd |= {label for label in found - odd if float(label) < 0}
    odd |= fractions if len(fractions) >= _MEASUREMENTS else set()
    for name, each in zip(names, labels, strict=True):
        wrong = next((label for label in each if label in odd), None)
        if wrong is not None:
            raise InvalidValueError(
                f"{source}: {name} has label {wrong}, which is no class number; leave the image out, or give it a class"
            )
    if fractions:  # names such as grades of 0.5
        return list(labels)
    return [tuple(number_text(label) or label for label in each) for each in labels]


def _shown(label: Any) -> str:
    text = " ".join(repr(label).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
