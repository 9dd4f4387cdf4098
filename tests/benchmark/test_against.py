"""The cost of a model beside that of others."""

from __future__ import annotations

import pytest
import torch
from factories import small_model

from diffmiczoo.benchmark.against import _logits, _ways, against_table, compare_cost


def test_models_take_turns_and_are_compared_with_the_first_opponent(clock) -> None:
    model = small_model(num_samples=2)
    plain = small_model(predictor="classifier", image_size=32, roi_size=8)
    costs = compare_cost({"ours": model, "plain": plain}, batch_size=2, repeats=2, progress=False)
    predicted = ["predict, fp32", "predict, bf16"]
    assert [(row.model, row.way) for row in costs] == [
        *(("ours", way) for way in predicted),
        *(("plain", way) for way in ("timm, fp32", "timm, bf16", *predicted)),
    ]
    first = costs[2]
    for row in costs:
        assert row.fastest < row.seconds < row.slowest
        assert row.images_per_second == pytest.approx(2 / row.seconds)
        assert row.ratio == pytest.approx(first.seconds / row.seconds)
    assert costs[0].gmac > first.gmac > 0 and costs[0].parameters > first.parameters > 0
    assert against_table(costs).count("\n") == len(costs) + 1


def test_each_way_computes_the_models_own_prediction() -> None:
    plain = small_model(predictor="classifier", image_size=32, roi_size=8).eval()
    with torch.inference_mode():
        found = {way: run().float() for way, run in _ways(plain, 3, "bf16").items()}
    wanted = found["timm, fp32"]
    assert wanted.shape == (3, plain.config.num_classes)
    torch.testing.assert_close(found["predict, fp32"], wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found["timm, bf16"], wanted, atol=0.1, rtol=0.1)
    assert _logits(plain, torch.zeros(1, 3, 32, 32)).shape == (1, plain.config.num_classes)
