"""What a machine can do at most."""

from __future__ import annotations

import pytest
import torch

from diffmiczoo.benchmark import roofline
from diffmiczoo.benchmark.roofline import Roofline, measure_roofline
from diffmiczoo.runtime.packed import can_be_packed


def test_the_best_time_of_every_way_counts(clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roofline._SIDE, "cpu", 16)
    monkeypatch.setitem(roofline._BYTES, "cpu", 1000)
    cpu = torch.device("cpu")
    limits = measure_roofline(cpu, ("fp32",), repeats=2)
    # Three runs of a plain product take 2, 4 and 6 ms, those of a packed one 8, 10, 12; the first of each warms up.
    assert limits.flops == {"fp32": pytest.approx(2 * 16**3 / 4e-3)}
    copy = 16e-3 if can_be_packed(cpu, torch.float32) else 10e-3
    assert limits.bandwidth == pytest.approx(2 * 1000 / copy)


def test_a_rate_is_a_fraction_of_the_limit() -> None:
    limits = Roofline({"fp32": 2e9, "bf16": 8e9}, 3e10)
    assert limits.fraction(gmac=0.5, images_per_second=1, precision="fp32") == 0.5
    assert limits.fraction(gmac=0.5, images_per_second=4, precision="bf16") == 0.5
    assert str(limits) == "fp32 products 2 GFLOP/s, bf16 products 8 GFLOP/s, memory 30 GB/s"
