"""The fit to local pictures: it repairs what is there, changes little without a reason, and learns nothing of a class
that no picture shows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.probabilities import scores_to_probs
from diffmiczoo.metrics.label_shift import LARGEST_ERROR, estimate_shares
from diffmiczoo.metrics.local_fit import LocalPictures, fit_local_calibration, folds
from diffmiczoo.metrics.local_refit import LEAST_GROUPS, fit_limits, refit
from diffmiczoo.trust.gate import fit_gate

#: A classifier whose scores are logits; right probabilities are those of T = 1.
PLAIN = DiffMICConfig(num_classes=4, predictor="classifier", temperature=1.0, image_size=64)
LABELS = PLAIN.replace(task="multilabel", thresholds=(0.3, 0.3, 0.3, 0.3))


def world(
    count: int, seed: int, shares=(0.4, 0.3, 0.2, 0.1), sharper: float = 1.0, gate: bool = False
) -> LocalPictures:
    """Pictures whose logits, taken `sharper` times, are right where the shares are .4, .3, .2 and .1."""
    rng = np.random.default_rng(seed)
    targets = rng.choice(4, count, p=np.array(shares) / sum(shares))
    # log p(c | x) of Gaussians with distance 2 between the classes' means.
    logits = 1.5 * (rng.normal(size=(count, 4)) + 1.5 * np.eye(4)[targets]) + np.log([0.4, 0.3, 0.2, 0.1])
    scores = torch.from_numpy(sharper * logits).float()
    distances = np.abs(rng.normal(size=count)) + 0.1 if gate else None
    return LocalPictures(scores, torch.zeros(count, 0, 4), torch.from_numpy(targets), np.arange(count), distances)


def nll(pictures: LocalPictures, config: DiffMICConfig) -> float:
    rows = torch.arange(len(pictures))
    return float(-pictures.probs(config)[rows, pictures.targets].log().mean())


@pytest.fixture(scope="module")
def test_pictures() -> dict[str, LocalPictures]:
    return {
        "same": world(6000, 99),
        "sharper": world(6000, 99, sharper=2.5),
        "mix": world(6000, 99, shares=(0.1, 0.2, 0.3, 0.4)),
    }


SHIFTS = {"same": {}, "sharper": {"sharper": 2.5}, "mix": {"shares": (0.1, 0.2, 0.3, 0.4)}}


@pytest.mark.parametrize(("shift", "least"), [("sharper", 0.7), ("mix", 0.6)])
def test_what_can_be_repaired_is(test_pictures, shift, least):
    measured = test_pictures[shift]
    right = PLAIN.replace(temperature=2.5) if shift == "sharper" else PLAIN.replace(
        class_offsets=tuple(np.log([0.25, 2 / 3, 1.5, 4.0]).tolist())
    )  # fmt: skip
    possible = nll(measured, PLAIN) - nll(measured, right)
    gains = [
        nll(measured, PLAIN) - nll(measured, fit_local_calibration(world(150, seed, **SHIFTS[shift]), PLAIN))
        for seed in range(5)
    ]
    assert possible > 0.1 and np.mean(gains) > least * possible and min(gains) > 0


def test_few_pictures_of_the_same_kind_change_little(test_pictures):
    measured = test_pictures["same"]
    losses = [nll(measured, fit_local_calibration(world(LEAST_GROUPS, s), PLAIN)) for s in range(8)]
    gains = nll(measured, PLAIN) - np.array(losses)
    # Most draws change nothing at all; on average the price of having looked is small.
    assert (gains == 0).sum() >= 4 and gains.mean() > -0.01 and gains.min() > -0.08


def test_nothing_is_learned_of_a_class_that_no_picture_shows():
    pictures = world(200, 3, shares=(0.1, 0.3, 0.6, 0))
    config = fit_local_calibration(pictures, PLAIN)
    before, after = (pictures.probs(each)[:, 3].sum() for each in (PLAIN, config))
    assert config.class_offsets and float(after) == pytest.approx(float(before), rel=1e-3)
    assert np.argsort(config.class_offsets[:3]).tolist() == [0, 1, 2]


def test_offsets_of_several_labels_are_their_own():
    rng = np.random.default_rng(5)
    truth = rng.random((300, 4)) < 0.4
    truth[:, 3] = False
    logits = rng.normal(size=(300, 4)) * 0.5 + 3 * (truth - 0.5)
    scores = torch.from_numpy(logits - [0.0, 2.0, 0.0, 0.0]).float()
    pictures = LocalPictures(scores, torch.zeros(300, 0, 4), torch.from_numpy(truth).float(), np.arange(300))
    found = refit(pictures, LABELS, None, resamples=20)
    offsets = found.config.class_offsets
    assert offsets[1] > 1 and offsets[3] == 0.0 and max(map(abs, (offsets[0], offsets[2]))) < 0.6
    # A label without pictures keeps its threshold.
    assert found.config.thresholds[3] == 0.3 and found.config.thresholds[1] != 0.3
    assert {each.name: each for each in found.changes}["nll"].difference[2] < 0


def test_groups_stay_together():
    groups = np.repeat(np.arange(30), 4)
    for left_out in folds(groups):
        assert not set(groups[left_out]) & set(groups[~left_out]) and left_out.sum() == 24


def test_after_is_measured_on_groups_that_the_fit_did_not_see():
    """Labels that have nothing to do with the pictures: a fit measured on what it was fitted to would seem better."""
    pictures = world(80, 1)
    drawn = torch.from_numpy(np.random.default_rng(0).permutation(pictures.targets.numpy()))
    found = refit(dataclasses.replace(pictures, targets=drawn), PLAIN, None, resamples=50)
    by_name = {each.name: each for each in found.changes}
    # The most that can be known of such labels are their shares.
    counts = torch.bincount(drawn, minlength=4) / 80
    assert by_name["nll"].after[0] > float(-(counts * counts.log()).sum()) - 0.01
    assert by_name["accuracy"].after[0] < 0.5 and by_name["coverage"].before is None


def test_sets_gate_and_deferral_hold_for_new_local_pictures():
    trained = world(600, 10, gate=True)
    rng = np.random.default_rng(2)
    gate = fit_gate(rng.normal(size=(300, 6)), rng.normal(size=(200, 6)))
    trust = dataclasses.replace(fit_limits(trained, PLAIN, None, trained.probs(PLAIN)), gate=gate)
    shift = {"shares": (0.1, 0.2, 0.3, 0.4), "sharper": 2.5, "gate": True}
    local, new = world(250, 11, **shift), world(4000, 12, **shift)
    found = refit(local, PLAIN, trust, resamples=50)
    inside = found.trust.sets.contains(new.probs(found.config).numpy(), 0.1)
    rows = np.arange(len(new))
    covered = inside[rows, new.targets.numpy()]
    per_class = [covered[new.targets.numpy() == c].mean() for c in range(4)]
    assert 0.88 < covered.mean() < 0.96 and min(per_class) > 0.78
    assert 0.91 < (new.distances <= found.trust.gate.limit).mean() < 0.98
    step = found.trust.deferral.step(0.3)
    probs = new.probs(found.config)
    kept = (1 - probs.max(1).values.numpy()) * 4 / 3 <= step.limit
    kept &= new.distances <= found.trust.gate.limit
    assert (probs.argmax(1) != new.targets).numpy()[kept].mean() < 0.32 and kept.mean() > 0.3
    assert tuple(found.trust.settings["class_offsets"]) == found.config.class_offsets


def test_offsets_move_logits_by_themselves():
    scores = torch.randn(5, 4)
    moved = PLAIN.replace(class_offsets=(0.0, 1.0, -2.0, 0.5))
    assert torch.equal(scores_to_probs(scores, moved), (scores + torch.tensor([0.0, 1.0, -2.0, 0.5])).softmax(1))
    assert torch.equal(scores_to_probs(scores, PLAIN), scores.softmax(1))
    several = LABELS.replace(class_offsets=(0.0, 1.0, -2.0, 0.5))
    assert torch.equal(scores_to_probs(scores, several), (scores + torch.tensor([0.0, 1.0, -2.0, 0.5])).sigmoid())


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ((1.0,), "class_offsets has 1 values"),
        ((0.0, 0.0, 0.0, 21.0), "within ±20"),
        ((float("nan"),) * 4, "class_offsets"),
    ],
)
def test_wrong_offsets_are_refused(offsets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        PLAIN.replace(class_offsets=offsets)


# ---------------------------------------------------------------------- without labels


def test_shares_are_found_without_labels():
    known = np.array([0.4, 0.3, 0.2, 0.1])
    pictures = world(600, 20, shares=(0.1, 0.2, 0.3, 0.4))
    found = estimate_shares(pictures.probs(PLAIN).double().numpy(), known)
    assert np.abs(np.array(found.shares) - [0.1, 0.2, 0.3, 0.4]).max() < 3 * max(found.errors) + 0.02
    assert found.certain and max(found.errors) < LARGEST_ERROR
    right = PLAIN.replace(class_offsets=found.offsets(known))
    assert nll(pictures, right) < nll(pictures, PLAIN) - 0.1


def test_standard_errors_are_those_of_many_draws():
    known = np.array([0.4, 0.3, 0.2, 0.1])
    draws = [estimate_shares(world(400, s).probs(PLAIN).double().numpy(), known) for s in range(40)]
    spread = np.std([each.shares for each in draws], axis=0)
    assert spread == pytest.approx(np.mean([each.errors for each in draws], axis=0), rel=0.4)
    # By the test of no difference one place in a hundred is mistaken.
    assert sum(each.certain for each in draws) <= 2


def test_pictures_that_tell_nothing_are_refused():
    with pytest.raises(ValueError, match=r"leave open how frequent the classes are: .* ± .* %"):
        estimate_shares(
            np.full((60, 2), 0.5) + np.random.default_rng(0).normal(size=(60, 1)) * [[0.01, -0.01]], [0.5, 0.5]
        )
    with pytest.raises(ValueError, match="must be a share above 0"):
        estimate_shares(np.full((60, 2), 0.5), [1.0, 0.0])
