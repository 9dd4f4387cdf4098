"""`Condition`: what the denoiser is given of a batch of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """All that the denoiser knows of a batch of images; computed once, used in every sampling step.

    Shapes: `global_prior`, `local_prior` (B, C) logits; `guidance_map` M (B, C, Np, Np); `feature_prior` F (B, H);
    `saliency` (B, C, h, w) logits; `rois` (B, K, 3, r, r) normalised pixels; `roi_top_left` (B, K, 2) row and column
    in pixels; `roi_attention` α (B, K), sums to 1. Without a local stream ŷ_l is ŷ_g and α is 1/K.
    """

    global_prior: Tensor
    local_prior: Tensor
    guidance_map: Tensor
    feature_prior: Tensor
    saliency: Tensor
    rois: Tensor
    roi_top_left: Tensor
    roi_attention: Tensor

    def to(self, dtype: torch.dtype) -> Condition:
        """Returns the condition with what the denoiser uses of it in another type."""
        changed = {name: getattr(self, name).to(dtype) for name in ("guidance_map", "feature_prior")}
        return replace(self, **changed)

    @property
    def dcg_scores(self) -> Tensor:
        """The DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits."""
        return fused_prior({"global_prior": self.global_prior, "local_prior": self.local_prior})


def fused_prior(priors: Mapping[str, Tensor]) -> Tensor:
    """Returns the DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits, from what `DiffMICv2.priors` returns."""
    return 0.5 * (priors["global_prior"] + priors["local_prior"])
