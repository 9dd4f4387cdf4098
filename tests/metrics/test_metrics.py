"""Metrics against scikit-learn, hand-made cases, and what their intervals promise."""

from __future__ import annotations

import json
import math
import random
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.metrics.bootstrap import WeightedMetrics
from diffmiczoo.metrics.classification import _calibration, _decisions, _losses, compare_metrics, compute_metrics
from diffmiczoo.metrics.report import Metrics


def _data(task: str, count: int = 200, classes: int = 4, ties: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(count, classes, generator=generator, dtype=torch.float64)
    noisy = logits + 1.5 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    if ties:
        logits = logits.round()
    if task == "multilabel":
        return logits.sigmoid(), (noisy > 0.4).long()
    return logits.softmax(1), noisy.argmax(1)


def _reference(probs: np.ndarray, targets: np.ndarray, task: str) -> dict[str, float]:
    """Returns what scikit-learn says; macro F1 and AUROC are given all classes, as `_data` has them all."""
    sk = pytest.importorskip("sklearn.metrics")
    if task == "multiclass":
        predicted, onehot = probs.argmax(1), np.eye(probs.shape[1])[targets]
        return {
            "accuracy": sk.accuracy_score(targets, predicted),
            "balanced_accuracy": sk.balanced_accuracy_score(targets, predicted),
            "macro_f1": sk.f1_score(targets, predicted, average="macro"),
            "auroc": sk.roc_auc_score(onehot, probs, average="macro"),
            "nll": sk.log_loss(targets, probs),
            "brier": ((probs - onehot) ** 2).sum(1).mean(),
        }
    decided = probs >= 0.5
    return {
        "accuracy": (decided == targets).mean(),
        "macro_f1": sk.f1_score(targets, decided, average="macro"),
        "auroc": sk.roc_auc_score(targets, probs, average="macro"),
        "average_precision": sk.average_precision_score(targets, probs, average="macro"),
        "nll": np.mean([sk.log_loss(targets[:, c], probs[:, c]) for c in range(probs.shape[1])]),
        "brier": np.mean([sk.brier_score_loss(targets[:, c], probs[:, c]) for c in range(probs.shape[1])]),
    }


# ---------------------------------------------------------------------- values


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_values_equal_scikit_learn(task: str, ties: bool) -> None:
    probs, targets = _data(task, ties=ties)
    values = compute_metrics(probs, targets, task=task, bootstrap=0).values
    expected = _reference(probs.numpy(), targets.numpy(), task)
    assert {name: values[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert values.keys() - expected.keys() == {"ece"}


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_per_class_equals_scikit_learn(task: str) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    probs, targets = _data(task)
    metrics = compute_metrics(probs, targets, task=task, class_names="abcd", bootstrap=0)
    truth = np.eye(4)[targets] if task == "multiclass" else targets.numpy()
    decided = np.eye(4)[probs.argmax(1)] if task == "multiclass" else probs.numpy() >= 0.5
    precision, recall, f1, support = sk.precision_recall_fscore_support(truth, decided)
    for index, name in enumerate("abcd"):
        expected = {
            "recall": recall[index],
            "precision": precision[index],
            "f1": f1[index],
            "auroc": sk.roc_auc_score(truth[:, index], probs[:, index]),
            "average_precision": sk.average_precision_score(truth[:, index], probs[:, index]),
            "support": support[index],
        }
        assert metrics.per_class[name] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_calibration_error_equals_torchmetrics(task: str) -> None:
    functional = pytest.importorskip("torchmetrics.functional.classification")
    probs, targets = _data(task)
    value = compute_metrics(probs, targets, task=task, bootstrap=0).values["ece"]
    if task == "multiclass":
        expected = functional.multiclass_calibration_error(probs, targets, num_classes=4, n_bins=15)
    else:
        expected = functional.binary_calibration_error(probs.flatten(), targets.flatten(), n_bins=15)
    assert value == pytest.approx(expected.item(), abs=1e-6)


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
    probs, targets = _data(task, count=30, ties=True)
    values = compute_metrics(probs, targets, task=task, bootstrap=0).values
    assert compute_metrics(probs[order], targets[order], task=task, bootstrap=0).values == pytest.approx(values)


def test_takes_arrays_lists_and_half_precision() -> None:
    probs, targets = _data("multiclass")
    expected = compute_metrics(probs, targets, task="multiclass", bootstrap=0).values
    for other in (probs.numpy(), probs.tolist(), probs.float()):
        found = compute_metrics(other, targets.numpy(), task="multiclass", bootstrap=0).values
        assert found == pytest.approx(expected, abs=1e-5)
    compute_metrics(probs.half(), targets.int(), task="multiclass", bootstrap=0)


# ---------------------------------------------------------------------- resamples


def _weighted(probs: torch.Tensor, targets: torch.Tensor, task: str) -> WeightedMetrics:
    truth = targets.bool() if task == "multilabel" else torch.nn.functional.one_hot(targets, probs.shape[1]).bool()
    decisions = _decisions(probs, task)
    losses, calibration = _losses(probs, truth, decisions, task), _calibration(probs, truth, task)
    return WeightedMetrics(probs, truth, decisions, losses, calibration, task)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_weighted_metrics_equal_those_of_the_repeated_images(task: str, ties: bool) -> None:
    probs, targets = _data(task, count=60, ties=ties)
    generator = np.random.default_rng(0)
    weights = generator.multinomial(60, np.full(60, 1 / 60), size=12).T.astype(float)
    weights[:, 0] = 1
    weights[:, 1] = np.where(np.arange(60) < 3, 20.0, 0.0)  # hardly any class is left
    found = _weighted(probs, targets, task)(weights)
    for column in range(weights.shape[1]):
        rows = np.repeat(np.arange(60), weights[:, column].astype(int))
        expected = compute_metrics(probs[rows], targets[rows], task=task, bootstrap=0).values
        assert {name: values[column] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-6, nan_ok=True
        )


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_intervals_surround_the_values(task: str) -> None:
    metrics = compute_metrics(*_data(task), task=task, bootstrap=300)
    assert metrics.intervals.keys() == metrics.values.keys()
    for name in metrics.values.keys() - {"ece"}:  # resampling adds noise to the calibration error
        low, high = metrics.intervals[name]
        assert low < metrics.values[name] < high


def test_the_interval_of_accuracy_is_that_of_a_proportion() -> None:
    probs = torch.tensor([[0.9, 0.1]]).repeat(400, 1)
    targets = (torch.arange(400) < 80).long()
    low, high = compute_metrics(probs, targets, task="multiclass", bootstrap=4000).intervals["accuracy"]
    half = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.005)


def test_the_interval_covers() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.tensor([[0.9, 0.1]]).repeat(100, 1)
    covered = 0
    for repeat in range(100):
        targets = (torch.rand(100, generator=generator) < 0.3).long()
        low, high = compute_metrics(probs, targets, task="multiclass", bootstrap=200, seed=repeat).intervals["accuracy"]
        covered += low <= 0.7 <= high
    assert 88 <= covered <= 100


def test_a_comparison_is_paired() -> None:
    probs, targets = _data("multiclass", count=300)
    duller = torch.softmax(probs.log() / 1.2, dim=1)
    compared = compare_metrics(probs, duller, targets, task="multiclass", bootstrap=300)
    one, other = (compute_metrics(p, targets, task="multiclass", bootstrap=300) for p in (probs, duller))
    for name, (difference, low, high) in compared.items():
        assert difference == pytest.approx(one.values[name] - other.values[name]) and low <= high
    assert compared["accuracy"] == (0, 0, 0)
    difference, low, high = compared["nll"]
    # Both rise and fall with the images that were drawn, so their difference is known much better than either.
    assert high - low < 0.5 * (one.intervals["nll"][1] - one.intervals["nll"][0]) and low < difference < high
    assert compare_metrics(probs, probs, targets, task="multiclass", bootstrap=50)["auroc"] == (0, 0, 0)


@pytest.mark.parametrize(
    ("count", "bootstrap", "message"), [(1, 10, "at least two images"), (9, 0, "bootstrap=0 must be at least 1")]
)
def test_a_comparison_that_cannot_be_made(count: int, bootstrap: int, message: str) -> None:
    probs, targets = _data("multiclass", count=count)
    with pytest.raises(ValueError, match=message):
        compare_metrics(probs, probs, targets, task="multiclass", bootstrap=bootstrap)


def test_groups_are_drawn_whole() -> None:
    probs, targets = _data("multiclass", count=50)
    single = compute_metrics(probs, targets, task="multiclass", bootstrap=2000)
    probs, targets = probs.repeat_interleave(4, 0), targets.repeat_interleave(4)
    names = [f"lesion {index // 4}" for index in range(200)]
    grouped = compute_metrics(probs, targets, task="multiclass", groups=names, bootstrap=2000)
    alone = compute_metrics(probs, targets, task="multiclass", bootstrap=2000)
    assert (single.num_groups, grouped.num_groups, grouped.num_images) == (None, 50, 200)
    # Four copies of each image tell no more than one.
    assert grouped.intervals["nll"] == pytest.approx(single.intervals["nll"])
    low, high = alone.intervals["nll"]
    assert 1.6 < (grouped.intervals["nll"][1] - grouped.intervals["nll"][0]) / (high - low) < 2.4


def test_groups_may_be_of_any_type() -> None:
    probs, targets = _data("multiclass", count=20)
    numbers = [index % 7 for index in range(20)]
    expected = compute_metrics(probs, targets, task="multiclass", groups=numbers, bootstrap=30)
    for groups in (torch.tensor(numbers), np.array(numbers), [f"patient {number}" for number in numbers]):
        assert compute_metrics(probs, targets, task="multiclass", groups=groups, bootstrap=30) == expected


def test_same_seed_same_intervals_and_the_global_state_is_left_alone() -> None:
    probs, targets = _data("multiclass")
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = compute_metrics(probs, targets, task="multiclass", bootstrap=50, seed=3)
    assert first == compute_metrics(probs, targets, task="multiclass", bootstrap=50, seed=3)
    assert first.intervals != compute_metrics(probs, targets, task="multiclass", bootstrap=50, seed=4).intervals
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_chunks_do_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, targets = _data("multilabel", count=50)
    whole = compute_metrics(probs, targets, task="multilabel", bootstrap=100)
    monkeypatch.setattr("diffmiczoo.metrics.bootstrap._CHUNK", 50 * 7)
    pieces = compute_metrics(probs, targets, task="multilabel", bootstrap=100)
    for name, ends in whole.intervals.items():
        assert pieces.intervals[name] == pytest.approx(ends, abs=1e-12)


@pytest.mark.parametrize("groups", [None, ["one"]])
def test_one_image_or_group_has_no_interval(groups: list[str] | None) -> None:
    assert compute_metrics([[0.9, 0.1]], [0], task="multiclass", groups=groups).intervals == {}


def test_a_test_set_of_the_usual_size_is_quick() -> None:
    probs, targets = _data("multiclass", count=1707, classes=7)
    start = time.perf_counter()
    compute_metrics(probs, targets, task="multiclass", bootstrap=1000)
    assert time.perf_counter() - start < 30  # about 1 s alone on a core


# ---------------------------------------------------------------------- refusals, and the way to files


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
