"""The gate: the distance is scikit-learn's and pytorch-ood's, and as many own pictures pass as promised."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.covariance import LedoitWolf

from diffmiczoo.trust import gate as gate_module
from diffmiczoo.trust.arrays import checked_groups, one_per_group, quantile
from diffmiczoo.trust.gate import fit_gate, shrunk_covariance


def features(count: int, width: int = 12, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width))
    return (rng.normal(size=(count, width)) @ mixing + 3 + shift).astype(np.float32)


def test_distances_are_those_of_scikit_learn():
    training, new = features(150), features(40, seed=1, shift=2)
    gate, oracle = fit_gate(training, features(60, seed=2)), LedoitWolf().fit(training.astype(np.float64))
    assert np.allclose(shrunk_covariance(training - training.mean(0)), oracle.covariance_, rtol=1e-4)
    # Half precision of the axes is what differs.
    assert np.allclose((gate.score(new) * gate.limit) ** 2, oracle.mahalanobis(new), rtol=0.02)


@pytest.mark.release  # importing it takes 4 seconds
def test_distances_rank_as_those_of_pytorch_ood():
    torch = pytest.importorskip("torch")
    detector = pytest.importorskip("pytorch_ood.detector").Mahalanobis(None)
    # Equally long axes: theirs does not shrink the covariance.
    rng = np.random.default_rng(0)
    training, new = (rng.normal(size=(count, 12)).astype(np.float32) for count in (4000, 100))
    detector.fit_features(torch.from_numpy(training), torch.zeros(len(training), dtype=torch.long))
    theirs = detector.predict_features(torch.from_numpy(new)).numpy() * 2 * len(training)
    gate = fit_gate(training, training[:60])
    assert np.allclose((gate.score(new) * gate.limit) ** 2, theirs, rtol=0.05)


def test_as_many_new_own_pictures_pass_as_promised_and_foreign_ones_do_not():
    training = features(400)
    kept = []
    for seed in range(200):
        gate = fit_gate(training, features(99, seed=1000 + seed))
        kept.append((gate.score(features(100, seed=5000 + seed)) <= 1).mean())
    # The kept share of a gate is Beta(95, 5): mean .95, so that the mean of 200 has a standard error below .0025.
    assert np.mean(kept) == pytest.approx(0.95, abs=0.008)
    low, high = beta(95, 5).ppf([0.0001, 0.9999])
    assert low - 0.08 < min(kept) and max(kept) <= min(1.0, high + 0.08)
    assert (gate.score(features(100, seed=7, shift=15)) > 1).mean() > 0.95


def test_pictures_of_a_group_count_once():
    own, others = features(40, seed=3), features(40, seed=4, shift=12)
    crowd = np.concatenate([own, others])
    groups = [*range(40), *[40] * 40]  # one group of forty strange pictures
    held_up = fit_gate(features(400), crowd).limit
    assert fit_gate(features(400), crowd, groups).limit < held_up / 2


@pytest.mark.parametrize("count", [1, 18])
def test_too_few_groups_give_no_gate(count):
    assert fit_gate(features(100), features(count)) is None
    assert fit_gate(features(100), features(19)).groups == 19


def test_many_features_are_stored_by_their_main_axes(monkeypatch):
    training, held, new = features(300, 40), features(60, 40, seed=1), features(50, 40, seed=2, shift=4)
    whole = fit_gate(training, held)
    monkeypatch.setattr(gate_module, "MOST_NUMBERS", 10 * 40)
    small = fit_gate(training, held)
    assert small.axes.shape == (10, 40) and small.rest > 0 and whole.rest == 0
    assert (small.score(held) <= 1).mean() == pytest.approx((whole.score(held) <= 1).mean(), abs=0.05)
    assert np.corrcoef(small.score(new), whole.score(new))[0, 1] > 0.3
    everything = dataclasses.replace(small, axes=small.axes[:0], scales=small.scales[:0])
    centred = (new - small.mean).astype(np.float64)
    assert np.allclose(everything.score(new) * small.limit, small.rest * np.sqrt((centred**2).sum(1)))


def test_fewer_pictures_than_features_need_no_large_matrix():
    rng = np.random.default_rng(3)
    training, others = rng.normal(size=(20, 50)) @ rng.normal(size=(50, 50)), rng.normal(size=(40, 50))
    gate = fit_gate(training, others)
    assert gate.axes.shape == (19, 50) and gate.rest > 0
    centred = training - training.mean(0)
    inverse = np.linalg.inv(shrunk_covariance(centred))
    away = others - training.mean(0)
    expected = np.sqrt(np.einsum("nh,hk,nk->n", away, inverse, away))
    assert np.allclose(gate.score(others) * gate.limit, expected, rtol=2e-3)


def test_features_that_all_agree_have_a_finite_distance():
    flat = np.ones((30, 4), np.float32)
    gate = fit_gate(flat, flat + np.random.default_rng(0).normal(size=flat.shape).astype(np.float32))
    assert gate is not None and np.isfinite(gate.score(flat + 1)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.full((30, 3), np.nan), np.zeros((30, 3))), "training has NaN or infinite values"),
        ((np.zeros((30, 3)), np.zeros(3)), "held_back has shape"),
        ((np.zeros((30, 3)), np.zeros((30, 4))), r"features have shape \(30, 4\); expected \(N, 3\)"),
        ((np.zeros((1, 3)), np.zeros((30, 3))), "training has one picture"),
        ((np.zeros((30, 3)), np.zeros((30, 3)), [1, 2]), "groups has 2 entries for 30 pictures"),
        ((np.zeros((30, 3)), np.zeros((30, 3)), None, 1.0), "keep=1.0 must be a share"),
    ],
)
def test_wrong_arrays_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_gate(*arguments)


def test_the_quantile_without_groups_is_the_order_statistic():
    scores = np.random.default_rng(0).permutation(19).astype(float)
    ones = np.ones(19)
    assert quantile(scores, ones, 0.95) == 18 and quantile(scores[:18], np.ones(18), 0.95) is None
    for level in (0.5, 0.8, 0.9):
        assert quantile(scores, ones, level) == np.ceil(level * 20) - 1


def test_one_picture_of_each_group_is_drawn_the_same_each_time():
    groups = checked_groups(np.array(["a", "b", "a", "c", "b", "a"]), 6)
    rows = one_per_group(groups)
    assert sorted(groups[rows]) == [0, 1, 2] and np.array_equal(rows, one_per_group(groups))
    assert len({tuple(one_per_group(groups, seed)) for seed in range(20)}) > 1
