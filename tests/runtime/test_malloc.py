"""Freed memory is kept for the next batch and given back afterwards."""

from __future__ import annotations

import platform
import resource
from pathlib import Path

import pytest
import torch

from diffmiczoo.runtime.malloc import keep_memory

BLOCK = 80_000_000  # bytes
REPEATS = 6

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")


def fill_and_free() -> None:
    torch.ones(BLOCK // 4)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fetched_bytes() -> int:
    """Returns how much memory the system has handed to this process so far, page by page."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize()


def test_freed_memory_is_kept_and_given_back() -> None:
    fill_and_free()
    before = resident_bytes()
    with keep_memory():
        with keep_memory():
            fill_and_free()
        assert resident_bytes() > before + 0.9 * BLOCK, "the inner one gave it back"
        fetched = fetched_bytes()
        for _ in range(REPEATS):
            fill_and_free()
        # Not none: something small of another thread may lie down in the free block, and the next one goes elsewhere.
        assert fetched_bytes() < fetched + 0.5 * REPEATS * BLOCK, "the pages were fetched again each time"
    assert resident_bytes() < before + 0.1 * BLOCK
