"""Groups of images (lesions, patients) as numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

from diffmiczoo.errors import InvalidTypeError, InvalidValueError


def group_numbers(groups: Iterable[Hashable]) -> tuple[np.ndarray, int]:
    """Numbers groups in order of appearance.

    Args:
        groups: group of each of N images: anything that can be compared and hashed, or an array or tensor of numbers.

    Returns:
        (N,) int64 in 0..G-1, and G.

    Raises:
        TypeError: it is no list, or an entry is itself one.
        ValueError: an entry is None or NaN.
    """
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise InvalidTypeError(f"groups={groups!r} must be a list with an entry for each image")
    # The elements of arrays and tensors are objects that differ although their values are equal.
    to_list = getattr(groups, "tolist", None)
    keys = list(groups) if to_list is None else to_list()
    if unhashable := [key for key in keys if not isinstance(key, Hashable)]:
        raise InvalidTypeError(f"groups has {unhashable[0]!r}; expected a name or number for each image")
    if any(map(is_missing, keys)):
        raise InvalidValueError("groups has an entry that is None or NaN; give an image without a group one of its own")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64), len(numbers)


def is_missing(value: Any) -> bool:
    """Returns whether a cell holds nothing: None, NaN, or what pandas writes for it."""
    # pandas.NA is neither equal nor unequal to anything, and arrays are in parts.
    unlike = value != value
    return value is None or type(value).__name__ == "NAType" or (isinstance(unlike, bool | np.bool_) and bool(unlike))
