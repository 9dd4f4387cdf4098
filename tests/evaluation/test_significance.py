"""Paired tests of two models on the same images."""

from __future__ import annotations

import numpy as np
import pytest
from factories import random_predictions
from scipy import stats
from sklearn.metrics import roc_auc_score

from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.evaluation.significance import delong, paired_tests


def area_by_ranks(truth: np.ndarray, scores: np.ndarray) -> float:
    """The area under the ROC curve as Mann and Whitney's statistic, a hundred times as fast as scikit-learn."""
    positive = truth.sum()
    above = stats.rankdata(scores)[truth].sum() - positive * (positive + 1) / 2
    return above / (positive * (len(truth) - positive))


def test_delong_is_the_area_and_its_spread() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300).astype(bool)
    scores = np.round(rng.normal(size=(2, 300)) + truth * np.array([[1.0], [0.6]]), 1)  # with ties
    areas, covariance = delong(scores, truth)
    assert areas == pytest.approx([roc_auc_score(truth, row) for row in scores])
    drawn = []
    for _ in range(800):
        rows = rng.integers(0, 300, 300)
        drawn.append([area_by_ranks(truth[rows], row[rows]) for row in scores])
    assert np.sqrt(np.diag(covariance)) == pytest.approx(np.std(drawn, axis=0), rel=0.15)


def test_paired_tests_tell_a_better_model_from_an_equal_one() -> None:
    weak, strong = random_predictions(skill=1), random_predictions(skill=3, seed=1)
    equal = random_predictions(skill=1, seed=2)
    found = {(row.test, row.what): row for row in paired_tests(strong, weak)}
    assert {test for test, _ in found} == {"paired t-test", "McNemar", "DeLong"}
    assert all(row.p_value < 1e-3 for row in found.values())
    row = found["paired t-test", "Brier score per image"]
    truth = np.eye(4)[weak.targets]
    briers = [np.square(each.probs.double().numpy() - truth).sum(1) for each in (strong, weak)]
    assert row.p_value == pytest.approx(stats.ttest_rel(*briers).pvalue)
    assert (row.first, row.second) == pytest.approx((briers[0].mean(), briers[1].mean()))
    right = [(each.probs.argmax(1) == each.targets).numpy() for each in (strong, weak)]
    only = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert found["McNemar", "accuracy"].p_value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)
    assert np.mean([row.p_value < 0.05 for row in paired_tests(weak, equal)]) < 0.5
    assert all(row.p_value == 1 for row in paired_tests(weak, weak))


def test_p_values_of_equal_models_are_spread_evenly() -> None:
    values = {"paired t-test": [], "McNemar": [], "DeLong": []}
    for seed in range(60):
        one, other = random_predictions(count=120, seed=2 * seed + 1), random_predictions(count=120, seed=2 * seed + 2)
        for row in paired_tests(one, other):
            values[row.test].append(row.p_value)
    for test, found in values.items():
        assert 0.3 < np.mean(found) < 0.75 and np.mean(np.array(found) < 0.05) < 0.12, test


def test_images_of_a_group_are_not_independent() -> None:
    one, other = random_predictions(skill=1), random_predictions(skill=1.3, seed=4)
    groups = tuple(str(number // 10) for number in range(200))
    grouped = [LabelledPredictions(**{**each.__dict__, "groups": groups}) for each in (one, other)]
    row = next(row for row in paired_tests(*grouped) if row.what == "NLL per group")
    plain = next(row for row in paired_tests(one, other) if row.what == "NLL per image")
    assert row.p_value != plain.p_value and row.first == plain.first


def test_predictions_for_other_images_are_not_compared() -> None:
    one, other = random_predictions(count=10), random_predictions(count=12)
    with pytest.raises(ValueError, match="are for 10 and 12 images that are not the same"):
        paired_tests(one, other)
    with pytest.raises(ValueError, match="for other classes"):
        one.difference(random_predictions(count=10, classes=3))
