"""`PredictionTensors`: what a model computes for images, brought to the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.probabilities import scores_to_probs, uncertainty


@dataclass(frozen=True)
class PredictionTensors:
    """The tensors of a `Prediction`, which has their shapes and ranges; float32 on the CPU."""

    scores: Tensor
    dcg_logits: Tensor
    probs: Tensor
    uncertainty: Tensor
    rois: Tensor
    roi_attention: Tensor
    saliency: Tensor

    @classmethod
    def of(
        cls,
        scores: Tensor,
        dcg_logits: Tensor,
        rois: Tensor,
        roi_attention: Tensor,
        saliency: Tensor,
        config: DiffMICConfig,
    ) -> PredictionTensors:
        """Brings what a model computed for a batch to the CPU, and adds probabilities and uncertainty."""
        given = (scores, dcg_logits, rois, roi_attention, saliency)
        scores, dcg_logits, rois, roi_attention, saliency = _on_cpu(given)
        probs = scores_to_probs(scores, config, dcg_logits)
        return cls(scores, dcg_logits, probs, uncertainty(probs, config.task), rois, roi_attention, saliency)

    @classmethod
    def concatenated(cls, parts: Sequence[PredictionTensors]) -> PredictionTensors:
        """Puts batches one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in TENSORS))


def _on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors (B, …) as float32 on the CPU, brought there at once: every transfer waits for the device."""
    flat = torch.cat([tensor.flatten(1).float() for tensor in tensors], dim=1).cpu()
    parts = flat.split([tensor.shape[1:].numel() for tensor in tensors], dim=1)
    return [part.reshape(tensor.shape) for tensor, part in zip(tensors, parts, strict=True)]


#: Names of the tensors.
TENSORS = tuple(field.name for field in dataclasses.fields(PredictionTensors))
