"""DCG model τ_D: the dual-granularity conditional guidance, a classifier of its own (section III-A, eq. 1-3)."""

from __future__ import annotations

import math
from contextlib import nullcontext
from functools import partial
from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidTypeError
from diffmiczoo.nn.condition import Priors
from diffmiczoo.nn.roi import (
    cells_to_pixels,
    crop_rois,
    roi_cells,
    roi_evidence,
    roi_margin,
    select_roi_cells,
    whole_view,
)
from diffmiczoo.runtime.cuda_graph import graphed
from diffmiczoo.runtime.folded_encoder import inference_encoder
from diffmiczoo.runtime.settings import full_precision

#: Below this saliency difference the ROI order may depend on the batch size (30 × the largest float32 error measured).
ROI_TIE_TOLERANCE = 1e-4


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

    def forward(self, images: Tensor, config: DiffMICConfig, *, batch_invariant: bool = False) -> Priors:
        """Runs both streams: saliency map and global prior, ROIs, local prior and attention (eq. 1, eq. 2, eq. 3).

        Args:
            images: (B, 3, R, R) float, as `preprocess` gives them.
            config: the model's.
            batch_invariant: compute in full precision also under autocast, and with ROIs that do not depend on the
                batch. Sampling starts from the DCG's logits and probabilities add them: rounding errors here reach the
                labels directly, sampling does not average them out.
        """
        with full_precision(images.device) if batch_invariant else nullcontext():
            whole = whole_view(images, config)
            if not batch_invariant:
                return self._from_saliency(config, images, *self._global_stream_and_features(config, whole))
            key = ("global stream", config)
            found = graphed(self, key, partial(self._global_stream_and_ties, config), whole)
            saliency, global_prior, features, ties = found
            # The one look at values between two graphs; it waits for the device.
            for row in () if ties is None else ties.nonzero().flatten().tolist():
                saliency[row : row + 1], global_prior[row : row + 1] = self.global_stream(whole[row : row + 1])
            key = ("local stream", config)
            return graphed(self, key, partial(self._from_saliency, config), images, saliency, global_prior, features)

    def _from_saliency(
        self, config: DiffMICConfig, images: Tensor, saliency: Tensor, global_prior: Tensor, features: Tensor | None
    ) -> Priors:
        """Finds the ROIs of what the global stream said of images, and runs the local stream."""
        rois, top_left = self.find_rois(images, saliency, global_prior, config)
        if self.local_encoder is None:
            even = torch.full_like(global_prior[:, :1], 1 / config.num_rois).expand(-1, config.num_rois)
            return Priors(global_prior, global_prior, saliency, rois, top_left, even, features)
        local_prior, attention = self.local_stream(rois)
        return Priors(global_prior, local_prior, saliency, rois, top_left, attention, features)

    def find_rois(
        self, images: Tensor, saliency: Tensor, global_prior: Tensor, config: DiffMICConfig
    ) -> tuple[Tensor, Tensor]:
        """Returns the ROIs (B, K, 3, r, r) and where they begin, (B, K, 2), as the global stream says."""
        top_left = roi_positions(saliency, global_prior, config)
        source = images if config.roi_channels == "rgb" else images[:, :1].expand(-1, 3, -1, -1)
        return crop_rois(source, top_left, config.roi_size), top_left

    def training_priors(self, images: Tensor, config: DiffMICConfig) -> Priors:
        """Returns the priors that the DCG stage learns from; what else `Priors` hold may be left out."""
        return self(images, config)

    def image_features(self, images: Tensor) -> Tensor:
        """Returns the global encoder's average over the positions of images (B, 3, S, S), (B, D)."""
        features: Tensor = self.global_encoder(images)
        return self.pooled(features)

    def pooled(self, features: Tensor) -> Tensor:
        """Maps what the global encoder returned to the features of an image, (B, D): the average over the positions."""
        return features.mean((2, 3))

    def global_stream(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the saliency map (B, C, h, w) and the global prior ŷ_g (B, C), both logits (eq. 1)."""
        return self.stream_of(inference_encoder(self.global_encoder, images)(images))

    def stream_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Does what `global_stream` does, from what the global encoder returned."""
        saliency = self.saliency_conv(features)
        responses = saliency.flatten(2)
        if self.saliency_top < 1:
            count = max(math.ceil(self.saliency_top * responses.shape[-1]), 1)
            responses = responses.topk(count, dim=-1).values
        return saliency, responses.mean(-1)

    def local_stream(self, rois: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ROIs (B, K, 3, r, r) to the local prior ŷ_l (B, C), logits, and their attention α (B, K) (eq. 2, eq. 3).

        Raises:
            TypeError: there is no local encoder.
        """
        if self.local_encoder is None:
            raise InvalidTypeError("this DCG has no local stream")
        patches = rearrange(rois, "b k c h w -> (b k) c h w")
        features = inference_encoder(self.local_encoder, patches)(patches).mean((2, 3))
        features = rearrange(features, "(b k) d -> b k d", b=rois.shape[0])
        attention = self.attention(features)
        pooled = (attention[..., None] * features).sum(1)
        return self.local_classifier(pooled), attention

    def _global_stream_and_features(
        self, config: DiffMICConfig, images: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns saliency, global prior, and the features of the images where no second stage has its own."""
        features = inference_encoder(self.global_encoder, images)(images)
        pooled = None if config.predictor == "diffusion" else self.pooled(features)
        return *self.stream_of(features), pooled

    def _global_stream_and_ties(
        self, config: DiffMICConfig, images: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """Does the same, and returns for which images the global stream has to be asked again alone, (B,).

        Convolutions differ in the last bits between batch sizes. If two windows tie within that error, the image (about
        1 %) is recomputed with batch size 1. Of half-precision saliency so many windows tie that it is left as it is.
        """
        saliency, global_prior, features = self._global_stream_and_features(config, images)
        if len(images) == 1 or saliency.dtype != torch.float32:
            return saliency, global_prior, features, None
        return saliency, global_prior, features, roi_ties(saliency, global_prior, config)


def roi_ties(saliency: Tensor, global_prior: Tensor, config: DiffMICConfig) -> Tensor:
    """Returns for which images two choices of ROIs tie within rounding, so that another order of sums may turn, (B,).

    Args:
        saliency: (B, C, h, w) float32.
        global_prior: (B, C), of the same images.
        config: the model's.
    """
    evidence = roi_evidence(saliency, global_prior, config)
    close = roi_margin(evidence, config.num_rois, window_of_roi(saliency, config)) < ROI_TIE_TOLERANCE
    if config.roi_saliency == "top":
        first, second = global_prior.topk(2, dim=1).values.unbind(1)
        close |= first - second < ROI_TIE_TOLERANCE
    return close


def roi_positions(saliency: Tensor, global_prior: Tensor, config: DiffMICConfig) -> Tensor:
    """Returns where the K most salient ROIs begin, (B, K, 2) row and column in pixels of the source (section III-A).

    Args:
        saliency: (B, C, h, w).
        global_prior: (B, C), of the same images.
        config: reads `num_rois`, `roi_size`, `roi_saliency` and `input_size`.
    """
    evidence = roi_evidence(saliency.detach().float(), global_prior.detach(), config)
    cells = select_roi_cells(evidence, config.num_rois, window_of_roi(saliency, config))
    return cells_to_pixels(cells, (saliency.shape[-2], saliency.shape[-1]), config.input_size)


def window_of_roi(saliency: Tensor, config: DiffMICConfig) -> int:
    """Returns how many cells of a saliency map an ROI spans."""
    return roi_cells(config.roi_size, config.input_size, saliency.shape[-2])
