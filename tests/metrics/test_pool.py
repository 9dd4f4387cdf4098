"""The pool of a model's members: the best weights, and no more than the images can carry."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.calibration import LEAST_TO_CALIBRATE, fit_calibration, fit_temperature, pseudo_images
from diffmiczoo.metrics.pool import LARGEST_WEIGHT, TEMPERATURE_RANGE, Pool, fit_pool

TASKS = pytest.mark.parametrize("task", ["multiclass", "multilabel"])


def drawn(
    task: str, temperature: float, weights: tuple[float, ...], count: int = 5000
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns logits, members, and targets whose frequencies are the probabilities of their pool."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(count, 4, generator=generator)
    members = torch.randn(count, len(weights), 4, generator=generator)
    probs = logits_to_probs(logits / temperature + torch.einsum("m,nmc->nc", torch.tensor(weights), members), task)
    if task == "multilabel":
        return logits, members, torch.bernoulli(probs, generator=generator)
    return logits, members, torch.multinomial(probs, 1, generator=generator)[:, 0]


def loss(pool: Pool, logits: torch.Tensor | None, members: torch.Tensor, targets: torch.Tensor, task: str) -> float:
    total = torch.einsum("m,nmc->nc", torch.tensor(pool.weights).double(), members.double())
    if logits is not None:
        total = total + logits.double() / pool.temperature
    if task == "multilabel":
        return float(torch.nn.functional.binary_cross_entropy_with_logits(total, targets.double()))
    return float(torch.nn.functional.cross_entropy(total, targets))


@TASKS
@pytest.mark.parametrize("weights", [(0.4,), (0.8, 0.2), (0.3, 0.5, 0.9)])
def test_finds_the_pool_of_calibrated_data(task: str, weights: tuple[float, ...]) -> None:
    found = fit_pool(*drawn(task, 0.7, weights, 20_000), task=task)
    assert found.temperature == pytest.approx(0.7, rel=0.1) and found.weights == pytest.approx(weights, abs=0.05)


@TASKS
def test_no_point_of_a_grid_is_better(task: str) -> None:
    parts = drawn(task, 1.2, (0.5, 0.3), 60)
    found = loss(fit_pool(*parts, task=task), *parts, task)
    grid = torch.linspace(0, 2, 13).tolist()
    others = [Pool(1 / max(a, 0.01), (b, c)) for a in grid for b in grid for c in grid]
    assert found <= min(loss(pool, *parts, task) for pool in others)


@TASKS
def test_the_slope_is_zero_inside_and_upward_at_a_weight_of_zero(task: str) -> None:
    logits, members, targets = drawn(task, 0.8, (0.6, 0.3), 400)
    members[:, 1] *= -1  # which would have to weigh less than nothing
    pool = fit_pool(logits, members, targets, task=task)
    assert pool.weights[1] == 0 < pool.weights[0]
    factors = torch.tensor([1 / pool.temperature, *pool.weights]).double().requires_grad_()
    parts = torch.cat([logits[:, None], members], dim=1).double()
    total = torch.einsum("k,nkc->nc", factors, parts)
    if task == "multilabel":
        value = torch.nn.functional.binary_cross_entropy_with_logits(total, targets.double())
    else:
        value = torch.nn.functional.cross_entropy(total, targets)
    (slope,) = torch.autograd.grad(value, factors)
    assert slope[:2].abs().max() < 1e-7 and slope[2] > 0


@TASKS
def test_members_that_predict_alone(task: str) -> None:
    _, members, targets = drawn(task, TEMPERATURE_RANGE[1], (0.8, 0.2), 20_000)
    pool = fit_pool(None, members, targets, task=task)
    assert pool.temperature == 1 and pool.weights == pytest.approx((0.8, 0.2), abs=0.05)
    single = fit_pool(None, members[:, :1], targets, task=task).weights[0]
    assert single == pytest.approx(1 / fit_temperature(members[:, 0], targets, task=task), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_a_member_that_changes_nothing_weighs_nothing(seed: int) -> None:
    """Nothing but rounding says whether a weight is good where a member repeats the scores or says the same of all."""
    generator = torch.Generator().manual_seed(seed)
    logits, targets = torch.randn(100, 4, generator=generator), torch.randint(4, (100,), generator=generator)
    same_for_all = torch.randn(100, 1, generator=generator).expand(-1, 4)
    members = torch.stack([logits, same_for_all, torch.zeros(100, 4)], dim=1)
    pool = fit_pool(logits, members, targets, task="multiclass")
    assert pool.weights == (0, 0, 0)
    assert pool.temperature == pytest.approx(fit_temperature(logits, targets, task="multiclass"), rel=1e-4)


def test_weights_and_temperatures_have_bounds() -> None:
    nothing, right = torch.zeros(3, 3), torch.eye(3)
    alone = fit_pool(nothing, right[:, None], [0, 1, 2], task="multiclass")
    assert alone.weights == (pytest.approx(LARGEST_WEIGHT),)
    wrong = fit_pool(right, nothing[:, None], [1, 2, 0], task="multiclass")
    assert wrong == Pool(pytest.approx(TEMPERATURE_RANGE[1]), (0.0,))


@given(st.permutations(range(12)), st.sampled_from(["multiclass", "multilabel"]))
@settings(max_examples=10, deadline=None)
def test_a_pool_does_not_depend_on_the_order(order: list[int], task: str) -> None:
    logits, members, targets = drawn(task, 0.5, (0.5, 0.2), 12)
    one = fit_pool(logits, members, targets, task=task, pseudo_images=3)
    two = fit_pool(logits[order], members[order], targets[order], task=task, pseudo_images=3)
    assert two.temperature == pytest.approx(one.temperature, rel=1e-6)
    assert two.weights == pytest.approx(one.weights, rel=1e-6, abs=1e-9)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"logits and members have shapes \(2, 3\) and \(2, 1, 2\); expected"):
        fit_pool(torch.zeros(2, 3), torch.zeros(2, 1, 2), [0, 1], task="multiclass")
    with pytest.raises(ValueError, match="member 1 has NaN or infinite"):
        fit_pool(None, torch.tensor([[[0.0, 0.0], [math.nan, 0.0]]]), [0], task="multiclass")
    with pytest.raises(ValueError, match=r"members have shape \(2, 3\); expected \(N, M, C\)"):
        fit_pool(None, torch.zeros(2, 3), [0, 1], task="multiclass")


# ---------------------------------------------------------------------- what the images can carry


def test_what_holds_a_temperature_by_hand() -> None:
    """One image, right by a lead of 1, and one that holds: p₁ - 1 + p₀ (1 - p₀) (1/T - 1) = 0 at the minimum."""
    pool = fit_pool(torch.tensor([[1.0, 0.0]]), torch.zeros(1, 0, 2), [0], task="multiclass", pseudo_images=1)
    before, after = (1 / (1 + math.exp(-factor)) for factor in (1, 1 / pool.temperature))
    assert pool.temperature < 1
    assert after - 1 + before * (1 - before) * (1 / pool.temperature - 1) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("images", [3, 6, 15])
def test_few_images_that_are_all_right_do_not_make_certain(images: int) -> None:
    """Without an error there is no best T; six right answers must not turn the next one into 1.000."""
    generator = torch.Generator().manual_seed(images)
    targets = torch.randint(3, (images,), generator=generator)
    logits = 2.0 * torch.nn.functional.one_hot(targets, 3) + 0.3 * torch.randn(images, 3, generator=generator)
    assert fit_temperature(logits, targets, task="multiclass") < 0.05
    few = pseudo_images(images)
    fitted = fit_pool(logits, logits[:, None], targets, task="multiclass", pseudo_images=few)
    before, after = (
        logits_to_probs(factor * logits, "multiclass").max(1).values.mean()
        for factor in (1.0, 1 / fitted.temperature + fitted.weights[0])
    )
    assert fitted.temperature > 0.3 and before < after < 0.99


@TASKS
def test_a_million_pseudo_images_change_nothing(task: str) -> None:
    logits, members, targets = (part[:2] for part in drawn(task, 0.2, (1.0, 2.0)))
    pool = fit_pool(logits, members, targets, task=task, pseudo_images=1e6)
    assert (pool.temperature, *pool.weights) == pytest.approx((1, 0, 0), abs=1e-3)
    alone = fit_pool(None, members, targets, task=task, pseudo_images=1e6)
    assert alone.weights == pytest.approx((0.5, 0.5), abs=1e-3)


@TASKS
def test_many_images_decide_by_themselves(task: str) -> None:
    parts = drawn(task, 0.7, (0.4, 0.2), 1000)
    shrunk, plain = (fit_pool(*parts, task=task, pseudo_images=few) for few in (pseudo_images(1000), 0))
    assert (shrunk.temperature, *shrunk.weights) == pytest.approx((plain.temperature, *plain.weights), rel=2e-3)


def test_few_images_calibrate_better_than_none_and_never_much_worse() -> None:
    """Held-out NLL over draws of n images from a model whose scores are too modest and whose priors know more."""
    logits, members, targets = drawn("multiclass", 0.6, (0.5, 0.2), 2000)
    test = logits[1000:], members[1000:], targets[1000:]

    def mean_and_worst(count: int, few: float) -> tuple[float, float]:
        rows = [slice(start, start + count) for start in range(0, 10 * count, count)]
        fits = [fit_pool(logits[r], members[r], targets[r], task="multiclass", pseudo_images=few) for r in rows]
        found = [loss(pool, *test, "multiclass") for pool in fits]
        return sum(found) / len(found), max(found)

    before = loss(Pool(1.0, (0.0, 0.0)), *test, "multiclass")
    for count in (8, 16, 64):
        mean, worst = mean_and_worst(count, pseudo_images(count))
        assert mean < before and worst < before + 0.05, count
    assert mean_and_worst(8, 0.0)[1] > before + 0.3


def test_each_predictor_has_its_own_calibration() -> None:
    logits, members, targets = drawn("multiclass", 0.7, (0.5, 0.3), 200)
    few = {"task": "multiclass", "pseudo_images": pseudo_images(200)}
    config = DiffMICConfig(num_classes=4)
    pool = fit_pool(score_logits(logits, config), members, targets, **few)
    found = fit_calibration(logits, members, targets, config)
    assert found == {"temperature": pool.temperature, "prior_weight": pool.weights}
    assert config.replace(**found).uncalibrated() == config
    dcg = fit_calibration(logits, members, targets, config.replace(predictor="dcg"))
    assert dcg == {"temperature": 1.0, "prior_weight": fit_pool(None, members, targets, **few).weights}
    alone = fit_calibration(logits, members, targets, config.replace(predictor="global"))
    assert alone == {"temperature": fit_pool(logits, members[:, :0], targets, **few).temperature}


def test_priors_that_are_always_wrong_make_a_dcg_say_nothing() -> None:
    """Weights of 0 would mean equal ones, so that nothing is said by a high temperature."""
    wrong = -10 * torch.eye(4).repeat(50, 1)
    targets = torch.arange(4).repeat(50)
    found = fit_calibration(
        wrong, torch.stack([wrong, wrong], 1), targets, DiffMICConfig(num_classes=4, predictor="dcg")
    )
    assert found == {"temperature": TEMPERATURE_RANGE[1]}


def test_too_few_images_calibrate_nothing() -> None:
    logits, members, targets = drawn("multiclass", 0.7, (0.5, 0.3), 200)
    config, least = DiffMICConfig(num_classes=4), LEAST_TO_CALIBRATE
    one_less = (part[: least - 1] for part in (logits, members, targets))
    assert fit_calibration(*one_less, config) == {}
    assert fit_calibration(logits[:least], members[:least], targets[:least], config).keys() == {
        "temperature",
        "prior_weight",
    }
