"""Groups of images (lesions, patients) as numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np

from diffmiczoo.errors import InvalidValueError


def group_numbers(groups: Iterable[Hashable]) -> tuple[np.ndarray, int]:
    """Numbers groups in order of appearance.

    Args:
        groups: group of each of N images: anything that can be compared and hashed, or an array or tensor of numbers.

    Returns:
        (N,) int64 in 0..G-1, and G.

    Raises:
        ValueError: an entry is None or NaN.
    """
    # The elements of arrays and tensors are objects that differ although their values are equal.
    to_list = getattr(groups, "tolist", None)
    keys = list(groups) if to_list is None else to_list()
    if any(key is None or key != key for key in keys):
        raise InvalidValueError("groups has an entry that is None or NaN; give an image without a group one of its own")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys], dtype=np.int64), len(numbers)
