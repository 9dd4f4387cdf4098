"""Reports that several test files read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from made_reports import CLASSES, made, scores_for

from diffmiczoo.reporting.results import Report


@pytest.fixture(scope="session")
def make_report() -> Callable[..., Report]:
    return made


@pytest.fixture(scope="session")
def usual() -> Report:
    """Twenty-four pictures of twelve patients, four of them wrong, with a column to divide them by."""
    labels = [CLASSES[row % 3] for row in range(24)]
    return made(
        [[label] for label in labels],
        scores_for(labels, wrong=(0, 4, 5, 9)),
        groups=[f"patient{row // 2}" for row in range(24)],
        columns={"sex": ["f", "m"] * 12},
        options={"by": ["sex"]},
    )
