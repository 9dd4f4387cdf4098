"""From noise to labels: the draws that a prediction starts from, and the sampler's loop (Algorithm 2, eq. 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from einops import rearrange, repeat
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.guidance import band_index, interpolate_over_points
from diffmiczoo.nn.unet_folded import FoldedUNet, can_be_folded, folded_unet

if TYPE_CHECKING:
    from diffmiczoo.model import DiffMICv2
    from diffmiczoo.nn.condition import Condition


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


def has_equal_points(config: DiffMICConfig) -> bool:
    """Returns whether noise points of equal |i - j| stay equal through sampling from a drawn start.

    M is the same for them. So is the start where it is drawn per band, and 1×1 kernels keep the points apart.
    """
    per_band = config.shared_noise or config.init == "interpolated"
    return per_band and config.kernel_size == 1 and config.sampler == "ddim"


def denoise(
    model: DiffMICv2,
    condition: Condition,
    steps: int,
    y_T: Tensor,
    step_noise: Tensor | None,
    equal_points: bool = False,
    fold: bool = True,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Runs the sampler's loop and returns the ŷ_0 map, (B, C, Np, Np), the mean over the runs (Algorithm 2).

    Args:
        model: its U-Net predicts the noise, its config names the sampler.
        condition: of B images.
        steps: S, 1..T.
        y_T: (n, B, C, Np, Np).
        step_noise: `Draws.steps`.
        equal_points: y_T is constant on |i - j|, see `has_equal_points`: each band is computed once.
        fold: fold what can be folded; without gradients, in eval mode, with 1×1 kernels.
        dtype: of the folded matrix products; the U-Net's own by default.
    """
    runs, batch = y_T.shape[:2]
    guidance_map, feature_prior = (
        tensor if runs == 1 else repeat(tensor, "b ... -> (n b) ...", n=runs)
        for tensor in (condition.guidance_map, condition.feature_prior)
    )
    timesteps = model.schedule.timesteps(steps)
    fresh = None if step_noise is None else step_noise.to(y_T).expand(-1, *y_T.shape).flatten(1, 2)
    start = y_T.flatten(0, 1)
    if fold and can_be_folded(model.unet):
        folded = folded_unet(model.unet, timesteps, dtype or model.unet.out_conv.weight.dtype)
        y = _run_folded(model, folded, timesteps, start, guidance_map, feature_prior, fresh, equal_points)
    else:

        def estimate(y_t: Tensor, step: int) -> Tensor:
            t = torch.full((1, 1, 1), timesteps[step], device=y_t.device)
            noise: Tensor = model.unet(y_t, t, guidance_map, feature_prior)
            return noise

        y = _run(model, timesteps, start, guidance_map, fresh, estimate)
    return rearrange(y, "(n b) c i j -> n b c i j", b=batch).mean(0)


def _run_folded(
    model: DiffMICv2,
    folded: FoldedUNet,
    timesteps: list[int],
    start: Tensor,
    guidance_map: Tensor,
    feature_prior: Tensor,
    fresh: Tensor | None,
    equal_points: bool,
) -> Tensor:
    """Runs the loop on rows of points; where bands are equal, on the grid's first row, which has each of them once."""

    def rows(grid: Tensor) -> Tensor:
        return rearrange(grid[..., :1, :] if equal_points else grid, "... c i j -> ... (i j) c").contiguous()

    guidance = rows(guidance_map)

    def estimate(y_t: Tensor, step: int) -> Tensor:
        return folded(y_t, step, guidance, feature_prior)

    y = _run(model, timesteps, rows(start), guidance, None if fresh is None else rows(fresh), estimate)
    if equal_points:
        y = y[:, band_index(model.config.num_points, device=y.device).flatten()]
    return rearrange(y, "b (i j) c -> b c i j", i=model.config.num_points)


def _run(
    model: DiffMICv2,
    timesteps: list[int],
    start: Tensor,
    guidance: Tensor,
    fresh: Tensor | None,
    estimate: Callable[[Tensor, int], Tensor],
) -> Tensor:
    """Walks from the start to the labels; all tensors have the start's shape, `fresh` a step in front of it."""
    mean = guidance if model.config.process_mean == "prior" else 0.0
    y = start
    for step, (t, previous_t) in enumerate(zip(timesteps, [*timesteps[1:], None], strict=True)):
        noise = estimate(y, step)
        if fresh is None or previous_t is None:
            y = model.schedule.ddim_step(y, noise, t, previous_t, mean)
        else:
            y = model.schedule.ancestral_step(y, noise, t, previous_t, fresh[step], mean)
    return y
