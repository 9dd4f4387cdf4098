"""`Settings`: frozen dataclasses whose fields are checked, and whose files are JSON objects.

A field says beside its name what it may be: `Literal` choices, or `Annotated` with bounds or with a function that lists
the choices. `Settings` checks that for every class of fields: `DiffMICConfig` and `diffmiczoo.training.recipe`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import types
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from diffmiczoo.errors import InvalidTypeError, InvalidValueError, did_you_mean
from diffmiczoo.files import read_json_object, write_text


@dataclass(frozen=True)
class Between:
    """Bounds of a number, both allowed; upper ends keep a hostile file from asking for absurd amounts of memory."""

    low: float
    high: float


#: Marks a field that came after the first published weights: where a file lacks it, it means what the default says.
LATER = "later"

S = TypeVar("S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of frozen dataclasses whose fields are checked, and whose files are JSON objects.

    Raises:
        ValueError: a field has a value that is not among its choices or bounds; the message names field and value.
        TypeError: a field has a value of the wrong type.
    """

    #: Whether `from_dict` takes the default of every field that is missing.
    partial: ClassVar[bool] = False

    #: Names that other programs have for fields, for error messages.
    other_names: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        for name, kind in field_kinds(type(self)).items():
            object.__setattr__(self, name, _validated(name, kind, getattr(self, name)))

    def replace(self: S, **changes: Any) -> S:
        """Returns a copy with some fields changed.

        Raises:
            ValueError: a name is not a field, or a value is not allowed.
            TypeError: a value has the wrong type.
        """
        names = field_kinds(type(self))
        for name in changes.keys() - names.keys():
            hint = did_you_mean([name], names, self.other_names) or f"; the fields are {', '.join(names)}"
            raise InvalidValueError(f"{name!r} is not a field of {type(self).__name__}{hint}")
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls: type[S], values: dict[str, Any], *, source: str = "") -> S:
        """Builds the settings from the fields that `to_dict` writes; those marked `LATER` may be missing.

        Args:
            values: field → value.
            source: where the values come from, for the error message; by default the name of the class.

        Raises:
            ValueError: a field is unknown, missing or has a value that is not allowed.
        """
        source = source or cls.__name__
        if not isinstance(values, dict):
            raise InvalidValueError(f"{source}: expected an object with the fields of {cls.__name__}, found {values!r}")
        kinds = field_kinds(cls)
        missing = sorted(
            name for name, kind in kinds.items() if name not in values and not cls.partial and LATER not in _marks(kind)
        )
        unknown = sorted(values.keys() - kinds.keys())
        if missing or unknown:
            wrong = [f"{what} fields {names}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
            raise InvalidValueError(f"{source}: {', '.join(wrong)}{did_you_mean(unknown, kinds, cls.other_names)}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise InvalidValueError(f"{source}: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the fields as JSON.

        Raises:
            OSError: the directory cannot be written, or the disk is full.
        """
        write_text(Path(path), json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls: type[S], path: str | os.PathLike[str]) -> S:
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not a JSON object, or a field is unknown, missing or not allowed.
        """
        return cls.from_dict(read_json_object(path), source=str(path))


def field_kinds(settings: type[Settings]) -> dict[str, Any]:
    """Returns field → its annotation, with bounds and marks."""
    return _resolved_kinds(cast("Hashable", settings))


@functools.cache  # resolving the annotations takes longer than checking all values
def _resolved_kinds(settings: Any) -> dict[str, Any]:
    hints = get_type_hints(settings, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(settings)}


def choices(settings: type[Settings], field: str) -> tuple[Any, ...]:
    """Returns the values that a field may take; () where it is not a choice among a few."""
    kinds = [field_kinds(settings)[field]]
    kinds += get_args(kinds[0])
    tables = (mark() for kind in kinds for mark in _marks(kind) if callable(mark))
    return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), next(tables, ()))


def bounds(settings: type[Settings], field: str) -> Between | None:
    """Returns the bounds of a number; None where a field has none."""
    kinds = [field_kinds(settings)[field]]
    kinds += get_args(kinds[0])
    return next((mark for kind in kinds for mark in _marks(kind) if isinstance(mark, Between)), None)


def _marks(kind: Any) -> tuple[Any, ...]:
    return get_args(kind)[1:] if get_origin(kind) is Annotated else ()


def _validated(name: str, kind: Any, value: Any) -> Any:
    """Returns `value` in the field's own type; only int → float and list → tuple are converted."""
    origin, arguments = get_origin(kind), get_args(kind)
    allowed = arguments if origin is Literal else next((mark() for mark in _marks(kind) if callable(mark)), None)
    if allowed is not None:
        if not any(type(value) is type(choice) and value == choice for choice in allowed):
            raise InvalidValueError(f"{name}={value!r} is not one of {', '.join(map(repr, allowed))}")
        return value
    if origin is Annotated:
        value = _validated(name, arguments[0], value)
        for mark in arguments[1:]:
            if isinstance(mark, Between) and not mark.low <= value <= mark.high:
                raise InvalidValueError(f"{name}={value!r} is outside {mark.low}..{mark.high}")
        return value
    if origin in (Union, types.UnionType):  # X | None
        return None if value is None else _validated(name, arguments[0], value)
    if origin is tuple:
        return _validated_tuple(name, arguments, value)
    matches = isinstance(value, int | float if kind is float else kind) and isinstance(value, bool) == (kind is bool)
    if kind is str:
        matches = matches and value != ""
    if kind is float and matches:
        matches = abs(value) <= sys.float_info.max  # neither infinite nor NaN
    if not matches:
        raise InvalidTypeError(f"{name}={value!r} is not of type {kind.__name__}")
    return kind(value)


def _validated_tuple(name: str, kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    listed = value.tolist() if hasattr(value, "tolist") else value  # arrays and what pandas and scikit-learn give
    if isinstance(listed, str | bytes | Mapping | set | frozenset) or not isinstance(listed, Iterable):
        raise InvalidTypeError(f"{name}={value!r} is not a list")
    value = tuple(listed)
    if kinds[-1] is not Ellipsis and len(value) != len(kinds):
        raise InvalidValueError(f"{name}={value!r} has {len(value)} values; expected {len(kinds)}")
    return tuple(_validated(f"{name}[{index}]", kinds[0], item) for index, item in enumerate(value))
