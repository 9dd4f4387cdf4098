"""Cells of tables: what counts as missing, lists in a cell, and a way to write any text so that it is read back."""

from __future__ import annotations

import ast
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from diffmiczoo.errors import InvalidValueError

#: What programs write where a value is missing, in lower case; an empty cell aside.
_MISSING = frozenset(
    [*"nan -nan na n/a n.a. null <na> #n/a #na nat #null! #value! #ref! #div/0! #name?".split(), "#n/a n/a"]
)

#: Signs that no screen shows, which copying from web pages and spreadsheets leaves in texts.
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200e\u200f\u2060\ufeff\u00ad"))

_WHOLE = re.compile(r"-?(0|[1-9]\d*)(\.0+)?")

_WRAPPED = re.compile(r"(?:array|frozenset|set|tuple|list)\((.*?)(?:,\s*dtype=[^()]*)?\)", re.DOTALL)


def composed(text: str) -> str:
    """Returns a text without invisible signs, and with every letter as one sign.

    macOS writes ä in names of files as a and two dots (Unicode's NFD), other systems as one sign (NFC).
    """
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE))


def plain_text(text: str) -> str:
    """Returns a name as it is compared: `composed`, without blanks around it."""
    return composed(text).strip()


def is_missing(text: str) -> bool:
    """Whether a cell says that its value is missing, as NaN, NA or null do; an empty cell does not say it."""
    return text.strip().lower() in _MISSING


def is_empty(text: str) -> bool:
    """Whether a cell holds nothing, or says so."""
    return not text.strip() or is_missing(text)


def join_cell(values: Sequence[str]) -> str:
    """Writes texts as one cell: joined by `|`, or as a JSON list where that would be read as something else."""
    plain = "|".join(values)
    return plain if all(_is_plain(value) for value in values) else json.dumps(list(values))


def list_cell(values: Sequence[str]) -> str:
    """Writes texts as a JSON list, which is read back whatever they hold."""
    return json.dumps(list(values))


def split_cell(text: str) -> tuple[str, ...]:
    """Returns the texts that `join_cell` wrote into a cell."""
    exact = _json_list(text)
    if exact is not None:
        return exact
    return tuple(part.strip() for part in text.split("|") if part.strip())


def single_cell(text: str) -> str:
    """Returns the one text that `join_cell` wrote into a cell; anything else as it is, without blanks around it."""
    exact = _json_list(text)
    return exact[0] if exact is not None and len(exact) == 1 else text.strip()


def _is_plain(value: str) -> bool:
    return (
        value == value.strip()
        and value.isprintable()
        and "|" not in value
        and value[:1] not in ("", "[", "(", "{", '"', "#")
        and not is_missing(value)
        and value.lower() != "none"
        and not re.fullmatch(r"-?\d+\.0+", value)
    )


def _json_list(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(values) if all(isinstance(value, str) for value in values) else None


def listed_values(text: str) -> tuple[str, ...] | None:
    """Returns the values of a cell that holds a list, as JSON, Python or NumPy write it; None where it holds none.

    Missing values in it are left out; whole numbers are written without a point.

    Raises:
        ValueError: the list holds lists, or is none that can be read.
    """
    exact = _json_list(text)
    if exact is not None:
        return exact
    text = text.strip()
    wrapped = _WRAPPED.fullmatch(text)
    if wrapped is not None:
        text = wrapped[1].strip()
    if (text[:1], text[-1:]) not in (("[", "]"), ("(", ")"), ("{", "}")):
        return None
    values = _literal(text)
    if values is None:
        return _bare_values(text) if text[0] == "[" else None
    if any(isinstance(value, list | tuple | set | dict) for value in values):
        raise InvalidValueError("a list of lists")
    return tuple(_value_text(value) for value in values if not _is_nothing(value))


def _literal(text: str) -> list[Any] | None:
    """Returns the values of a list in JSON or Python; None where it is neither."""
    quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
    # NumPy writes no commas, and Python would join such texts: ['a' 'b'] is 'ab' to it.
    if re.search(r"['\"]\s+['\"]", text):
        return [one or other for one, other in quoted]
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if isinstance(values, list | tuple | set):
            return sorted(values, key=str) if isinstance(values, set) else list(values)
    return None


def _bare_values(text: str) -> tuple[str, ...]:
    inside = text[1:-1]
    parts = inside.split(",") if "," in inside else inside.split() if _all_numbers(inside.split()) else [inside]
    return tuple(whole_number(part.strip().strip("'\"")) for part in parts if part.strip() and not is_missing(part))


def _all_numbers(parts: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d*)?", part) for part in parts)


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _value_text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else whole_number(str(value))


def whole_number(text: str) -> str:
    """Returns a whole number without its point, "1.0" → "1"; any other text as it is."""
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def whole_numbers(texts: Sequence[str]) -> list[str]:
    """Returns texts without ".0" where all of them, empty and missing ones aside, are whole numbers.

    A column of numbers with a gap in it is written with points by pandas.
    """
    given = [text for text in texts if text.strip() and not is_missing(text)]
    if not given or not all(_WHOLE.fullmatch(text.strip()) for text in given):
        return list(texts)
    return [whole_number(text.strip()) if _WHOLE.fullmatch(text.strip()) else text for text in texts]
