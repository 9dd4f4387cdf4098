"""Pictures to compare an exported file with its model on: the caller's, or made from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import as_items
from diffmiczoo.images.made import MADE_FROM_SEED, made_squares
from diffmiczoo.images.preprocessing import read_square

#: Pictures that are made where none are given.
MADE = 14


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
        return Pictures(made_squares(MADE, config.input_size), f"made from seed {MADE_FROM_SEED}")
    squares = [read_square(item, config) for item in as_items(pictures)]
    whole = [square.permute(1, 2, 0).numpy() for square in squares if square.dtype == torch.uint8]
    if not whole:
        raise InvalidValueError("verify: all pictures hold floats; an exported file takes pictures of 8 bits")
    left_out = len(squares) - len(whole)
    return Pictures(np.stack(whole), "the caller's" + (f", {left_out} that hold floats left out" if left_out else ""))
