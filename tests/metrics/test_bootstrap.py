"""What confidence intervals promise."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from factories import noisy_data, random_predictions
from sklearn.metrics import cohen_kappa_score

from diffmiczoo.metrics.classification import compare_metrics, compute_metrics, scored_images
from diffmiczoo.metrics.table import metrics_for
from diffmiczoo.metrics.weighted import WeightedImages


def test_the_interval_of_kappa_is_that_of_plain_resampling() -> None:
    predictions = random_predictions(count=80, ordinal=True)
    rng = np.random.default_rng(1)
    targets, given = predictions.targets.numpy(), predictions.probs.argmax(1).numpy()
    drawn = [
        cohen_kappa_score(targets[rows], given[rows], weights="quadratic")
        for rows in (rng.integers(0, 80, 80) for _ in range(1500))
    ]
    low, high = predictions.metrics(bootstrap=1500, progress=False).intervals["quadratic_kappa"]
    assert np.percentile(drawn, [2.5, 97.5]) == pytest.approx([low, high], abs=0.03)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_weighted_metrics_equal_those_of_the_repeated_images(task: str, ties: bool) -> None:
    probs, targets = noisy_data(task, count=60, ties=ties)
    generator = np.random.default_rng(0)
    weights = generator.multinomial(60, np.full(60, 1 / 60), size=12).T.astype(float)
    weights[:, 0] = 1
    weights[:, 1] = np.where(np.arange(60) < 3, 20.0, 0.0)  # hardly any class is left
    weighted = WeightedImages(scored_images(probs, targets, task=task), weights)
    found = {metric.name: metric.function(weighted) for metric in metrics_for(task)}
    for column in range(weights.shape[1]):
        rows = np.repeat(np.arange(60), weights[:, column].astype(int))
        expected = compute_metrics(probs[rows], targets[rows], task=task, bootstrap=0).values
        assert {name: values[column] for name, values in found.items()} == pytest.approx(
            expected, abs=1e-6, nan_ok=True
        )


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_intervals_surround_the_values(task: str) -> None:
    metrics = compute_metrics(*noisy_data(task), task=task, bootstrap=300)
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
    probs, targets = noisy_data("multiclass", count=300)
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
    probs, targets = noisy_data("multiclass", count=count)
    with pytest.raises(ValueError, match=message):
        compare_metrics(probs, probs, targets, task="multiclass", bootstrap=bootstrap)


def test_groups_are_drawn_whole() -> None:
    probs, targets = noisy_data("multiclass", count=50)
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
    probs, targets = noisy_data("multiclass", count=20)
    numbers = [index % 7 for index in range(20)]
    expected = compute_metrics(probs, targets, task="multiclass", groups=numbers, bootstrap=30)
    for groups in (torch.tensor(numbers), np.array(numbers), [f"patient {number}" for number in numbers]):
        assert compute_metrics(probs, targets, task="multiclass", groups=groups, bootstrap=30) == expected


def test_same_seed_same_intervals_and_the_global_state_is_left_alone() -> None:
    probs, targets = noisy_data("multiclass")
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = compute_metrics(probs, targets, task="multiclass", bootstrap=50, seed=3)
    assert first == compute_metrics(probs, targets, task="multiclass", bootstrap=50, seed=3)
    assert first.intervals != compute_metrics(probs, targets, task="multiclass", bootstrap=50, seed=4).intervals
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]


def test_chunks_do_not_change_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, targets = noisy_data("multilabel", count=50)
    whole = compute_metrics(probs, targets, task="multilabel", bootstrap=100)
    monkeypatch.setattr("diffmiczoo.metrics.bootstrap._CHUNK", 50 * 7)
    pieces = compute_metrics(probs, targets, task="multilabel", bootstrap=100)
    for name, ends in whole.intervals.items():
        assert pieces.intervals[name] == pytest.approx(ends, abs=1e-12)


@pytest.mark.parametrize("groups", [None, ["one"]])
def test_one_image_or_group_has_no_interval(groups: list[str] | None) -> None:
    assert compute_metrics([[0.9, 0.1]], [0], task="multiclass", groups=groups).intervals == {}
