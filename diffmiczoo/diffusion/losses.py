"""Algorithm 1: what the diffusion minimises (eq. 9); and the DCG's cross-entropies, minimised before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.schedule import NoiseSchedule
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.nn.condition import Condition, Priors
from diffmiczoo.nn.guidance import build_guidance_map
from diffmiczoo.nn.unet import DenoisingUNet

#: The released program weights its loss by 1 + 10 · (1 - p) (spec: `loss="focal"`).
FOCAL_WEIGHT = 10.0

#: Logits (B, C), labels (B, C), the model's config and weights (B, C) or None → the loss of one prediction, a scalar.
ClassLoss: TypeAlias = Callable[[Tensor, Tensor, DiffMICConfig, "Tensor | None"], Tensor]


def diffusion_loss(
    unet: DenoisingUNet,
    schedule: NoiseSchedule,
    config: DiffMICConfig,
    condition: Condition,
    labels: Tensor,
    drawn: TrainingNoise,
    weights: Tensor | None = None,
) -> Tensor:
    """The loss of one training step, a scalar (Algorithm 1, eq. 9).

    With `feature_loss_weight` plus the cross-entropy of ŷ_F, with `mmd_weight` plus DiffMIC (v1)'s regulariser.

    Args:
        unet: ε_θ, which learns; with it the encoders of the feature prior in `condition`.
        schedule: of the forward process.
        config: the model's.
        condition: of B images.
        labels: (B, C), one-hot or multi-hot.
        drawn: timesteps and noise for the same images, see `sample_training_noise`.
        weights: (B, C) ≥ 0, of the terms; 1 by default.
    """
    # 1. Labels y_0 of the images x, the same at each of the Np × Np noise points.
    y_0 = repeat(labels, "b c -> b c i j", i=config.num_points, j=config.num_points)
    # 2. Priors from the frozen DCG, guidance map M and feature prior F (eq. 1 to eq. 6).
    guidance_map, feature_prior = condition.guidance_map, condition.feature_prior
    # 3. t ~ U{0, …, T-1} for every noise point (the heterologous part), and 4. ε ~ N(0, I).
    t, noise = drawn.t, drawn.noise
    # 5. y_t = √ᾱ_t · y_0 + √(1 - ᾱ_t) · ε (eq. 7).
    y_t = schedule.add_noise(y_0, noise, t, schedule.mean(guidance_map))
    # 6. ||ε - ε_θ(y_t, M, F, t)||² (eq. 9); the optimiser descends its gradient.
    errors = (noise - unet(y_t, t, guidance_map, feature_prior)).square().mean((2, 3))
    error = (errors if weights is None else errors * weights).mean(1)
    loss = (error * _loss_weight(condition.dcg_logits, labels, config)).mean()
    if condition.feature_logits is not None:
        loss = loss + config.feature_loss_weight * cross_entropy(condition.feature_logits, labels, config, weights)
    if not config.mmd_weight:
        return loss
    return loss + config.mmd_weight * _mmd_of_streams(unet, schedule, config, condition, y_0, drawn)


def _mmd_of_streams(
    unet: DenoisingUNet,
    schedule: NoiseSchedule,
    config: DiffMICConfig,
    condition: Condition,
    y_0: Tensor,
    drawn: TrainingNoise,
) -> Tensor:
    """MMD(ε, ε_g) + MMD(ε, ε_l), where ε_g and ε_l are predicted with one prior alone (DiffMIC v1)."""
    distances = []
    for prior in (condition.global_prior, condition.local_prior):
        guidance_map = build_guidance_map(prior, prior, config)
        y_t = schedule.add_noise(y_0, drawn.noise, drawn.t, schedule.mean(guidance_map))
        predicted = unet(y_t, drawn.t, guidance_map, condition.feature_prior)
        distances.append(maximum_mean_discrepancy(drawn.noise.flatten(1), predicted.flatten(1)))
    return torch.stack(distances).sum()


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
    raise InvalidValueError(f"targets of a {config.task} model must be {wanted}; found {tuple(targets.shape)}")


def cross_entropy(logits: Tensor, labels: Tensor, config: DiffMICConfig, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy (multi-label: binary) of logits (B, C); labels and weights as for `dcg_loss`."""
    if config.task == "multilabel":
        return F.binary_cross_entropy_with_logits(logits, labels, weights)
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (F.cross_entropy(logits, labels, reduction="none") * weights[:, 0]).mean()


def dcg_loss(
    priors: Priors,
    labels: Tensor,
    config: DiffMICConfig,
    weights: Tensor | None = None,
    class_loss: ClassLoss = cross_entropy,
) -> Tensor:
    """Cross-entropy (multi-label: binary) of the global prior, plus that of the local prior where there is one.

    Args:
        priors: of B images.
        labels: (B, C), one-hot or multi-hot.
        config: the model's.
        weights: (B, C) ≥ 0, of the terms; in a row all equal for "multiclass". 1 by default.
        class_loss: in place of the cross-entropy, see `diffmiczoo.diffusion.class_losses`.
    """
    one_stream = config.predictor in ("global", "classifier")
    streams = [priors.global_prior] if one_stream else [priors.global_prior, priors.local_prior]
    return torch.stack([class_loss(logits.float(), labels, config, weights) for logits in streams]).sum()


@dataclass(frozen=True)
class TrainingNoise:
    """The random numbers of a training step: timesteps t (B, Np, Np) int64 and noise ε (B, C, Np, Np)."""

    t: Tensor
    noise: Tensor

    def slice(self, start: int, stop: int, device: torch.device) -> TrainingNoise:
        """Returns those of the images `start` to `stop`, on a device."""
        return TrainingNoise(self.t[start:stop].to(device), self.noise[start:stop].to(device))


def sample_training_noise(
    config: DiffMICConfig, batch: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> TrainingNoise:
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
    return TrainingNoise(t, torch.randn(shape, device=device, generator=generator))


def draw_timesteps(
    config: DiffMICConfig, batch: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Draws t ~ U{0, …, T-1}, (B, Np, Np) int64: every noise point its own (eq. 7), or one per image.

    That the points of one image are at different timesteps is what makes the diffusion heterologous.
    """
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

    Source: Gretton et al., *A Kernel Two-Sample Test*, JMLR 2012, equation 5 there; Yang et al., *DiffMIC*,
    MICCAI 2023.
    """

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (-(x[:, None] - y[None]).square().mean(-1)).exp().mean()

    first, second = first.float(), second.float()
    return kernel(first, first) - 2 * kernel(first, second) + kernel(second, second)


def _loss_weight(dcg_logits: Tensor, labels: Tensor, config: DiffMICConfig) -> Tensor | float:
    if config.loss == "mse":
        return 1.0
    if config.task == "multiclass":
        true_class = (dcg_logits.softmax(-1) * labels).sum(-1)
    else:
        probs = dcg_logits.sigmoid()
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
