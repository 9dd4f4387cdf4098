"""From noise to labels: the draws that a prediction starts from, and the sampler's loop (Algorithm 2, eq. 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.guidance import band_index, interpolate_over_points

if TYPE_CHECKING:
    from diffmiczoo.model import Condition, DiffMICv2


@dataclass(frozen=True)
class Draws:
    """The random numbers of a prediction; B is 1 where all images share them.

    Shapes: `start` (n, B, C, Np, Np) for n runs; `steps` (S - 1, n, B, C, Np, Np), what ancestral sampling adds after
    each of S steps but the last, None for DDIM.
    """

    start: Tensor
    steps: Tensor | None

    def to(self, like: Tensor) -> Draws:
        """Returns the draws on the device and of the type of a tensor."""
        return Draws(self.start.to(like), None if self.steps is None else self.steps.to(like))


def draw(config: DiffMICConfig, steps: int, num_samples: int, batch: int, generator: torch.Generator) -> Draws:
    """Draws the random numbers of a prediction in `steps` steps, on the generator's device."""
    start = draw_start(config, num_samples, batch, generator)
    if config.sampler == "ddim":
        return Draws(start, None)
    shape = (steps - 1, num_samples, batch, config.num_classes, config.num_points, config.num_points)
    return Draws(start, torch.randn(shape, generator=generator, device=generator.device))


def draw_start(config: DiffMICConfig, num_samples: int, batch: int, generator: torch.Generator) -> Tensor:
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


def start_from(config: DiffMICConfig, condition: Condition, noise: Tensor) -> Tensor:
    """Returns y_T for every run and image, (n, B, C, Np, Np), from noise (n, B or 1, C, Np, Np)."""
    noise = noise.to(condition.guidance_map).expand(-1, *condition.guidance_map.shape)
    return noise + condition.guidance_map if config.init == "guided" else noise


def denoise(model: DiffMICv2, condition: Condition, steps: int, y_T: Tensor, step_noise: Tensor | None) -> Tensor:
    """Runs the sampler's loop and returns the ŷ_0 map, (B, C, Np, Np), the mean over the runs (Algorithm 2).

    Args:
        model: its U-Net predicts the noise, its config names the sampler.
        condition: of B images.
        steps: S, 1..T.
        y_T: (n, B, C, Np, Np).
        step_noise: `Draws.steps`.
    """
    runs, batch = y_T.shape[:2]
    guidance_map, feature_prior = (
        tensor if runs == 1 else repeat(tensor, "b ... -> (n b) ...", n=runs)
        for tensor in (condition.guidance_map, condition.feature_prior)
    )
    mean = guidance_map if model.config.process_mean == "prior" else 0.0
    fresh = [None] * steps if step_noise is None else [*step_noise.to(y_T).expand(-1, *y_T.shape), None]
    timesteps = model.schedule.timesteps(steps)
    y = rearrange(y_T, "n b c i j -> (n b) c i j")
    for t, previous_t, added in zip(timesteps, [*timesteps[1:], None], fresh, strict=True):
        noise = model.unet(y, torch.full((1, 1, 1), t, device=y.device), guidance_map, feature_prior)
        if added is None or previous_t is None:
            y = model.schedule.ddim_step(y, noise, t, previous_t, mean)
        else:
            y = model.schedule.ancestral_step(
                y, noise, t, previous_t, rearrange(added, "n b c i j -> (n b) c i j"), mean
            )
    return rearrange(y, "(n b) c i j -> n b c i j", b=batch).mean(0)
