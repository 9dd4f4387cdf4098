"""Every metric of the table against scikit-learn and torchmetrics; generated data have ties, absent classes, limits."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import sklearn.metrics as sk
import torch
import torchmetrics.functional.classification as tm
from factories import noisy_data
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.metrics.calibration import expected_calibration_error
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.metrics.table import class_metrics, overall_metrics

TASKS = ["multiclass", "multilabel"]


@dataclass(frozen=True)
class Case:
    """Probabilities, truth and decisions, (N, C) each."""

    probs: np.ndarray
    truth: np.ndarray
    decisions: np.ndarray
    task: str
    thresholds: list[float] | None = None

    @property
    def targets(self) -> np.ndarray:
        return self.truth.argmax(1) if self.task == "multiclass" else self.truth.astype(int)

    @property
    def given(self) -> np.ndarray:
        return self.decisions.argmax(1) if self.task == "multiclass" else self.decisions.astype(int)

    @property
    def columns(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return list(zip(self.truth.T.astype(int), self.decisions.T.astype(int), self.probs.T, strict=True))

    def values(self, ordinal: bool = False) -> dict[str, float]:
        return self.metrics(ordinal).values

    def metrics(self, ordinal: bool = False):
        options = {"task": self.task, "ordinal": ordinal, "thresholds": self.thresholds, "bootstrap": 0}
        return compute_metrics(self.probs, self.targets, **options)


def as_case(probs: np.ndarray, targets: np.ndarray, task: str, thresholds: list[float] | None = None) -> Case:
    if task == "multiclass":
        eye = np.eye(probs.shape[1], dtype=bool)
        return Case(probs, eye[targets], eye[probs.argmax(1)], task)
    return Case(probs, targets.astype(bool), probs >= np.array(thresholds or [0.5]), task, thresholds)


@st.composite
def cases(draw: st.DrawFn, task: str) -> Case:
    """Few images with probabilities of few values: many ties, zeros, and classes that nobody has or is given."""
    classes, count = draw(st.integers(2, 5)), draw(st.integers(1, 25))
    whole = st.lists(st.integers(0, 6), min_size=classes, max_size=classes)
    rows = np.array(draw(st.lists(whole, min_size=count, max_size=count)), dtype=float)
    if task == "multilabel":
        labels = st.lists(st.booleans(), min_size=classes, max_size=classes)
        truth = np.array(draw(st.lists(labels, min_size=count, max_size=count)))
        limits = draw(
            st.none() | st.lists(st.sampled_from([0.1, 1 / 6, 0.5, 5 / 6]), min_size=classes, max_size=classes)
        )
        return as_case(rows / 6, truth, task, limits)
    rows[rows.sum(1) == 0] = 1
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return as_case(rows / rows.sum(1, keepdims=True), np.array(targets), task)


# ---------------------------------------------------------------------- scikit-learn


def _mean_over_labels(case: Case, score: Callable[[np.ndarray, np.ndarray, np.ndarray], float]) -> float:
    """Returns the mean over the classes with images of both kinds."""
    values = [score(*column) for column in case.columns if 0 < column[0].sum() < len(column[0])]
    return float(np.mean(values)) if values else np.nan


def _sk_f1(case: Case) -> float:
    if case.task == "multiclass":
        return sk.f1_score(case.targets, case.given, average="macro")
    return _mean_over_labels(case, lambda truth, given, _: sk.f1_score(truth, given, zero_division=0))


def _sk_nll(case: Case) -> float:
    if case.task == "multiclass":
        return sk.log_loss(case.targets, case.probs, labels=range(case.probs.shape[1]))
    return np.mean([sk.log_loss(truth, probs, labels=[0, 1]) for truth, _, probs in case.columns])


def _sk_brier(case: Case) -> float:
    by_class = [sk.brier_score_loss(truth, probs, pos_label=1) for truth, _, probs in case.columns]
    return np.sum(by_class) if case.task == "multiclass" else np.mean(by_class)


def _plain_ece(case: Case) -> float:
    """Returns the calibration error by its definition, bin by bin."""
    if case.task == "multiclass":
        confidence, right = case.probs.max(1), (case.decisions & case.truth).any(1)
    else:
        confidence, right = case.probs.ravel(), case.truth.ravel()
    places = [min(int(each * 15), 14) for each in confidence]
    bins = [[row for row, place in enumerate(places) if place == number] for number in set(places)]
    return sum(len(rows) * abs(right[rows].mean() - confidence[rows].mean()) for rows in bins) / len(places)


OVERALL: dict[str, Callable[[Case], float]] = {
    "accuracy": lambda case: 1 - sk.hamming_loss(case.targets, case.given),
    "balanced_accuracy": lambda case: sk.balanced_accuracy_score(case.targets, case.given),
    "macro_f1": _sk_f1,
    "quadratic_kappa": lambda case: sk.cohen_kappa_score(
        case.targets, case.given, labels=range(case.probs.shape[1]), weights="quadratic"
    ),
    "auroc": lambda case: _mean_over_labels(case, lambda truth, _, probs: sk.roc_auc_score(truth, probs)),
    "average_precision": lambda case: _mean_over_labels(
        case, lambda truth, _, probs: sk.average_precision_score(truth, probs)
    ),
    "ece": _plain_ece,
    "nll": _sk_nll,
    "brier": _sk_brier,
}


def _where(defined: bool, value: Callable[[], float]) -> float:
    return value() if defined else np.nan


BY_CLASS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "recall": lambda truth, given, _: _where(truth.any(), lambda: sk.recall_score(truth, given)),
    "precision": lambda truth, given, _: _where(given.any(), lambda: sk.precision_score(truth, given)),
    "f1": lambda truth, given, _: _where((truth | given).any(), lambda: sk.f1_score(truth, given)),
    "auroc": lambda truth, _, probs: _where(truth.any() > truth.all(), lambda: sk.roc_auc_score(truth, probs)),
    "average_precision": lambda truth, _, probs: _where(
        truth.any() > truth.all(), lambda: sk.average_precision_score(truth, probs)
    ),
    "support": lambda truth, given, probs: truth.sum(),
}


def test_every_metric_has_an_oracle() -> None:
    assert list(OVERALL) == [metric.name for metric in overall_metrics()]
    assert list(BY_CLASS) == [*(metric.name for metric in class_metrics()), "support"]


def _check(case: Case) -> None:
    found = case.metrics(ordinal=case.task == "multiclass")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without images, which are what is tested
        expected = {name: OVERALL[name](case) for name in found.values}
        assert found.values == pytest.approx(expected, abs=1e-9, nan_ok=True)
        for row, column in zip(found.per_class.values(), case.columns, strict=True):
            by_class = {name: oracle(*column) for name, oracle in BY_CLASS.items()}
            assert row == pytest.approx(by_class, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_values_equal_scikit_learn(task: str, ties: bool) -> None:
    probs, targets = noisy_data(task, ties=ties)
    _check(as_case(probs.numpy(), targets.numpy(), task))


@given(cases("multiclass"))
@settings(max_examples=30, deadline=None)
def test_generated_classes_equal_scikit_learn(case: Case) -> None:
    _check(case)


@given(cases("multilabel"))
@settings(max_examples=30, deadline=None)
def test_generated_labels_and_thresholds_equal_scikit_learn(case: Case) -> None:
    _check(case)


# ---------------------------------------------------------------------- torchmetrics


def _torchmetrics(case: Case) -> dict[str, float]:
    probs, truth, given = (torch.from_numpy(each) for each in (case.probs, case.truth.astype(int), case.decisions * 1))
    classes = probs.shape[1]
    if case.task == "multiclass":
        targets = truth.argmax(1)
        options = {"num_classes": classes}
        values = {
            "accuracy": tm.multiclass_accuracy(probs, targets, average="micro", **options),
            "balanced_accuracy": tm.multiclass_recall(probs, targets, **options),
            "macro_f1": tm.multiclass_f1_score(probs, targets, **options),
            "quadratic_kappa": tm.multiclass_cohen_kappa(probs, targets, weights="quadratic", **options),
            "auroc": tm.multiclass_auroc(probs, targets, **options),
            "ece": tm.multiclass_calibration_error(probs, targets, n_bins=15, **options),
        }
    else:
        values = {
            "accuracy": tm.multilabel_accuracy(given, truth, num_labels=classes, average="micro"),
            "macro_f1": tm.multilabel_f1_score(given, truth, num_labels=classes),
            "auroc": tm.multilabel_auroc(probs, truth, num_labels=classes),
            "average_precision": tm.multilabel_average_precision(probs, truth, num_labels=classes),
            "ece": tm.binary_calibration_error(probs.flatten(), truth.flatten(), n_bins=15),
        }
    return {name: value.item() for name, value in values.items()}


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_values_equal_torchmetrics(task: str, ties: bool) -> None:
    probs, targets = noisy_data(task, ties=ties)
    limits = [0.3, 0.5, 0.7, 0.4] if task == "multilabel" else None
    case = as_case(probs.numpy(), targets.numpy(), task, limits)
    found, expected = case.values(ordinal=task == "multiclass"), _torchmetrics(case)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found.keys() - expected.keys() == {"nll", "brier"}


@given(cases("multilabel"))
@settings(max_examples=50, deadline=None)
def test_generated_labels_equal_torchmetrics(case: Case) -> None:
    rows = case.metrics().per_class.values()
    truth, given, classes = torch.from_numpy(case.truth * 1), torch.from_numpy(case.decisions * 1), case.probs.shape[1]
    for name, score in (("recall", tm.multilabel_recall), ("precision", tm.multilabel_precision)):
        expected = score(given, truth, num_labels=classes, average="none").tolist()
        # torchmetrics gives 0 where there is nothing to divide by.
        assert [np.nan_to_num(row[name]) for row in rows] == pytest.approx(expected, abs=1e-6)
    for row, (truth, _, probs) in zip(rows, case.columns, strict=True):
        if truth.any() and not truth.all():
            both = torch.from_numpy(probs), torch.from_numpy(truth)
            assert row["auroc"] == pytest.approx(tm.binary_auroc(*both).item(), abs=1e-6)
            assert row["average_precision"] == pytest.approx(tm.binary_average_precision(*both).item(), abs=1e-6)


def test_expected_calibration_error_equals_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(500, generator=generator).double()
    outcome = torch.rand(500, generator=generator) < confidence.square()
    for bins in (1, 7, 15):
        expected = tm.binary_calibration_error(confidence, outcome.long(), n_bins=bins)
        assert expected_calibration_error(confidence, outcome, bins) == pytest.approx(expected.item(), abs=1e-9)
