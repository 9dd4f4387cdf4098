"""The ways to compute the same predictions, and the work in each."""

from __future__ import annotations

import pytest
from factories import small_model

from diffmiczoo.benchmark.inference import benchmark, inference_table, variants
from diffmiczoo.benchmark.parts import benchmark_parts
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.zoo.complexity import count_macs


def test_all_variants_have_the_same_answer(clock) -> None:
    model = small_model(num_points=4)
    config = model.config
    timings = benchmark(model, batch_size=2, repeats=2, progress=False)
    assert [row.variant for row in timings] == [variant.name for variant in variants()]
    assert timings[0].max_difference == 0 and 0 < timings[1].max_difference < 1e-5
    exact = [row.max_difference for row in timings if row.precision == "fp32"]
    rounded = [row.max_difference for row in timings if row.precision != "fp32"]
    assert max(exact) < 1e-5 < max(rounded) < 0.2
    for row in timings:  # each run takes longer than the one before it
        assert row.fastest < row.seconds < row.slowest
        assert row.images_per_second == pytest.approx(2 / row.seconds)
        assert row.ratio == pytest.approx(timings[0].seconds / row.seconds)
    plain, ours, half, *without = gmac = [row.gmac for row in timings]
    assert plain == max(gmac) and ours == half == min(gmac) and all(ours <= each <= plain for each in without)
    assert model.config == config and not model.training
    assert inference_table(timings).count("\n") == len(timings) + 1


def test_paper_size_work_is_the_published_one() -> None:
    from diffmiczoo.benchmark.inference import OURS, SLOW, _gmac

    config = DiffMICConfig()
    macs = count_macs(config.replace(num_samples=1))
    assert _gmac(config, macs, SLOW) == pytest.approx(76.5, rel=0.02)
    assert _gmac(config, macs, OURS) == pytest.approx(11.3, rel=0.02)


def test_a_model_without_a_diffusion_has_the_ways_that_differ_for_it(clock) -> None:
    model = small_model(predictor="classifier", image_size=32, roi_size=8)
    timings = benchmark(model, batch_size=2, repeats=1, progress=False)
    names = [row.variant.removeprefix("ours, bf16, without: ") for row in timings]
    packing = ["folding encoders", "packing weights", "keeping memory", "channels last"]
    assert names == ["plain order of work, fp32", "ours, fp32", "ours, bf16", *packing]
    assert max(row.max_difference for row in timings) < 1e-4 and len({row.gmac for row in timings}) == 1
    assert [row.part for row in benchmark_parts(model, batch_size=2, repeats=1, progress=False)] == [
        "classifier",
        "total",
    ]
