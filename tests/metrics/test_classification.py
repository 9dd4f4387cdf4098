"""Metrics by hand, what they take and what they refuse; `test_oracles.py` compares them with two libraries."""

from __future__ import annotations

import math

import pytest
import torch
from factories import noisy_data, random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.metrics.table import metric_names


def test_quadratic_kappa_is_scikit_learns() -> None:
    predictions = random_predictions(ordinal=True)
    measured = predictions.metrics(bootstrap=200, progress=False)
    wanted = cohen_kappa_score(predictions.targets, predictions.probs.argmax(1), weights="quadratic")
    assert measured.values["quadratic_kappa"] == pytest.approx(wanted, abs=1e-12)
    low, high = measured.intervals["quadratic_kappa"]
    assert low < wanted < high and high - low < 0.5
    assert "quadratic_kappa" not in random_predictions().metrics(bootstrap=0).values
    assert "quadratic_kappa" in metric_names("multiclass", True)


def test_multiclass_by_hand() -> None:
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]])
    metrics = compute_metrics(probs, [0, 1, 1], task="multiclass", class_names=["a", "b", "c"], bootstrap=0)
    assert metrics.left_out == ("c",)
    assert metrics.values == pytest.approx(
        {
            "accuracy": 2 / 3,
            "balanced_accuracy": (1 + 1 / 2) / 2,
            "macro_f1": 2 / 3,
            "auroc": 1.0,
            "ece": (0.3 + 0.6 + 0.2) / 3,
            "nll": -(math.log(0.7) + math.log(0.3) + math.log(0.8)) / 3,
            "brier": (0.14 + 0.86 + 0.06) / 3,
        },
        abs=1e-6,
    )
    assert math.isnan(metrics.per_class["c"]["recall"])
    assert metrics.per_class["c"]["support"] == 0


def test_a_class_that_is_only_predicted_counts_in_macro_f1_but_not_in_recall() -> None:
    probs = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1]])
    values = compute_metrics(probs, [0, 1, 1], task="multiclass", bootstrap=0).values
    assert values["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert values["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)


def test_labels_without_both_kinds_are_left_out() -> None:
    probs = torch.tensor([[0.9, 0.6, 0.2], [0.2, 0.7, 0.4], [0.6, 0.8, 0.1]])
    targets = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 1, 0]])
    metrics = compute_metrics(probs, targets, task="multilabel", class_names=["a", "always", "never"], bootstrap=50)
    assert metrics.left_out == ("always", "never")
    alone = {name: metrics.values[name] for name in ("macro_f1", "auroc", "average_precision")}
    assert alone == pytest.approx({"macro_f1": 2 / 3, "auroc": 1.0, "average_precision": 1.0})
    assert math.isnan(metrics.per_class["never"]["auroc"])


def test_what_the_data_do_not_define_is_nan() -> None:
    metrics = compute_metrics(torch.tensor([[0.9, 0.1], [0.8, 0.2]]), [0, 0], task="multiclass", bootstrap=20)
    assert math.isnan(metrics.values["auroc"])
    assert "auroc" not in metrics.intervals
    assert metrics.values["accuracy"] == 1


def test_certain_and_wrong_has_a_finite_loss() -> None:
    values = compute_metrics(torch.eye(2), [1, 0], task="multiclass", bootstrap=0).values
    assert values["nll"] == pytest.approx(-math.log(2**-52))
    assert values["brier"] == 2
    assert values["ece"] == 1
    marks = compute_metrics(torch.eye(2), [[0, 1], [1, 0]], task="multilabel", bootstrap=0).values
    assert marks["nll"] == pytest.approx(-math.log(2**-52))
    assert marks["brier"] == 1


@given(st.permutations(range(30)), st.sampled_from(["multiclass", "multilabel"]))
@settings(max_examples=10, deadline=None)
def test_the_order_of_images_does_not_matter(order: list[int], task: str) -> None:
    probs, targets = noisy_data(task, count=30, ties=True)
    values = compute_metrics(probs, targets, task=task, bootstrap=0).values
    assert compute_metrics(probs[order], targets[order], task=task, bootstrap=0).values == pytest.approx(values)


def test_takes_arrays_lists_and_half_precision() -> None:
    probs, targets = noisy_data("multiclass")
    expected = compute_metrics(probs, targets, task="multiclass", bootstrap=0).values
    for other in (probs.numpy(), probs.tolist(), probs.float()):
        found = compute_metrics(other, targets.numpy(), task="multiclass", bootstrap=0).values
        assert found == pytest.approx(expected, abs=1e-5)
    compute_metrics(probs.half(), targets.int(), task="multiclass", bootstrap=0)


@pytest.mark.parametrize(
    ("probs", "targets", "task", "options", "message"),
    [
        (torch.empty(0, 2), [], "multiclass", {}, "probs is empty"),
        ([0.5, 0.5], [0], "multiclass", {}, r"probs has shape \(2,\)"),
        ([[1.0]], [0], "multiclass", {}, "at least two classes"),
        ([[0.5, math.nan]], [0], "multiclass", {}, "NaN or infinite values in 1 rows"),
        ([[1.5, -0.5]], [0], "multiclass", {}, r"between -0.5 and 1.5; expected \[0, 1\]"),
        ([[0.9, 0.9]], [0], "multiclass", {}, "must sum to 1"),
        ([[0.5, 0.5]], [0, 1], "multiclass", {}, r"shape \(2,\); expected \(1,\)"),
        ([[0.5, 0.5]], [2], "multiclass", {}, "targets hold 2"),
        ([[0.5, 0.5]], [[0, 0.3]], "multilabel", {}, "targets hold 0.3"),
        ([[0.5, 0.5]], [0], "multilabel", {}, r"expected \(1, 2\)"),
        ([[0.5, 0.5]], [0], "regression", {}, "task='regression'"),
        ([[0.5, 0.5]], [0], "multiclass", {"class_names": ["a"]}, "1 different names; probs have 2"),
        ([[0.5, 0.5]], [0], "multiclass", {"class_names": ["a", "a"]}, "1 different names"),
        ([[0.5, 0.5]], [0], "multiclass", {"groups": ["x", "y"]}, "groups has 2 entries for 1 images"),
        ([[0.5, 0.5]], [0], "multiclass", {"groups": [None]}, "None or NaN"),
        ([[0.5, 0.5]], [0], "multiclass", {"bootstrap": -1}, "bootstrap=-1"),
    ],
)
def test_refuses(probs: object, targets: object, task: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_metrics(probs, targets, task=task, **options)
