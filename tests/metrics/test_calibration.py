"""Temperature scaling and the expected calibration error."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits, scores_to_probs
from diffmiczoo.metrics.calibration import (
    EVEN_IMAGES,
    expected_calibration_error,
    fit_temperature,
    fit_thresholds,
    pseudo_images,
)
from diffmiczoo.metrics.pool import TEMPERATURE_RANGE


def _calibrated(
    task: str, temperature: float, count: int = 20_000, classes: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns logits whose probabilities at `temperature` are the frequencies of the targets."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.rand(count, classes, generator=generator) - 0.5
    probs = logits_to_probs(logits / temperature, task)
    if task == "multilabel":
        return logits, torch.rand(count, classes, generator=generator) < probs
    return logits, torch.multinomial(probs, 1, generator=generator)[:, 0]


def _nll(logits: torch.Tensor, targets: torch.Tensor, task: str, temperature: float) -> float:
    probs = logits_to_probs(logits.double() / temperature, task)
    if task == "multilabel":
        return float(torch.nn.functional.binary_cross_entropy(probs, targets.double()))
    return float(torch.nn.functional.nll_loss(probs.log(), targets))


# ---------------------------------------------------------------------- fit_temperature


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("temperature", [0.05, 0.25, 1.5])
def test_finds_the_temperature_of_calibrated_data(task: str, temperature: float) -> None:
    scores, targets = _calibrated(task, temperature)
    assert fit_temperature(scores, targets, task=task) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_no_temperature_has_a_smaller_loss(task: str) -> None:
    scores, targets = _calibrated(task, 0.3, count=300)
    fitted = fit_temperature(scores, targets, task=task)
    best = _nll(scores, targets, task, fitted)
    for other in [*torch.logspace(-2.5, 2, 40).tolist(), 0.999 * fitted, 1.001 * fitted]:
        assert best <= _nll(scores, targets, task, other)


def test_temperature_of_two_images_by_hand() -> None:
    # The right class leads by 1 in three images of four: p = 3/4 = 1 / (1 + exp(-1 / T)) gives T = 1 / log 3.
    logits = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    assert fit_temperature(logits, [0, 0, 0, 1], task="multiclass") == pytest.approx(1 / math.log(3), rel=1e-9)
    marks = torch.tensor([[1, 1], [1, 1], [1, 1], [0, 0]])
    assert fit_temperature(torch.ones(4, 2), marks, task="multilabel") == pytest.approx(1 / math.log(3), rel=1e-9)


def test_fitting_lowers_the_calibration_error() -> None:
    logits, targets = _calibrated("multiclass", 0.1)

    def error(temperature: float) -> float:
        confidence, index = logits_to_probs(logits / temperature, "multiclass").max(1)
        return expected_calibration_error(confidence, index == targets)

    assert error(fit_temperature(logits, targets, task="multiclass")) < 0.02 < 0.1 < error(1.0)


def test_the_temperature_of_a_models_scores_is_that_of_their_logits() -> None:
    config = DiffMICConfig(num_classes=4)
    scores = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    calibrated = scores_to_probs(scores, config.replace(temperature=0.5))
    targets = torch.multinomial(calibrated, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    fitted = fit_temperature(score_logits(scores, config), targets, task="multiclass")
    assert fitted == pytest.approx(0.5, rel=0.1)


def test_stays_in_its_range() -> None:
    logits = torch.eye(3)
    assert fit_temperature(logits, [0, 1, 2], task="multiclass") == pytest.approx(TEMPERATURE_RANGE[0])
    assert fit_temperature(logits, [1, 2, 0], task="multiclass") == pytest.approx(TEMPERATURE_RANGE[1])


@given(st.permutations(range(12)), st.sampled_from(["multiclass", "multilabel"]))
@settings(max_examples=15, deadline=None)
def test_temperature_does_not_depend_on_the_order(order: list[int], task: str) -> None:
    scores, targets = _calibrated(task, 0.3, count=12)
    fitted = fit_temperature(scores, targets, task=task)
    assert fit_temperature(scores[order], targets[order], task=task) == pytest.approx(fitted, rel=1e-6)


@pytest.mark.parametrize(
    ("scores", "targets", "task", "message"),
    [
        (torch.empty(0, 3), [], "multiclass", "logits is empty"),
        (torch.tensor([[0.1, math.nan]]), [0], "multiclass", "NaN or infinite values in 1 rows, the first is row 0"),
        (torch.tensor([[0.1, math.inf]]), [0], "multiclass", "NaN or infinite"),
        (torch.zeros(3), [0], "multiclass", r"expected \(N, C\)"),
        (torch.zeros(2, 3), [0], "multiclass", r"targets have shape \(1,\); expected \(2,\)"),
        (torch.zeros(2, 3), [0, 3], "multiclass", "targets hold 3; expected integers from 0 to 2"),
        (torch.zeros(2, 3), [0, -1], "multiclass", "targets hold -1"),
        (torch.zeros(2, 3), [0, 0.5], "multiclass", "targets hold 0.5"),
        (torch.zeros(1, 2), [[0, 2]], "multilabel", "targets hold 2; expected integers from 0 to 1"),
        (torch.zeros(1, 2), [0], "binary", "task='binary' is not one of"),
    ],
)
def test_refuses_what_does_not_fit(scores: torch.Tensor, targets: list[float], task: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_temperature(scores, targets, task=task)


# ---------------------------------------------------------------------- expected_calibration_error


def test_calibration_error_by_hand() -> None:
    # Two bins: [0, 0.5) holds 0.2 and 0.4 with one hit, gap |1 - 0.6|; [0.5, 1] holds 0.9 and 1.0, gap |1 - 1.9|.
    assert expected_calibration_error([0.2, 0.4, 0.9, 1.0], [0, 1, 0, 1], bins=2) == pytest.approx((0.4 + 0.9) / 4)


def test_certainty_belongs_to_the_last_bin() -> None:
    assert expected_calibration_error([0.98, 1.0], [1, 0]) == pytest.approx(0.98 / 2)


def test_perfect_calibration_has_no_error() -> None:
    assert expected_calibration_error([0.25] * 4 + [1.0, 0.0], [1, 0, 0, 0, 1, 0]) == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=30), st.integers(1, 20))
def test_calibration_error_is_between_0_and_the_mean_gap(pairs: list[tuple[float, bool]], bins: int) -> None:
    error = expected_calibration_error(*zip(*pairs, strict=True), bins=bins)
    mean_gap = sum(abs(outcome - confidence) for confidence, outcome in pairs) / len(pairs)
    assert 0 <= error <= mean_gap + 1e-12
    assert error == pytest.approx(expected_calibration_error(*zip(*pairs[::-1], strict=True), bins=bins), abs=1e-12)


@pytest.mark.parametrize(
    ("confidence", "outcome", "bins", "message"),
    [
        ([], [], 15, "N ≥ 1"),
        ([0.5], [1, 0], 15, "have shapes"),
        ([1.2], [1], 15, r"outside \[0, 1\]"),
        ([math.nan], [1], 15, "NaN"),
        ([0.5], [1], 0, "bins=0"),
    ],
)
def test_calibration_error_refuses(confidence: list[float], outcome: list[int], bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expected_calibration_error(confidence, outcome, bins)


# ---------------------------------------------------------------------- few validation images


def test_few_count_less_than_many() -> None:
    assert pseudo_images(EVEN_IMAGES) == EVEN_IMAGES
    assert pseudo_images(2 * EVEN_IMAGES) / (2 * EVEN_IMAGES) == pytest.approx(1 / 4)
    assert pseudo_images(858) < 0.2


def test_few_images_move_thresholds_less() -> None:
    """Of 20 images those from 0.3 on have the label: that may be by chance, of a hundred times as many it is not."""
    probs = torch.linspace(0.05, 0.95, 20).double()[:, None].expand(-1, 2)
    targets = (probs > 0.3).long()
    plain, few, many = (
        fit_thresholds(probs.repeat(times, 1), targets.repeat(times, 1), pseudo_images=images)[0]
        for times, images in ((1, 0.0), (1, 1000.0), (100, pseudo_images(2000)))
    )
    assert plain < few and plain == pytest.approx(many, abs=1e-6)
