"""Curves and their bands, beside independent computations."""

from __future__ import annotations

import numpy as np
import pytest
from factories import noisy_data
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from diffmiczoo.metrics.bootstrap import Resampling
from diffmiczoo.metrics.classification import scored_images
from diffmiczoo.metrics.curves import GRID, class_curves, reliability, risk_curve, widened
from diffmiczoo.trust.selective import risk_coverage

NAMES = ("a", "b", "c", "d")


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_lines_are_those_of_scikit_learn(task) -> None:
    probs, targets = noisy_data(task)
    images = scored_images(probs, targets, task=task)
    for place, found in enumerate(class_curves(images, NAMES)):
        truth, scores = images.truth[:, place], images.probs[:, place]
        alarms, recalls, _ = roc_curve(truth, scores, drop_intermediate=False)
        np.testing.assert_allclose(found.roc.y, np.interp(GRID, alarms, recalls), atol=1e-4)
        assert found.values["auroc"] == pytest.approx(roc_auc_score(truth, scores))
        assert found.values["average_precision"] == pytest.approx(average_precision_score(truth, scores))
        for recall, precision in zip(found.precision_recall.x[1:], found.precision_recall.y[1:], strict=True):
            threshold = np.sort(scores[truth])[::-1][int(np.ceil(recall * truth.sum() - 1e-9)) - 1]
            assert precision == pytest.approx(truth[scores >= threshold].mean(), abs=1e-4)
        assert found.roc.low == () and found.intervals == {}


def test_bands_hold_the_line_and_groups_are_drawn_whole() -> None:
    probs, targets = noisy_data("multiclass", 120)
    images = scored_images(probs, targets, task="multiclass")
    single = class_curves(images, NAMES, Resampling(np.arange(120), 200, 0), progress=False)
    # Each picture six times: six times as many images tell no more.
    rows = np.repeat(np.arange(120), 6)
    often = scored_images(probs[rows], targets[rows], task="multiclass")
    grouped = class_curves(often, NAMES, Resampling(rows, 200, 0), progress=False)
    for one, other in zip(single, grouped, strict=True):
        low, line, high = (np.array(each) for each in (one.roc.low, one.roc.y, one.roc.high))
        assert (low <= line).all() and (line <= high).all() and (high - low).max() > 0.1
        assert one.roc == other.roc and one.intervals.keys() == other.intervals.keys()
        for name, ends in one.intervals.items():
            assert other.intervals[name] == pytest.approx(ends)
        assert one.intervals["auroc"][0] < one.values["auroc"] < one.intervals["auroc"][1]


def test_reliability_counts_every_statement_once() -> None:
    probs, targets = noisy_data("multiclass")
    images = scored_images(probs, targets, task="multiclass")
    bins = reliability(images, Resampling(np.arange(200), 100, 0))
    assert sum(each.count for each in bins) == 200 and len(bins) == 10
    confidence, right = images.probs.max(1), images.truth[np.arange(200), images.probs.argmax(1)]
    for each in bins:
        inside = (confidence >= each.low) & (confidence < each.high)
        assert each.count == inside.sum()
        if each.count:
            assert each.observed == pytest.approx(right[inside].mean())
            assert each.confidence == pytest.approx(confidence[inside].mean())
            assert each.interval[0] <= each.observed <= each.interval[1]
        else:
            assert each.observed is None and each.interval is None


def test_risks_are_those_of_the_surest_and_ties_are_averaged() -> None:
    generator = np.random.default_rng(0)
    uncertainty = generator.integers(0, 20, 200) / 20
    wrong = generator.random(200) < uncertainty
    found = risk_curve(uncertainty, wrong, Resampling(np.arange(200), 100, 0))
    np.testing.assert_allclose(found.y, risk_coverage(uncertainty, wrong)[1::2], atol=1e-4)
    assert all(low <= y <= high for low, y, high in zip(found.low, found.y, found.high, strict=True))


def test_nothing_seen_is_no_certainty() -> None:
    assert widened(0.0, (0.0, 0.0), 20) == (0.0, pytest.approx(1 - 0.025 ** (1 / 20)))
    assert widened(1.0, (1.0, 1.0), 20) == (pytest.approx(0.025 ** (1 / 20)), 1.0)
    assert widened(0.5, (0.2, 0.7), 20) == (0.2, 0.7)
