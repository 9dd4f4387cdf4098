"""Time and work of the parts of a model."""

from __future__ import annotations

import pytest
from factories import small_model

from diffmiczoo.benchmark.inference import benchmark
from diffmiczoo.benchmark.parts import benchmark_parts


def test_the_parts_are_the_whole() -> None:
    model = small_model(num_points=4)
    *parts, total = benchmark_parts(model, batch_size=2, repeats=2)
    assert total.seconds == pytest.approx(sum(part.seconds for part in parts))
    assert total.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert total.gmac == pytest.approx(benchmark(model, batch_size=1, repeats=1, progress=False)[1].gmac)
