"""The noise schedule and single steps against formulas and diffusers."""

from __future__ import annotations

import math

import pytest
import torch
from factories import small_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.samplers import DDIM, Ancestral
from diffmiczoo.diffusion.schedule import NoiseSchedule


def schedule(**fields) -> NoiseSchedule:
    return NoiseSchedule(DiffMICConfig(**fields))


def test_alpha_bar_is_the_product_of_one_minus_beta() -> None:
    table, product = schedule().alphas_cumprod, 1.0
    for t, alpha in enumerate(table):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * t / 999)
        assert math.isclose(alpha, product, rel_tol=1e-4)


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [0]), (2, [500, 0]), (5, [800, 600, 400, 200, 0]), (10, list(range(900, -1, -100)))]
)
def test_timesteps_descend_evenly_to_0(steps: int, expected: list[int]) -> None:
    assert schedule().timesteps(steps) == expected


def test_all_timesteps_are_used_with_1000_steps() -> None:
    assert schedule().timesteps(1000) == list(range(999, -1, -1))


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps_are_errors(steps: int) -> None:
    with pytest.raises(ValueError, match=r"must be within 1\.\.1000"):
        schedule().timesteps(steps)


def test_forward_process_uses_the_timestep_of_each_point() -> None:
    noising = schedule()
    y_0, noise, t = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2), torch.randint(1000, (2, 2, 2))
    noisy = noising.add_noise(y_0, noise, t)
    for b, i, j in [(0, 0, 0), (1, 0, 1), (1, 1, 0)]:
        alpha = noising.alphas_cumprod[t[b, i, j]]
        expected = alpha**0.5 * y_0[b, :, i, j] + (1 - alpha) ** 0.5 * noise[b, :, i, j]
        torch.testing.assert_close(noisy[b, :, i, j], expected)


def test_ddim_inverts_the_forward_process_when_the_noise_is_known() -> None:
    noising = schedule(clip_sample=False)
    y_0, noise = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    y_t = noising.add_noise(y_0, noise, torch.full((2, 2, 2), 700))
    torch.testing.assert_close(DDIM(noising).step(y_t, noise, 700, None), y_0, rtol=1e-4, atol=1e-4)
    earlier = noising.add_noise(y_0, noise, torch.full((2, 2, 2), 300))
    torch.testing.assert_close(DDIM(noising).step(y_t, noise, 700, 300), earlier, rtol=1e-4, atol=1e-4)


def test_clipping_keeps_the_networks_own_noise() -> None:
    noising = schedule()
    y_t, noise = torch.full((1, 1, 1, 1), 9.0), torch.full((1, 1, 1, 1), 0.5)
    alpha = noising.alphas_cumprod[100]
    expected = alpha**0.5 * 1.0 + (1 - alpha) ** 0.5 * 0.5
    assert DDIM(noising).step(y_t, noise, 500, 100).item() == pytest.approx(expected, rel=1e-5)


def test_the_published_sums_of_diffusers_test_suite() -> None:
    """`diffusers` tests its DDIM scheduler with this model, sample and sums (linear β, 10 steps, η = 0, clipped)."""
    noising = schedule()
    sample = (torch.arange(768).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)
    steps = noising.timesteps(10)
    for t, previous_t in zip(steps, [*steps[1:], None], strict=True):
        sample = DDIM(noising).step(sample, sample * t / (t + 1), t, previous_t)
    assert sample.abs().sum().item() == pytest.approx(172.0067, abs=1e-2)
    assert sample.abs().mean().item() == pytest.approx(0.223967, abs=1e-3)


@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 50, 250, 1000])
def test_ddim_agrees_with_diffusers_step_by_step(steps: int, clip_sample: bool) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDIMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=clip_sample
    )
    theirs.set_timesteps(steps)
    ours = schedule(clip_sample=clip_sample)
    timesteps = ours.timesteps(steps)
    assert theirs.timesteps.tolist() == timesteps
    generator = torch.Generator().manual_seed(steps)
    sample = torch.randn(2, 3, 2, 2, generator=generator)
    for t, previous_t in zip(timesteps, [*timesteps[1:], None], strict=True):
        # Near the trajectory: x̂_0 stays of order one, as it does for a trained network.
        noise = (sample - ours.alphas_cumprod[t] ** 0.5 * torch.randn(sample.shape, generator=generator)) / (
            1 - ours.alphas_cumprod[t]
        ) ** 0.5
        expected = theirs.step(noise, t, sample, eta=0.0).prev_sample
        sample = DDIM(ours).step(sample, noise, t, previous_t)
        torch.testing.assert_close(sample, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("t", "previous_t", "expected"), [(980, 960, 0.32460), (420, 400, 0.14771), (487, 486, 0.00979)]
)
def test_ancestral_variance_is_the_published_one(t: int, previous_t: int, expected: float) -> None:
    """`diffusers` tests its DDIM scheduler's variance, the posterior's, with these values."""
    ancestral, zero = schedule(clip_sample=False), torch.zeros(1, 1, 1, 1)
    step = Ancestral(ancestral).step(zero, zero, t, previous_t, variance_noise=torch.ones(1, 1, 1, 1))
    assert step.item() ** 2 == pytest.approx(expected, abs=1e-4)


def test_ancestral_step_agrees_with_diffusers_ddpm() -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(
        num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False
    )
    theirs.set_timesteps(100)
    ours = schedule(clip_sample=False)
    for t, previous_t in [(990, 980), (500, 490), (10, 0)]:
        y_t, noise = torch.randn(2, 3, 1, 1), torch.randn(2, 3, 1, 1)
        expected = theirs.step(noise, t, y_t, generator=torch.Generator().manual_seed(t)).prev_sample
        fresh = torch.randn(y_t.shape, generator=torch.Generator().manual_seed(t))
        step = Ancestral(ours).step(y_t, noise, t, previous_t, variance_noise=fresh)
        torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-5)


def test_ancestral_step_with_a_mean_is_the_posterior_of_card() -> None:
    """CARD's posterior (Han et al. 2022, eq. 4-6) in its own form: γ_0 · x̂_0 + γ_1 · y_t + γ_2 · f."""
    ours = schedule(clip_sample=False)
    y_t, noise, mean = (torch.randn(2, 3, 1, 1, dtype=torch.float64) for _ in range(3))
    for t in (1, 10, 500, 999):
        bar, previous_bar = ours.alphas_cumprod[t], ours.alphas_cumprod[t - 1]
        alpha = bar / previous_bar
        y_0 = (y_t - (1 - bar**0.5) * mean - (1 - bar) ** 0.5 * noise) / bar**0.5
        gamma_0 = (1 - alpha) * previous_bar**0.5 / (1 - bar)
        gamma_1 = (1 - previous_bar) * alpha**0.5 / (1 - bar)
        gamma_2 = 1 + (bar**0.5 - 1) * (alpha**0.5 + previous_bar**0.5) / (1 - bar)
        expected = gamma_0 * y_0 + gamma_1 * y_t + gamma_2 * mean
        step = Ancestral(ours).step(y_t, noise, t, t - 1, mean, torch.zeros_like(y_t))
        torch.testing.assert_close(step, expected, rtol=1e-8, atol=1e-8)


def test_forward_process_ends_at_its_mean() -> None:
    noising = schedule()
    y_0, noise, mean = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2), torch.full((2, 3, 2, 2), 5.0)
    t = torch.full((2, 2, 2), 400)
    alpha = noising.alphas_cumprod[400]
    expected = alpha**0.5 * y_0 + (1 - alpha**0.5) * mean + (1 - alpha) ** 0.5 * noise
    torch.testing.assert_close(noising.add_noise(y_0, noise, t, mean), expected)
    torch.testing.assert_close(
        DDIM(noising).step(expected, noise, 400, None, mean), y_0.clamp(-1, 1), rtol=1e-4, atol=1e-4
    )
    last = noising.add_noise(y_0, noise, torch.full((2, 2, 2), 999), mean)
    torch.testing.assert_close(last, mean + noise, rtol=0, atol=0.1)


def test_the_schedule_stays_exact_when_a_model_is_cast_and_back() -> None:
    model, fresh = small_model().half().float(), small_model()
    y_0, noise, t = torch.ones(1, 3, 3, 3), torch.ones(1, 3, 3, 3), torch.arange(9).reshape(1, 3, 3)
    assert torch.equal(model.schedule.add_noise(y_0, noise, t), fresh.schedule.add_noise(y_0, noise, t))
