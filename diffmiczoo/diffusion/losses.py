"""What the two stages minimise: the DCG's cross-entropies and the diffusion's noise estimation (Algorithm 1, eq. 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.guidance import build_guidance_map

if TYPE_CHECKING:
    from diffmiczoo.model import DiffMICv2
    from diffmiczoo.nn.condition import Condition

#: The released program weights its loss by 1 + 10 · (1 - p) (spec: `loss="focal"`).
FOCAL_WEIGHT = 10.0


def label_vectors(targets: Tensor, config: DiffMICConfig) -> Tensor:
    """Returns y_0, (B, C) float: one-hot or multi-hot.

    Args:
        targets: (B,) class numbers, or (B, C) with 0..1 per class.
        config: the model's.

    Raises:
        ValueError: `targets` has another shape.
    """
    classes = config.num_classes
    if targets.ndim == 2 and targets.shape[1] == classes:
        return targets.float()
    if targets.ndim == 1 and config.task == "multiclass":
        return torch.eye(classes, device=targets.device)[targets]
    wanted = f"(B, {classes})" + (" or (B,)" if config.task == "multiclass" else "")
    raise ValueError(f"targets of a {config.task} model must be {wanted}; found {tuple(targets.shape)}")


def dcg_loss(priors: dict[str, Tensor], labels: Tensor, config: DiffMICConfig, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy (multi-label: binary) of the global prior, plus that of the local prior where there is one.

    Args:
        priors: what `DiffMICv2.priors` returns.
        labels: (B, C), one-hot or multi-hot.
        config: the model's.
        weights: (B, C) ≥ 0, of the terms; in a row all equal for "multiclass". 1 by default.
    """
    streams = ("global_prior",) if config.predictor == "global" else ("global_prior", "local_prior")
    return torch.stack([_cross_entropy(priors[stream].float(), labels, config, weights) for stream in streams]).sum()


def _cross_entropy(logits: Tensor, labels: Tensor, config: DiffMICConfig, weights: Tensor | None) -> Tensor:
    if config.task == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, labels, weights)
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (F.cross_entropy(logits, labels, reduction="none") * weights[:, 0]).mean()


@dataclass(frozen=True)
class Draws:
    """The random numbers of a training step: timesteps (B, Np, Np) int64 and noise (B, C, Np, Np)."""

    t: Tensor
    noise: Tensor

    def share(self, start: int, stop: int, device: torch.device) -> Draws:
        """Returns those of the images `start` to `stop`, on a device."""
        return Draws(self.t[start:stop].to(device), self.noise[start:stop].to(device))


def draw(
    config: DiffMICConfig, batch: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Draws:
    """Draws a timestep and a noise value for every noise point of every image (eq. 7).

    Args:
        config: the model's.
        batch: images.
        generator: of the device; the global one by default.
        device: where to.
    """
    points = config.num_points
    t = draw_timesteps(config, batch, device or torch.device("cpu"), generator)
    shape = (batch, config.num_classes, points, points)
    return Draws(t, torch.randn(shape, device=device, generator=generator))


def diffusion_loss(
    model: DiffMICv2, condition: Condition, labels: Tensor, draws: Draws, weights: Tensor | None = None
) -> Tensor:
    """Squared error of the estimated noise (eq. 7, 9), with `mmd_weight` plus the regulariser of DiffMIC (v1).

    Args:
        model: estimates the noise.
        condition: of B images.
        labels: (B, C), one-hot or multi-hot.
        draws: of the same images, see `draw`.
        weights: (B, C) ≥ 0, of the terms; 1 by default.
    """
    config, points, t, noise = model.config, model.config.num_points, draws.t, draws.noise
    y_0 = repeat(labels, "b c -> b c i j", i=points, j=points)

    def estimate(guidance_map: Tensor) -> Tensor:
        mean = guidance_map if config.process_mean == "prior" else 0.0
        y_t = model.schedule.add_noise(y_0, noise, t, mean)
        estimated: Tensor = model.unet(y_t, t, guidance_map, condition.feature_prior)
        return estimated

    errors = (noise - estimate(condition.guidance_map)).square().mean((2, 3))
    error = (errors if weights is None else errors * weights).mean(1)
    loss = (error * _loss_weight(condition.dcg_scores, labels, config)).mean()
    if not config.mmd_weight:
        return loss
    streams = [build_guidance_map(prior, prior, config) for prior in (condition.global_prior, condition.local_prior)]
    distances = [maximum_mean_discrepancy(noise.flatten(1), estimate(stream).flatten(1)) for stream in streams]
    return loss + config.mmd_weight * torch.stack(distances).sum()


def draw_timesteps(
    config: DiffMICConfig, batch: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draws the timesteps of a training step, (B, Np, Np) int64 in 0..T-1: one per noise point, or one per image."""
    points = config.num_points if config.heterologous else 1
    t = torch.randint(config.num_train_timesteps, (batch, points, points), device=device, generator=generator)
    return t.expand(-1, config.num_points, config.num_points)


def maximum_mean_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples with the kernel exp(-|x - y|² / D), biased estimate.

    The paper of DiffMIC (v1) names the kernel Gaussian and gives no width; 2σ² = D keeps its exponent of order one for
    standard normal vectors of any size.

    Args:
        first: (B, D).
        second: (B, D).

    Returns:
        Scalar ≥ 0; 0 for equal samples.

    Source: Gretton et al., *A Kernel Two-Sample Test*, JMLR 2012, eq. 5; Yang et al., *DiffMIC*, MICCAI 2023.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-(x[:, None] - y[None]).square().mean(-1)).exp().mean()

    first, second = first.float(), second.float()
    return kernel(first, first) - 2 * kernel(first, second) + kernel(second, second)


def _loss_weight(dcg_scores: Tensor, labels: Tensor, config: DiffMICConfig) -> Tensor | float:
    if config.loss == "mse":
        return 1.0
    if config.task == "multiclass":
        true_class = (dcg_scores.softmax(-1) * labels).sum(-1)
    else:
        probs = dcg_scores.sigmoid()
        true_class = (labels * probs + (1 - labels) * (1 - probs)).mean(-1)
    return 1 + FOCAL_WEIGHT * (1 - true_class)


class Balance:
    """Weights that make rare classes count as much as frequent ones; their mean over the training images is 1.

    Multi-class: N / (C · N_c) for an image of class c. Multi-label: N / (2 · N_c) where an image shows c, else
    N / (2 · (N - N_c)), for each label on its own. Classes without an image (or without one that lacks it) weigh 0.

    Args:
        targets: (N,) class numbers, or (N, C) of 0 and 1, of all training images.
        config: the model's.
    """

    def __init__(self, targets: Tensor, config: DiffMICConfig) -> None:
        self.task = config.task
        labels = label_vectors(targets, config)
        share = labels.mean(0)
        kinds = int((share > 0).sum()) if self.task == "multiclass" else 2
        self.present = torch.where(share > 0, 1 / (kinds * share), 0.0)
        self.absent = torch.where(share < 1, 1 / (kinds * (1 - share)), 0.0)

    def __call__(self, labels: Tensor) -> Tensor:
        """Returns the weights (B, C) of labels (B, C) of 0..1."""
        present = self.present.to(labels)
        if self.task == "multiclass":
            return (labels @ present)[:, None].expand_as(labels)
        return labels * present + (1 - labels) * self.absent.to(labels)
