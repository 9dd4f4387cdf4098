"""Image feature prior F: the whole image and its ROIs as one vector (eq. 6)."""

from __future__ import annotations

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.runtime.folded_encoder import inference_encoder
from diffmiczoo.runtime.settings import full_precision


class FeaturePrior(nn.Module):
    """Image feature prior F = Σ_k Q_k ⊙ [F_raw, F_1, …, F_K] (eq. 6).

    Without an ROI encoder F is F_raw.

    Args:
        raw_encoder: images → (B, D, h, w), with attribute `num_features`.
        roi_encoder: ROIs → (B · K, D', h', w'), with attribute `num_features`; or None.
        config: reads `latent_dim`, `num_rois`, `feature_norm`, `feature_weighting`, `feature_loss_weight` and
            `num_classes`.

    Attributes:
        classifier: F → ŷ_F, (B, C) logits; learns beside the noise loss and tells F what to keep. None without
            `feature_loss_weight`.
    """

    def __init__(self, raw_encoder: nn.Module, roi_encoder: nn.Module | None, config: DiffMICConfig) -> None:
        super().__init__()
        hidden = config.latent_dim
        self.feature_weighting = config.feature_weighting
        self.raw_encoder = raw_encoder
        self.raw_proj = nn.Linear(cast(int, raw_encoder.num_features), hidden)
        normalised = config.feature_norm == "batchnorm"
        self.raw_norm = nn.BatchNorm1d(hidden) if normalised else nn.Identity()
        self.classifier = nn.Linear(hidden, config.num_classes) if config.feature_loss_weight else None
        self.roi_encoder = roi_encoder
        if roi_encoder is None:
            return
        self.roi_proj = nn.Linear(cast(int, roi_encoder.num_features), hidden)
        self.roi_norm = nn.BatchNorm1d(hidden) if normalised else nn.Identity()
        self.Q = nn.Parameter(torch.randn(hidden, config.num_rois + 1))

    def logits(self, feature_prior: Tensor) -> Tensor | None:
        """Maps F (B, H) to ŷ_F (B, C), in full precision; None where no classifier learned from F."""
        if self.classifier is None:
            return None
        weight, bias = self.classifier.weight.float(), self.classifier.bias.float()
        with full_precision(feature_prior.device):
            return torch.nn.functional.linear(feature_prior.float(), weight, bias)

    def forward(self, images: Tensor, rois: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) and ROIs (B, K, 3, r, r) to F (B, H) (eq. 6)."""
        raw = inference_encoder(self.raw_encoder, images)(images).mean((2, 3))
        raw = _projected(raw.to(images.dtype), self.raw_proj, self.raw_norm)
        if self.roi_encoder is None:
            return raw
        patches = rearrange(rois, "b k c h w -> (b k) c h w")
        roi = inference_encoder(self.roi_encoder, patches)(patches).mean((2, 3))
        roi = _projected(roi.to(images.dtype), self.roi_proj, self.roi_norm)
        roi = rearrange(roi, "(b k) h -> b h k", b=rois.shape[0])
        weights = self.Q.softmax(-1) if self.feature_weighting == "softmax" else self.Q
        return (weights * torch.cat([raw[:, :, None], roi], dim=-1)).sum(-1)


def _projected(mean: Tensor, proj: nn.Linear, norm: nn.Module) -> Tensor:
    """Maps mean features (N, D) to (N, H), in full precision also under autocast: all noise points share them.

    A 1×1 convolution and a mean over positions commute: projecting the mean costs h · w times less.
    """
    with full_precision(mean.device):
        projected: Tensor = norm(proj(mean))
    return projected
