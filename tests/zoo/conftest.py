"""Fixtures of the tests of `zoo`."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import released_checkpoint
from torch import Tensor


@pytest.fixture(scope="module")
def released(shared: Path) -> dict[str, Tensor]:
    return released_checkpoint(shared / "golden", "c5_h64_k4")
