"""Decision thresholds with the best F1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from diffmiczoo.metrics.calibration import fit_thresholds
from diffmiczoo.metrics.classification import compute_metrics


def test_thresholds_have_the_best_f1_that_there_is() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (90, 3))
    truth[:, 2] = 0
    probs = np.clip(0.25 * truth + rng.uniform(0, 0.5, (90, 3)), 0, 1)
    limits = fit_thresholds(probs, truth)
    assert limits[2] == 0.5
    for label in range(2):
        reached = f1_score(truth[:, label], probs[:, label] >= limits[label])
        best = max(f1_score(truth[:, label], probs[:, label] >= limit) for limit in np.unique(probs[:, label]))
        assert reached == pytest.approx(best)
        assert reached > f1_score(truth[:, label], probs[:, label] >= 0.5)
    measured = [
        compute_metrics(probs, truth, task="multilabel", thresholds=each, bootstrap=0).values["macro_f1"]
        for each in (None, limits)
    ]
    assert measured[1] > measured[0]


def test_perfectly_separated_and_rare_labels_keep_a_half() -> None:
    truth = torch.tensor([0, 1]).repeat(10)[:, None].expand(-1, 2)
    assert fit_thresholds(0.1 + 0.8 * truth, truth) == (0.5, 0.5)
    rare = truth.clone()
    rare[2:, 1] = 0
    assert fit_thresholds(0.1 + 0.3 * rare, rare) == (pytest.approx(0.25), 0.5)
