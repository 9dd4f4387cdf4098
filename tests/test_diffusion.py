from __future__ import annotations

import math

import pytest
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion import NoiseSchedule


def schedule(**fields) -> NoiseSchedule:
    return NoiseSchedule(DiffMICConfig(**fields))


def test_alpha_bar_is_the_product_of_one_minus_beta() -> None:
    table, product = schedule().alpha_table, 1.0
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
        alpha = noising.alpha_table[t[b, i, j]]
        expected = alpha**0.5 * y_0[b, :, i, j] + (1 - alpha) ** 0.5 * noise[b, :, i, j]
        torch.testing.assert_close(noisy[b, :, i, j], expected)


def test_ddim_inverts_the_forward_process_when_the_noise_is_known() -> None:
    noising = schedule(clip_sample=False)
    y_0, noise = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    y_t = noising.add_noise(y_0, noise, torch.full((2, 2, 2), 700))
    torch.testing.assert_close(noising.ddim_step(y_t, noise, 700, None), y_0, rtol=1e-4, atol=1e-4)
    earlier = noising.add_noise(y_0, noise, torch.full((2, 2, 2), 300))
    torch.testing.assert_close(noising.ddim_step(y_t, noise, 700, 300), earlier, rtol=1e-4, atol=1e-4)


def test_clipping_keeps_the_networks_own_noise() -> None:
    noising = schedule()
    y_t, noise = torch.full((1, 1, 1, 1), 9.0), torch.full((1, 1, 1, 1), 0.5)
    alpha = noising.alpha_table[100]
    expected = alpha**0.5 * 1.0 + (1 - alpha) ** 0.5 * 0.5
    assert noising.ddim_step(y_t, noise, 500, 100).item() == pytest.approx(expected, rel=1e-5)


def test_the_published_sums_of_diffusers_test_suite() -> None:
    """`diffusers` tests its DDIM scheduler with this model, sample and sums (linear β, 10 steps, η = 0, clipped)."""
    noising = schedule()
    sample = (torch.arange(768).reshape(3, 8, 8, 4) / 768).permute(3, 0, 1, 2)
    steps = noising.timesteps(10)
    for t, previous_t in zip(steps, [*steps[1:], None], strict=True):
        sample = noising.ddim_step(sample, sample * t / (t + 1), t, previous_t)
    assert sample.abs().sum().item() == pytest.approx(172.0067, abs=1e-2)
    assert sample.abs().mean().item() == pytest.approx(0.223967, abs=1e-3)
