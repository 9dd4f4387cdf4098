"""Time and work of the parts of a model."""

from __future__ import annotations

import pytest
from factories import small_model

from diffmiczoo.benchmark.inference import benchmark, variants
from diffmiczoo.benchmark.parts import benchmark_parts


def test_the_parts_are_the_whole(clock) -> None:
    model = small_model(num_points=4)
    *parts, total = benchmark_parts(model, batch_size=2, repeats=2)
    assert [part.seconds for part in parts] == pytest.approx(
        [4e-3, 4.5e-3, 5e-3]
    )  # medians of 6 and 10 ms, 7 and 11, …
    assert total.seconds == pytest.approx(13.5e-3)
    assert total.parameters == sum(parameter.numel() for parameter in model.parameters())
    (ours,) = (row for row in benchmark(model, batch_size=1, repeats=1, rows=variants()[1:2], progress=False))
    assert total.gmac == pytest.approx(ours.gmac)
