"""Freed memory is kept for the next batch and given back afterwards."""

from __future__ import annotations

import torch

from diffmiczoo.runtime.malloc import keep_memory


def test_freed_memory_is_kept_and_given_back() -> None:
    with keep_memory(), keep_memory():
        first = torch.ones(20_000_000)
        del first
        assert float(torch.ones(20_000_000).sum()) == 20_000_000
    assert float(torch.ones(20_000_000).sum()) == 20_000_000
