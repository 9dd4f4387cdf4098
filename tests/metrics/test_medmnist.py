"""ACC and AUC of MedMNIST against values computed by hand, and by the package's own evaluator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from diffmiczoo.metrics.classification import compute_metrics, scored_images
from diffmiczoo.metrics.medmnist import MedMNISTScores, medmnist_scores
from diffmiczoo.metrics.report import Metrics

#: Task → number of classes, and what `getACC` and `getAUC` of `medmnist.evaluator` 3.0.2 said of `drawn`.
TASKS = {
    "multi-class": (4, 0.26666666666666666, 0.5477777777777777),
    "ordinal-regression": (5, 0.16666666666666666, 0.4494791666666667),
    "binary-class": (2, 0.6, 0.6027777777777779),
    "multi-label, binary-class": (3, 0.48333333333333334, 0.5119391279727611),
}


def drawn(task: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities with ties, and labels of every class."""
    rng = np.random.default_rng(len(task))
    if task.startswith("multi-label"):
        return rng.integers(0, 5, (60, classes)) / 4, rng.integers(0, 2, (60, classes))
    weights = rng.integers(1, 5, (60, classes))
    return weights / weights.sum(1, keepdims=True), rng.permutation(np.arange(60) % classes)


def test_three_classes_by_hand() -> None:
    probs = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]]
    found = medmnist_scores(scored_images(probs, [0, 1, 2, 0], task="multiclass"))
    # 0.6 and 0.3 against 0.2 and 0.1; 0.5 against 0.3, 0.5 (a tie), 0.3; 0.4 against 0.1, 0.3, 0.4 (a tie)
    assert found.acc == 0.5
    assert found.auc == pytest.approx((1 + 2.5 / 3 + 2.5 / 3) / 3)
    assert str(found) == "MedMNIST ACC 0.500, AUC 0.889"


def test_a_half_is_not_above_a_half_and_the_models_own_rule_does_not_count() -> None:
    two = scored_images([[0.5, 0.5], [0.1, 0.9]], [1, 1], task="multiclass", label_adjustment=[5, 0])
    assert medmnist_scores(two).acc == 0.5 and math.isnan(medmnist_scores(two).auc)
    labels = scored_images([[0.5, 0.9], [0.2, 0.4]], [[1, 1], [0, 1]], task="multilabel", thresholds=[0.1, 0.1])
    assert medmnist_scores(labels).acc == 0.5


def test_they_are_printed_and_stored() -> None:
    plain = compute_metrics([[0.6, 0.4], [0.1, 0.9]], [1, 1], task="multiclass", bootstrap=0)
    assert "medmnist" not in plain.to_dict() and "MedMNIST" not in str(plain)
    for scores in (MedMNISTScores(0.5, 0.75), MedMNISTScores(0.5, math.nan)):
        metrics = Metrics(plain.values, {}, plain.per_class, 2, None, (), medmnist=scores)
        read = Metrics.from_dict(metrics.to_dict())
        assert str(read.medmnist) == str(scores) and str(scores) in str(metrics).splitlines()


@pytest.mark.parametrize("task", TASKS)
def test_medmnists_own_evaluator_agrees(task: str) -> None:
    classes, acc, auc = TASKS[task]
    probs, targets = drawn(task, classes)
    found = medmnist_scores(scored_images(probs, targets, task="multilabel" if targets.ndim == 2 else "multiclass"))
    assert (found.acc, found.auc) == pytest.approx((acc, auc), abs=1e-12)
