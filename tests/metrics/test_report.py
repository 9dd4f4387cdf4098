"""Metrics as JSON and as a table."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.metrics.report import Metrics


def test_to_dict_and_back_through_json() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    metrics = compute_metrics(probs, [0, 1, 1], task="multiclass", groups=["x", "x", "y"], bootstrap=20)
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    back = Metrics.from_dict(json.loads(text))
    assert json.dumps(back.to_dict()) == text
    assert back.intervals == metrics.intervals
    assert back.left_out == metrics.left_out
    assert back.num_groups == 2
    assert math.isnan(back.per_class["class_2"]["recall"])
    with pytest.raises(ValueError, match=r"missing fields \['values'\]"):
        Metrics.from_dict({key: value for key, value in metrics.to_dict().items() if key != "values"})


def test_prints_a_table() -> None:
    metrics = Metrics(
        values={"accuracy": 0.8123, "auroc": math.nan},
        intervals={"accuracy": (0.793, 0.83)},
        per_class={
            "mel": dict.fromkeys(("recall", "precision", "f1", "auroc", "average_precision"), 0.5) | {"support": 1707}
        },
        num_images=1707,
        num_groups=1200,
        left_out=("df",),
    )
    lines = str(metrics).splitlines()
    assert lines[0] == "1,707 images in 1,200 groups, 95 % intervals"
    assert lines[1].split(maxsplit=1) == ["accuracy", "0.812 [0.793, 0.830]"]
    assert lines[2].split() == ["auroc", "–"]
    assert lines[5].split() == ["mel", *["0.500"] * 5, "1,707"]
    assert len(lines[4]) == len(lines[5])
    assert lines[-1].endswith("df")
