"""Labels that lean towards rare classes, at a price in accuracy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from torch.distributions import Normal

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.decisions import decide
from diffmiczoo.metrics.classification import compare_metrics, compute_metrics
from diffmiczoo.metrics.decisions import STRENGTHS, fit_decision, fit_label_adjustment

RARE, MANY = 500, 4500


def _two_bells() -> tuple[torch.Tensor, torch.Tensor]:
    """Posteriors of two normal distributions, one of them nine times as frequent, at their even quantiles."""
    bells = (Normal(0.0, 1.0), Normal(1.5, 1.0))
    places = [bell.icdf((torch.arange(count) + 0.5) / count) for bell, count in zip(bells, (MANY, RARE), strict=True)]
    x, shares = torch.cat(places).double(), torch.tensor([0.9, 0.1]).log().double()
    logits = torch.stack([bell.log_prob(x).double() for bell in bells], dim=1) + shares
    return logits.softmax(1), torch.tensor([0] * MANY + [1] * RARE)


def test_right_probabilities_are_divided_by_the_shares_of_the_classes() -> None:
    probs, targets = _two_bells()
    offsets = fit_label_adjustment(probs, targets, most_lost=1.0)
    assert offsets == (0.0, pytest.approx(math.log(9), abs=0.06 * math.log(9)))  # Bayes' rule for equal shares: τ = 1
    labels = decide(probs, "multiclass", label_adjustment=offsets).int().argmax(1)
    assert balanced_accuracy_score(targets, labels) == pytest.approx(
        float(Normal(0.0, 1.0).cdf(torch.tensor(0.75))), abs=2e-3
    )


def test_the_price_in_accuracy_is_kept_and_the_best_for_it_taken() -> None:
    probs, targets = _two_bells()
    before = accuracy_score(targets, probs.argmax(1))
    strengths = {}
    for most in (0.002, 0.01, 0.05):
        offsets = fit_label_adjustment(probs, targets, most_lost=most)
        labels = decide(probs, "multiclass", label_adjustment=offsets).int().argmax(1)
        assert before - accuracy_score(targets, labels) <= most
        strengths[most] = offsets[1] / math.log(9)
        stronger = decide(probs, "multiclass", label_adjustment=(0.0, (strengths[most] + 0.05) * math.log(9)))
        assert before - accuracy_score(targets, stronger.int().argmax(1)) > most
    assert 0 < strengths[0.002] < strengths[0.01] < strengths[0.05] < 1
    assert all(any(abs(value - each) < 1e-9 for each in STRENGTHS) for value in strengths.values())


def test_nothing_is_changed_where_nothing_is_gained() -> None:
    truth = torch.tensor([0] * 60 + [1] * 20)
    assert fit_label_adjustment(0.1 + 0.8 * torch.eye(2)[truth], truth) == ()
    assert fit_label_adjustment(torch.full((80, 2), 0.5), torch.tensor([0, 1] * 40)) == ()


def test_a_class_that_hardly_anything_shows_is_not_preferred_for_it() -> None:
    rng = np.random.default_rng(0)
    probs = torch.from_numpy(rng.dirichlet([8, 2, 1], 300))
    targets = torch.from_numpy((rng.uniform(size=300) < 0.2).astype(np.int64))  # none of the third
    offsets = fit_label_adjustment(probs, targets, most_lost=1.0)
    frequent = int((targets == 0).sum())
    assert offsets[2] <= max(STRENGTHS) * math.log(frequent / 5) + 1e-9


def test_few_images_are_held_back_by_what_the_probabilities_say() -> None:
    """Two of four rare images that are missed by a hair do not ask for what two hundred of four hundred would."""
    probs = torch.tensor([[0.9, 0.1]] * 12 + [[0.55, 0.45]] * 2 + [[0.2, 0.8]] * 2)
    targets = torch.tensor([0] * 12 + [1] * 4)
    few = fit_label_adjustment(probs, targets, most_lost=0.01)
    many = fit_label_adjustment(probs.repeat(100, 1), targets.repeat(100), most_lost=0.01)
    assert many and few != many


def test_decisions_alone_change() -> None:
    probs, targets = torch.tensor([[0.6, 0.4], [0.55, 0.45], [0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 1, 0, 1])
    options = {"task": "multiclass", "bootstrap": 0}
    plain = compute_metrics(probs, targets, **options).values
    adjusted = compute_metrics(probs, targets, label_adjustment=(0.0, 0.3), **options).values
    assert plain["accuracy"] == 0.75 and adjusted["accuracy"] == 1.0
    for name in ("auroc", "nll", "brier", "ece"):
        assert adjusted[name] == plain[name], name
    both = compare_metrics(
        probs, probs, targets, task="multiclass", second_label_adjustment=(0.0, 0.3), bootstrap=5, progress=False
    )
    assert both["accuracy"][0] == -0.25 and both["nll"][0] == 0.0
    with pytest.raises(ValueError, match="label_adjustment has 3 values for 2 classes"):
        compute_metrics(probs, targets, label_adjustment=(0.0, 0.3, 0.1), **options)


def test_the_rule_goes_into_the_config() -> None:
    probs, targets = _two_bells()
    config = DiffMICConfig(num_classes=2)
    assert fit_decision(probs, targets, config) == config
    fitted = fit_decision(probs, targets, config, 0.01)
    assert fitted.label_adjustment == fit_label_adjustment(probs, targets, 0.01) != ()
    assert fitted.uncalibrated() == config and not fitted.thresholds
    several = fit_decision(torch.eye(2)[targets], torch.eye(2)[targets], config.replace(task="multilabel"), 0.0)
    assert several.thresholds == (0.5, 0.5) and not several.label_adjustment
    for wrong, message in [
        ({"label_adjustment": (0.1,)}, "label_adjustment has 1 values; a multiclass model has one for each of its 2"),
        ({"label_adjustment": (0.1, 0.2), "task": "multilabel"}, "a multiclass model has one"),
    ]:
        with pytest.raises(ValueError, match=message):
            config.replace(**wrong)
