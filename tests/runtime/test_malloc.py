"""Freed memory is kept for the next batch and given back afterwards."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own: what else was allocated and freed decides where the next block lies.
PROGRAM = """
import resource
from pathlib import Path

import torch

from diffmiczoo.runtime.malloc import keep_memory

BLOCK, REPEATS = 80_000_000, 10


def fill_and_free():
    torch.ones(BLOCK // 4)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / BLOCK


def fetched():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize() / BLOCK


fill_and_free()
before = resident()
with keep_memory():
    with keep_memory():
        fill_and_free()
    kept, start = resident() - before, fetched()
    for _ in range(REPEATS):
        fill_and_free()
    again = (fetched() - start) / REPEATS
print(kept, again, resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is another one")
def test_freed_memory_is_kept_and_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, fetched_again, left = map(float, run.stdout.split())
    assert kept > 0.9, "the inner context gave it back"
    # Not none: something small may come to lie beside the block, and the next one, which wants room to align, moves.
    assert fetched_again < 0.75, "the pages were fetched again each time"
    assert left < 0.1, "the outer context did not give it back"
