"""Fixtures of the tests of `evaluation`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def weights(quick_run, tmp_path) -> Path:
    """The directory of a run, to be written into."""
    return shutil.copytree(quick_run.output, tmp_path / "run")
