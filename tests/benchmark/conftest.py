"""Fixtures of the tests of `benchmark`."""

from __future__ import annotations

import itertools

import pytest

from diffmiczoo.benchmark import against, folder, inference, parts, roofline, training


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by 1 ms when it is first read, by 2 ms the second time, and so on."""
    times = itertools.accumulate(itertools.count(1))
    for module in (against, folder, inference, parts, roofline, training):
        monkeypatch.setattr(module, "now", lambda device: next(times) / 1000)
