"""What this machine can do at most."""

from __future__ import annotations

import torch

from diffmiczoo.benchmark.roofline import Roofline, measure_roofline


def test_limits_are_those_of_this_machine() -> None:
    limits = measure_roofline(torch.device("cpu"), ("fp32",), repeats=1)
    assert 1e9 < limits.flops["fp32"] < 1e14 and 1e8 < limits.bandwidth < 1e13
    assert Roofline({"fp32": 2e9}, 1.0).fraction(gmac=0.5, images_per_second=1, precision="fp32") == 0.5
