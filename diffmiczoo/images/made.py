"""Pictures that are made from a seed, to compare two ways of computing on where nobody gave any."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

#: What `made_squares` begins with.
MADE_FROM_SEED = 0


def made_squares(count: int, size: int) -> np.ndarray:
    """Returns `count` squares (N, size, size, 3) uint8, the same in every call.

    Each holds a bright or dark spot on a ground of soft noise, of another colour and place.
    """
    return np.stack(list(_made(count, size)))


def _made(count: int, size: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(MADE_FROM_SEED)
    rows, columns = np.mgrid[:size, :size] / size
    for _ in range(count):
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
