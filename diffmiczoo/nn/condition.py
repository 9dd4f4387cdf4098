"""`Priors` and `Condition`: what the DCG, and then the denoiser, knows of a batch of images."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Priors:
    """What the DCG says of a batch of images (eq. 1-3).

    Shapes: `global_prior` ŷ_g, `local_prior` ŷ_l (B, C) logits; `saliency` (B, C, h, w) logits; `rois` (B, K, 3, r, r)
    normalised pixels; `roi_top_left` (B, K, 2) row and column in pixels; `roi_attention` α (B, K), sums to 1. Without a
    local stream ŷ_l is ŷ_g and α is 1/K. `features` (B, D) are those of the global encoder, see `DCG.pooled`; None
    where a second stage has its own, and in training.
    """

    global_prior: Tensor
    local_prior: Tensor
    saliency: Tensor
    rois: Tensor
    roi_top_left: Tensor
    roi_attention: Tensor
    features: Tensor | None = None

    @property
    def dcg_logits(self) -> Tensor:
        """The DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits."""
        return 0.5 * (self.global_prior + self.local_prior)


#: Listed once: torch.export of PyTorch 2.6 cannot follow `fields`.
_OF_PRIORS = tuple(field.name for field in fields(Priors))


@dataclass(frozen=True, kw_only=True)
class Condition(Priors):
    """All that the denoiser knows of a batch of images; computed once, used in every sampling step.

    Shapes: those of `Priors`, and `guidance_map` M (B, C, Np, Np), `feature_prior` F (B, H); `feature_logits` ŷ_F
    (B, C), None where no classifier learned from F.
    """

    guidance_map: Tensor
    feature_prior: Tensor
    feature_logits: Tensor | None = None

    @classmethod
    def of(
        cls, priors: Priors, guidance_map: Tensor, feature_prior: Tensor, feature_logits: Tensor | None = None
    ) -> Condition:
        """Adds M, F and ŷ_F to the priors of the same images."""
        known = {name: getattr(priors, name) for name in _OF_PRIORS}
        return cls(**known, guidance_map=guidance_map, feature_prior=feature_prior, feature_logits=feature_logits)

    def to(self, dtype: torch.dtype) -> Condition:
        """Returns the condition with what the denoiser uses of it in another type."""
        return replace(self, guidance_map=self.guidance_map.to(dtype), feature_prior=self.feature_prior.to(dtype))
