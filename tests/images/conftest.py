"""Fixtures of the tests of `images`."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 12, columns * 8, rows + columns], axis=-1).astype(np.uint8)
