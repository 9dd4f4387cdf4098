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
    LARGEST_WEIGHT,
    TEMPERATURE_RANGE,
    expected_calibration_error,
    fit_calibration,
    fit_pool,
    fit_temperature,
    fit_thresholds,
    pseudo_images,
)


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


# ---------------------------------------------------------------------- fit_pool


def _pooled(task: str, temperature: float, weight: float, count: int = 20_000) -> tuple[torch.Tensor, ...]:
    """Returns logits, the DCG's scores, and targets whose frequencies are the probabilities of their pool."""
    generator = torch.Generator().manual_seed(3)
    logits, prior = torch.randn(2, count, 4, generator=generator)
    probs = logits_to_probs(logits / temperature + weight * prior, task)
    if task == "multilabel":
        return logits, prior, torch.bernoulli(probs, generator=generator)
    return logits, prior, torch.multinomial(probs, 1, generator=generator)[:, 0]


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
@pytest.mark.parametrize("weight", [0.4, 2.0])
def test_finds_the_pool_of_calibrated_data(task: str, weight: float) -> None:
    found = fit_pool(*_pooled(task, 0.7, weight), task=task)
    assert found == pytest.approx((0.7, weight), rel=0.1)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_no_pool_has_a_smaller_loss(task: str) -> None:
    logits, prior, targets = _pooled(task, 0.5, 0.3, count=200)
    temperature, weight = fit_pool(logits, prior, targets, task=task)

    def loss(t: float, w: float) -> float:
        return _nll(logits / t + w * prior, targets, task, 1.0)

    best = loss(temperature, weight)
    for t, w in [(temperature * 1.05, weight), (temperature * 0.95, weight), (temperature, weight * 1.05)]:
        assert best < loss(t, w)
    assert best <= loss(fit_temperature(logits, targets, task=task), 0)
    assert best <= _nll(prior, targets, task, fit_temperature(prior, targets, task=task))


def test_a_dcg_that_is_wrong_or_not_needed_weighs_nothing() -> None:
    logits, prior, targets = _pooled("multiclass", 0.7, 0.5)
    temperature, weight = fit_pool(logits, -prior, targets, task="multiclass")
    assert weight == 0 and temperature == fit_temperature(logits, targets, task="multiclass")
    assert fit_pool(torch.eye(3), torch.eye(3), [0, 1, 2], task="multiclass")[1] == 0


@pytest.mark.parametrize("seed", range(8))
def test_a_weight_that_changes_nothing_is_none(seed: int) -> None:
    """Nothing but rounding says whether a weight is good where the DCG repeats the scores or says the same of all."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(100, 4, generator=generator)
    targets = torch.randint(4, (100,), generator=generator)
    same_for_all = torch.randn(100, 1, generator=generator).expand(-1, 4)
    for prior in (logits, same_for_all, torch.zeros(100, 4)):
        assert fit_pool(logits, prior, targets, task="multiclass")[1] == 0


def test_only_a_diffusion_is_pooled() -> None:
    logits, prior, targets = _pooled("multiclass", 0.7, 0.5, count=200)
    alone = fit_calibration(logits, prior, targets, DiffMICConfig(num_classes=4, predictor="dcg"))
    few = {"task": "multiclass", "pseudo_images": pseudo_images(200)}
    assert alone == {"temperature": fit_temperature(logits, targets, **few)}
    config = DiffMICConfig(num_classes=4)
    pooled = fit_calibration(logits, prior, targets, config)
    assert tuple(pooled.values()) == fit_pool(score_logits(logits, config), prior, targets, **few)
    assert config.replace(**pooled).uncalibrated() == config


def test_a_diffusion_that_knows_nothing_leaves_it_to_the_dcg() -> None:
    logits, prior, targets = _pooled("multiclass", TEMPERATURE_RANGE[1], 1.0)
    temperature, weight = fit_pool(logits, prior, targets, task="multiclass")
    assert temperature > 20 and weight == pytest.approx(1.0, rel=0.05)
    assert fit_pool(torch.zeros(3, 3), torch.eye(3), [0, 1, 2], task="multiclass")[1] == pytest.approx(LARGEST_WEIGHT)


@given(st.permutations(range(12)), st.sampled_from(["multiclass", "multilabel"]))
@settings(max_examples=10, deadline=None)
def test_a_pool_does_not_depend_on_the_order(order: list[int], task: str) -> None:
    logits, prior, targets = _pooled(task, 0.5, 0.5, count=12)
    fitted = fit_pool(logits, prior, targets, task=task)
    assert fit_pool(logits[order], prior[order], targets[order], task=task) == pytest.approx(fitted, rel=1e-5, abs=1e-6)


def test_a_pool_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"logits and dcg_logits have shapes \(2, 3\) and \(2, 2\)"):
        fit_pool(torch.zeros(2, 3), torch.zeros(2, 2), [0, 1], task="multiclass")
    with pytest.raises(ValueError, match="dcg_logits has NaN or infinite"):
        fit_pool(torch.zeros(1, 3), torch.full((1, 3), math.nan), [0], task="multiclass")


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


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_without_images_nothing_changes(task: str) -> None:
    """A million pseudo-images against two: the probabilities stay those before calibration."""
    logits, prior, targets = (part[:2] for part in _pooled(task, 0.2, 2.0))
    assert fit_temperature(logits, targets, task=task, pseudo_images=1e6) == pytest.approx(1, abs=1e-3)
    assert fit_pool(logits, prior, targets, task=task, pseudo_images=1e6) == pytest.approx((1, 0), abs=1e-3)


def test_pseudo_images_by_hand() -> None:
    # One image, right by a lead of 1, and one pseudo-image with the probabilities at T = 1: p = (1 + p₁) / 2.
    first = 1 / (1 + math.exp(-1))
    wanted = (1 + first) / 2
    temperature = 1 / math.log(wanted / (1 - wanted))
    logits = torch.tensor([[1.0, 0.0]])
    assert fit_temperature(logits, [0], task="multiclass", pseudo_images=1) == pytest.approx(temperature, rel=1e-9)


@pytest.mark.parametrize("images", [3, 6, 15])
def test_few_images_that_are_all_right_do_not_make_certain(images: int) -> None:
    """Without an error there is no best T; six right answers must not turn the next one into 1.000."""
    generator = torch.Generator().manual_seed(images)
    targets = torch.randint(3, (images,), generator=generator)
    logits = 2.0 * torch.nn.functional.one_hot(targets, 3) + 0.3 * torch.randn(images, 3, generator=generator)
    config = DiffMICConfig(num_classes=3, predictor="dcg")
    assert fit_temperature(logits, targets, task="multiclass") < 0.05
    fitted = fit_calibration(logits, logits, targets, config)["temperature"]
    before, after = (logits_to_probs(logits / t, "multiclass").max(1).values.mean() for t in (1.0, fitted))
    assert fitted > 0.3 and before < after < 0.99


def test_few_count_less_than_many() -> None:
    assert pseudo_images(EVEN_IMAGES) == EVEN_IMAGES
    assert pseudo_images(2 * EVEN_IMAGES) / (2 * EVEN_IMAGES) == pytest.approx(1 / 4)
    assert pseudo_images(858) < 0.2


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_many_images_decide_by_themselves(task: str) -> None:
    parts = _pooled(task, 0.7, 0.4, count=1000)
    shrunk = fit_pool(*parts, task=task, pseudo_images=pseudo_images(1000))
    assert shrunk == pytest.approx(fit_pool(*parts, task=task), rel=1e-3)


def test_few_images_calibrate_better_than_none_and_never_much_worse() -> None:
    """Held-out NLL over draws of n images from a model whose scores are too modest and whose DCG knows more."""
    logits, prior, targets = _pooled("multiclass", 0.6, 0.5, count=2000)
    test = logits[1000:], prior[1000:], targets[1000:]

    def loss(temperature: float, weight: float) -> float:
        return _nll(test[0] / temperature + weight * test[1], test[2], "multiclass", 1.0)

    def mean_and_worst(count: int, few: float) -> tuple[float, float]:
        rows = [slice(start, start + count) for start in range(0, 10 * count, count)]
        fits = [fit_pool(logits[r], prior[r], targets[r], task="multiclass", pseudo_images=few) for r in rows]
        found = [loss(*fitted) for fitted in fits]
        return sum(found) / len(found), max(found)

    before = loss(1.0, 0.0)
    for count in (6, 16, 64):
        mean, worst = mean_and_worst(count, pseudo_images(count))
        assert mean < before and worst < before + 0.02, count
    assert mean_and_worst(6, 0.0)[1] > before + 1


def test_few_images_move_thresholds_less() -> None:
    """Of 20 images those from 0.3 on have the label: that may be by chance, of a hundred times as many it is not."""
    probs = torch.linspace(0.05, 0.95, 20).double()[:, None].expand(-1, 2)
    targets = (probs > 0.3).long()
    plain, few, many = (
        fit_thresholds(probs.repeat(times, 1), targets.repeat(times, 1), pseudo_images=images)[0]
        for times, images in ((1, 0.0), (1, 1000.0), (100, pseudo_images(2000)))
    )
    assert plain < few and plain == pytest.approx(many, abs=1e-6)
