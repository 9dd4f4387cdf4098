"""Algorithm 2: from noise to labels, and the random numbers that it starts from (eq. 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import repeat
from torch import Tensor

from diffmiczoo.config import MOST_NOISE, DiffMICConfig
from diffmiczoo.diffusion.samplers import Sampler
from diffmiczoo.nn.condition import Condition
from diffmiczoo.nn.guidance import band_index, interpolate_over_points
from diffmiczoo.nn.unet import DenoisingUNet
from diffmiczoo.nn.unet_folded import can_be_folded, folded_unet
from diffmiczoo.runtime.modes import seeded_generator
from diffmiczoo.runtime.settings import current

#: ε_θ: (y_t, t, M, F) → noise.
Denoiser = Callable[[Tensor, int, Tensor, Tensor], Tensor]


def sampling_loop(
    unet: Denoiser,
    sampler: Sampler,
    timesteps: list[int],
    y_T: Tensor,
    guidance_map: Tensor,
    feature_prior: Tensor,
    mean: Tensor | float,
    step_noise: Tensor | None = None,
) -> Tensor:
    """Walks from noise y_T to the ŷ_0 map, (B, C, Np, Np) (Algorithm 2).

    Args:
        unet: ε_θ, plain or folded.
        sampler: one step of it, see `diffusion.samplers`.
        timesteps: t_S > … > t_1, as the sampler chose them.
        y_T: (B, C, Np, Np), the start.
        guidance_map: M, same shape.
        feature_prior: F, (B, H).
        mean: what the forward process ends at, 0 or M.
        step_noise: (S - 1, B, C, Np, Np) standard normal, where the sampler needs noise.
    """
    # 1. y_T ~ N(0, I), or N(M, I) with init="guided" (eq. 10): `draw_initial_noise`, `initial_sample`.
    y = y_T
    # The last step goes to the clean labels and adds no noise.
    prev_timesteps = [*timesteps[1:], None]
    fresh = [None] * len(timesteps) if step_noise is None else [*step_noise, None]
    # 2. For t = t_S, …, t_1:
    for t, prev_t, variance_noise in zip(timesteps, prev_timesteps, fresh, strict=True):
        # 3. ε̂ = ε_θ(y_t, M, F, t) (eq. 8); every noise point has the same t.
        noise = unet(y, t, guidance_map, feature_prior)
        # 4. The sampler's y_s from x̂_0 = (y_t - √(1 - ᾱ_t) · ε̂) / √ᾱ_t and ε̂.
        y = sampler.step(y, noise, t, prev_t, mean, variance_noise)
    # 5. ŷ_0; its mean over the noise points are the scores.
    return y


def denoise_runs(
    unet: DenoisingUNet,
    sampler: Sampler,
    condition: Condition,
    steps: int,
    y_T: Tensor,
    step_noise: Tensor | None = None,
    *,
    equal_points: bool = False,
) -> Tensor:
    """Runs the sampling loop for several runs at once and returns the ŷ_0 map of each, (n, B, C, Np, Np).

    Args:
        unet: predicts the noise; folded where the current `Runtime` asks for it and it can be.
        sampler: of the model, over its schedule.
        condition: of B images.
        steps: S, 1..T.
        y_T: (n, B, C, Np, Np).
        step_noise: `SamplingNoise.step_noise`.
        equal_points: y_T is constant on bands of equal |i - j|, see `points_share_bands`.
    """
    runs, points = y_T.shape[0], y_T.shape[-1]
    timesteps = sampler.timesteps(steps)
    guidance_map, feature_prior = (
        tensor if runs == 1 else repeat(tensor, "b ... -> (n b) ...", n=runs)
        for tensor in (condition.guidance_map, condition.feature_prior)
    )
    noise = None if step_noise is None else step_noise.to(y_T).expand(-1, *y_T.shape).flatten(1, 2)
    y = y_T.flatten(0, 1)
    denoiser: Denoiser = unet
    if is_folded := current().fold and can_be_folded(unet):
        denoiser = folded_unet(unet, timesteps)
    # The first row of the grid holds each band once.
    once = is_folded and equal_points and current().equal_points
    if once:
        y, guidance_map = y[..., :1, :], guidance_map[..., :1, :]
    if is_folded:
        y, guidance_map = _channels_last(y), _channels_last(guidance_map)
    y = sampling_loop(
        denoiser, sampler, timesteps, y, guidance_map, feature_prior, sampler.schedule.mean(guidance_map), noise
    )
    if once:
        y = y[..., 0, :][..., band_index(points, device=y.device)]
    return y.unflatten(0, (runs, -1))


def _channels_last(grid: Tensor) -> Tensor:
    # Points are then rows of matrices without a copy in each step.
    return grid.contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------------- the random numbers of a prediction


@dataclass(frozen=True)
class SamplingNoise:
    """The random numbers of a prediction; B is 1 where all images share them.

    Shapes: `initial` (n, B, C, Np, Np) for n runs; `step_noise` (S - 1, n, B, C, Np, Np), what a sampler adds after
    each of S steps but the last, None for one that adds nothing.
    """

    initial: Tensor
    step_noise: Tensor | None

    def to(self, like: Tensor) -> SamplingNoise:
        """Returns the numbers on the device and of the type of a tensor."""
        return SamplingNoise(self.initial.to(like), None if self.step_noise is None else self.step_noise.to(like))


def draw_sampling_noise(
    config: DiffMICConfig, sampler: Sampler, steps: int, num_samples: int, batch: int, generator: torch.Generator
) -> SamplingNoise:
    """Draws the random numbers of a prediction in `steps` steps, on the generator's device."""
    initial = draw_initial_noise(config, num_samples, batch, generator)
    if not sampler.needs_noise:
        return SamplingNoise(initial, None)
    shape = (steps - 1, num_samples, batch, config.num_classes, config.num_points, config.num_points)
    return SamplingNoise(initial, torch.randn(shape, generator=generator, device=generator.device))


def fixed_noise(config: DiffMICConfig, sampler: Sampler) -> SamplingNoise:
    """Returns the numbers that all predictions of a model share unless others are drawn, on the CPU.

    They are computed with the model and not when it predicts, since an exported program would draw others in each call.
    Where they were too many to be held, `step_noise` is None.
    """
    steps, runs = config.sampling_steps, config.num_samples
    if sampler.needs_noise and steps * runs * config.num_classes * config.num_points**2 <= MOST_NOISE:
        return draw_sampling_noise(config, sampler, steps, runs, 1, seeded_generator(0))
    return SamplingNoise(draw_initial_noise(config, runs, 1, seeded_generator(0)), None)


def draw_initial_noise(config: DiffMICConfig, num_samples: int, batch: int, generator: torch.Generator) -> Tensor:
    """Draws what sampling starts from, (num_samples, batch, C, Np, Np), on the generator's device (eq. 10).

    Gaussian per noise point; per band of equal |i - j| with `shared_noise`; for `init="interpolated"` two
    uniform(0, 1) vectors spread like the guidance map. `init="guided"` adds the guidance map when it is known.
    """
    points, lead = config.num_points, (num_samples, batch, config.num_classes)
    device = generator.device
    if config.init == "interpolated":
        diagonal = torch.rand(lead, generator=generator, device=device)
        corner = torch.rand(lead, generator=generator, device=device)
        return interpolate_over_points(diagonal, corner, points)
    if config.shared_noise:
        bands = torch.randn(*lead, points, generator=generator, device=device)
        return bands[..., band_index(points, device=device)]
    return torch.randn(*lead, points, points, generator=generator, device=device)


def initial_sample(config: DiffMICConfig, condition: Condition, noise: Tensor) -> Tensor:
    """Returns y_T for every run and image, (n, B, C, Np, Np), from noise (n, B or 1, C, Np, Np) (eq. 10)."""
    noise = noise.to(condition.guidance_map).expand(-1, *condition.guidance_map.shape)
    return noise + condition.guidance_map if config.init == "guided" else noise


def scores_of(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what several runs of the sampler say together, and how far they are apart; both (B, C).

    Args:
        runs: (n, B, C, Np, Np), the ŷ_0 map of each.

    Returns:
        The mean over noise points and runs, and the standard deviation of the runs' means over noise points (divided
        by n, so that it is 0 for one run).
    """
    return runs.mean(0).mean((2, 3)), runs.mean((3, 4)).std(0, correction=0)


def points_share_bands(config: DiffMICConfig, sampler: Sampler) -> bool:
    """Returns whether noise points of equal |i - j| stay equal through sampling from a drawn start.

    M is the same for them. So is the start where it is drawn per band, and 1×1 kernels keep the points apart.
    """
    per_band = config.shared_noise or config.init == "interpolated"
    return per_band and config.kernel_size == 1 and not sampler.needs_noise
