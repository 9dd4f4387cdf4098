"""Scores become probabilities and uncertainty."""

from __future__ import annotations

import math

import pytest
import torch
from factories import ANIMALS, SCORES
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.probabilities import (
    SCORE_NOISE,
    UNCALIBRATED_TEMPERATURE,
    logits_to_probs,
    score_logits,
    scores_to_probs,
    uncertainty,
)


def test_multiclass_probabilities_by_hand() -> None:
    probs = scores_to_probs(torch.tensor([[0.2, 0.0]]), DiffMICConfig(num_classes=2, temperature=0.5))
    above, zero = math.log1p(math.exp(0.2 / SCORE_NOISE)), math.log(2)
    assert probs[0].tolist() == pytest.approx([above**2 / (above**2 + zero**2), zero**2 / (above**2 + zero**2)])


def test_multilabel_probabilities_by_hand() -> None:
    config = DiffMICConfig(num_classes=3, temperature=0.5, task="multilabel")
    probs = scores_to_probs(torch.tensor([[0.5, 0.9, 0.1]]), config)
    odds = (math.log1p(math.exp(0.9 / SCORE_NOISE)) / math.log1p(math.exp(0.1 / SCORE_NOISE))) ** 2
    assert probs[0].tolist() == pytest.approx([0.5, odds / (1 + odds), 1 / (1 + odds)])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_priors_are_added_with_their_weights(task: str) -> None:
    config = DiffMICConfig(num_classes=3, temperature=0.5, prior_weight=(0.3, 0.1), task=task)
    members = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    logits = score_logits(SCORES, config) / 0.5 + 0.3 * members[:, 0] + 0.1 * members[:, 1]
    assert torch.equal(scores_to_probs(SCORES, config, members), logits_to_probs(logits, task))
    ignored = scores_to_probs(SCORES, config.replace(prior_weight=0.0), members)
    assert torch.equal(ignored, scores_to_probs(SCORES, config.replace(prior_weight=0.0)))
    with pytest.raises(ValueError, match=r"prior_weight=\(0\.3, 0\.1\) needs members"):
        scores_to_probs(SCORES, config)
    with pytest.raises(ValueError, match=r"expected members of shape \(4, 2, 3\), found \(4, 1, 3\)"):
        scores_to_probs(SCORES, config, members[:, :1])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_a_dcg_that_predicts_alone_is_weighed_or_has_a_temperature(task: str) -> None:
    """Weights of 0 are what files have from before there were any: the mean of both priors, divided by T."""
    config = DiffMICConfig(num_classes=3, temperature=0.5, prior_weight=(0.9, 0.2), task=task, predictor="dcg")
    members = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    scores = members.mean(1)
    weighted = logits_to_probs(0.9 * members[:, 0] + 0.2 * members[:, 1], task)
    torch.testing.assert_close(scores_to_probs(scores, config, members), weighted)
    before = scores_to_probs(scores, config.replace(prior_weight=0.0), members)
    torch.testing.assert_close(before, logits_to_probs(scores / 0.5, task))


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_well_inside_the_range_are_taken_as_probabilities(task: str) -> None:
    scores = torch.tensor([[0.6, 0.25, 0.15], [0.3, 0.4, 0.3]])
    probs = scores_to_probs(scores, DiffMICConfig(num_classes=3, task=task))
    torch.testing.assert_close(probs, scores, atol=0.01, rtol=0)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_logits_grow_with_the_score_however_far_out(task: str) -> None:
    scores = torch.linspace(-1e4, 1e4, 20_001, dtype=torch.float64)[:, None]
    config = DiffMICConfig(num_classes=2, task=task)
    logits = score_logits(scores, config)
    assert logits.isfinite().all() and (logits.diff(dim=0) > 0).all()
    single = score_logits(torch.tensor([[-5.0, -2.001, -2.0, -1.999, 0.0, 1.0, 5.0]]), config)
    assert single.isfinite().all() and (single.diff() > 0).all()


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_without_a_fitted_temperature(task: str) -> None:
    fitted = DiffMICConfig(num_classes=3, task=task, temperature=UNCALIBRATED_TEMPERATURE)
    assert torch.equal(scores_to_probs(SCORES, fitted.replace(temperature=None)), scores_to_probs(SCORES, fitted))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected scores of shape \(B, 3\)"):
        scores_to_probs(torch.zeros(shape), ANIMALS)


def test_precision_of_probabilities() -> None:
    assert scores_to_probs(SCORES.half(), ANIMALS).dtype == torch.float32
    assert scores_to_probs(SCORES.double(), ANIMALS).dtype == torch.float64


@given(
    st.lists(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-3, 1e2),
    st.sampled_from(["multiclass", "multilabel"]),
)
@settings(deadline=None)
def test_probabilities_and_uncertainty_stay_in_range(rows: list[list[float]], temperature: float, task: str) -> None:
    scores = torch.tensor(rows)
    probs = scores_to_probs(scores, DiffMICConfig(num_classes=3, task=task, temperature=temperature))
    assert ((probs >= 0) & (probs <= 1)).all()
    if task == "multiclass":
        assert torch.allclose(probs.sum(-1), torch.ones(len(rows)), atol=1e-5)
    doubt = uncertainty(probs, task)
    assert doubt.shape == (len(rows),)
    assert ((doubt >= 0) & (doubt <= 1)).all()
    assert torch.allclose(uncertainty(probs.flip(-1), task), doubt, atol=1e-6)


def test_uncertainty_by_hand() -> None:
    probs = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
    assert uncertainty(probs, "multiclass").tolist() == pytest.approx([0, 1, 2 / 3])
    marks = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 1.0]])
    assert uncertainty(marks, "multilabel").tolist() == pytest.approx([0, 1, 0.5])
