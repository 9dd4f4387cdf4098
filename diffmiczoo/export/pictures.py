"""Pictures to compare an exported file with its model on: the caller's, or made from a seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import as_items
from diffmiczoo.images.preprocessing import read_square

#: Pictures that are made where none are given.
MADE = 14

_SEED = 0


@dataclass(frozen=True, eq=False)
class Pictures:
    """Squares (N, S, S, 3) uint8 as an exported file takes them, and where they come from, in a few words."""

    squares: np.ndarray
    source: str


def squares_of(pictures: Any, config: DiffMICConfig) -> Pictures:
    """Returns pictures as an exported file takes them.

    Args:
        pictures: as `predict` takes them; None for pictures that are made from a seed.
        config: the model's.

    Raises:
        ImageError: a picture cannot be read.
        ValueError: all pictures hold floats, of which an exported file takes none.
    """
    if pictures is None:
        return Pictures(np.stack(list(_made(config.input_size))), f"made from seed {_SEED}")
    squares = [read_square(item, config) for item in as_items(pictures)]
    whole = [square.permute(1, 2, 0).numpy() for square in squares if square.dtype == torch.uint8]
    if not whole:
        raise InvalidValueError("verify: all pictures hold floats; an exported file takes pictures of 8 bits")
    left_out = len(squares) - len(whole)
    return Pictures(np.stack(whole), "the caller's" + (f", {left_out} that hold floats left out" if left_out else ""))


def _made(size: int) -> Iterator[np.ndarray]:
    """Yields pictures of a bright or dark spot on a ground of soft noise, each of another colour and place."""
    random = np.random.default_rng(_SEED)
    rows, columns = np.mgrid[:size, :size] / size
    for _ in range(MADE):
        ground = random.uniform(40, 200, 3)
        waves = sum(
            random.uniform(2, 12) * np.sin(2 * np.pi * (random.uniform(-6, 6) * rows + random.uniform(-6, 6) * columns))
            for _ in range(5)
        )
        row, column, width = random.uniform(0.2, 0.8), random.uniform(0.2, 0.8), random.uniform(0.05, 0.25)
        spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        grain = random.normal(0, 6, (size, size, 1))
        picture = ground + waves[..., None] + spot[..., None] * random.uniform(-120, 120, 3) + grain
        yield np.clip(picture, 0, 255).astype(np.uint8)
