"""DCG model τ_D: the dual-granularity conditional guidance, a classifier of its own (section III-A, eq. 1-3)."""

from __future__ import annotations

import math
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.runtime.folded_encoder import as_inferred


class GatedAttention(nn.Module):
    """Gated attention over the ROIs of an image, α = softmax_k(wᵀ(tanh(V r_k) ⊙ sigm(U r_k))) (eq. 2).

    Shape: (B, K, D) features → (B, K) weights that sum to 1.

    Source: Ilse, Tomczak, Welling, *Attention-based Deep Multiple Instance Learning*, 2018.
    """

    def __init__(self, num_features: int, hidden: int) -> None:
        super().__init__()
        self.V = nn.Linear(num_features, hidden, bias=False)
        self.U = nn.Linear(num_features, hidden, bias=False)
        self.w = nn.Linear(hidden, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (B, K, D) to attention weights (B, K)."""
        gated = torch.tanh(self.V(features)) * torch.sigmoid(self.U(features))
        return rearrange(self.w(gated), "b k 1 -> b k").softmax(-1)


class DCG(nn.Module):
    """Global stream (saliency map, global prior) and local stream (attended ROIs, local prior).

    Without a local encoder there is no local stream, and what is left is a plain classifier: a linear layer after
    global average pooling commutes with a 1×1 convolution before it.

    Args:
        global_encoder: τ_g, images → (B, D, h, w), with attribute `num_features` = D.
        local_encoder: τ_l, ROIs → (B · K, D', h', w'), with attribute `num_features` = D'; or None.
        config: reads `num_classes`, `attention_dim` and `saliency_top`.
    """

    def __init__(self, global_encoder: nn.Module, local_encoder: nn.Module | None, config: DiffMICConfig) -> None:
        super().__init__()
        self.saliency_top = config.saliency_top
        self.global_encoder = global_encoder
        self.saliency_conv = nn.Conv2d(cast(int, global_encoder.num_features), config.num_classes, 1, bias=False)
        self.local_encoder = local_encoder
        if local_encoder is None:
            return
        local_features = cast(int, local_encoder.num_features)
        self.attention = GatedAttention(local_features, config.attention_dim)
        self.local_classifier = nn.Linear(local_features, config.num_classes, bias=False)

    def global_stream(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the saliency map (B, C, h, w) and the global prior ŷ_g (B, C), both logits (eq. 1)."""
        saliency = self.saliency_conv(as_inferred(self.global_encoder, images)(images))
        responses = saliency.flatten(2)
        if self.saliency_top < 1:
            count = max(math.ceil(self.saliency_top * responses.shape[-1]), 1)
            responses = responses.topk(count, dim=-1).values
        return saliency, responses.mean(-1)

    def local_stream(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ROIs (B, K, 3, r, r) to the local prior ŷ_l (B, C), logits, and their attention α (B, K) (eq. 2-3).

        Raises:
            TypeError: there is no local encoder.
        """
        if self.local_encoder is None:
            raise TypeError("this DCG has no local stream")
        patches = rearrange(rois, "b k c h w -> (b k) c h w")
        features = as_inferred(self.local_encoder, patches)(patches).mean((2, 3))
        features = rearrange(features, "(b k) d -> b k d", b=rois.shape[0])
        attention = self.attention(features)
        pooled = (attention[..., None] * features).sum(1)
        return self.local_classifier(pooled), attention
