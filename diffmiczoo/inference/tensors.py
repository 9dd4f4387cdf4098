"""`PredictionTensors`: what a model computes for images, brought to the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.inference.probabilities import scores_to_probs, uncertainty
from diffmiczoo.inference.views import Answer, mean_over_views
from diffmiczoo.runtime.settings import Runtime, using
from diffmiczoo.trust.gate import Gate


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictionTensors:
    """The tensors of a prediction of B images; float32 on the CPU.

    Attributes:
        scores: (B, C) means of the sampler's ŷ_0 map, about 0..1; logits where the DCG predicts alone.
        global_logits: (B, C) ŷ_g, the prior of the whole image.
        local_logits: (B, C) ŷ_l, the prior of the ROIs; ŷ_g without a local stream.
        feature_logits: (B, C) ŷ_F, of the classifier on F; (B, 0) where there is none.
        probs: (B, C) in [0, 1], see `diffmiczoo.inference.probabilities.scores_to_probs`.
        uncertainty: (B,) in [0, 1], 0 = sure, 1 = knows nothing, see `inference.probabilities.uncertainty`.
        rois: (B, K, 4) left, top, right, bottom in pixels of the model's S×S input; right and bottom are exclusive.
        roi_attention: (B, K) in [0, 1], rows sum to 1.
        saliency: (B, C, h, w) logits.
        ood_score: (B,) distance from the training pictures, above 1 unlike them, see `trust.gate`; None without a gate.
        spread: (B, C) standard deviation of the scores over the runs of the sampler; None with one run or
            without a sampler. It does not rank errors: take `uncertainty` for that.
    """

    scores: Tensor
    global_logits: Tensor
    local_logits: Tensor
    feature_logits: Tensor
    probs: Tensor
    uncertainty: Tensor
    rois: Tensor
    roi_attention: Tensor
    saliency: Tensor
    ood_score: Tensor | None = None
    spread: Tensor | None = None

    @property
    def members(self) -> Tensor:
        """(B, M, C) logits of what the pool adds to the scores, in the order of `DiffMICConfig.pool_weights`."""
        return pool_members(self.global_logits, self.local_logits, self.feature_logits)

    @property
    def dcg_logits(self) -> Tensor:
        """(B, C) the DCG's own prediction 0.5 · (ŷ_g + ŷ_l), logits."""
        return 0.5 * (self.global_logits + self.local_logits)


def computed_tensors(
    squares: Tensor,
    config: DiffMICConfig,
    like: Tensor,
    runtime: Runtime,
    tta: str,
    compute: Callable[[Tensor], Answer],
    gate: Gate | None = None,
) -> PredictionTensors:
    """Runs a model on squares: one transfer to its device, a byte per pixel where they are bytes, and one back.

    Args:
        squares: (B, 3, S, S), uint8 or float in [0, 1], on the CPU.
        config: the model's.
        like: a tensor on the model's device and of its type.
        runtime: what computes faster.
        tta: a name of `inference.views.VIEWS`.
        compute: what the model says of normalised images.
        gate: of the weights.
    """
    with torch.inference_mode(), using(runtime, like.device):
        if like.is_cuda and not squares.is_cuda:
            # From pinned memory the host does not wait for the copy. The allocator keeps it until the copy is done.
            squares = squares.pin_memory()
        images = normalize(squares.to(like.device, non_blocking=True), config).to(like)
        if runtime.channels_last:
            images = images.to(memory_format=torch.channels_last)
        return prediction_tensors(mean_over_views(images, tta, compute), config, gate)


def prediction_tensors(answer: Answer, config: DiffMICConfig, gate: Gate | None = None) -> PredictionTensors:
    """Brings what a model computed for a batch to the CPU, and adds probabilities and uncertainty.

    Args:
        answer: of B images.
        config: the model's.
        gate: of the weights.
    """
    priors = answer.priors
    left_top = priors.roi_top_left.flip(-1)
    computed = {
        "scores": answer.scores,
        "global_logits": priors.global_prior,
        "local_logits": priors.local_prior,
        "feature_logits": answer.feature_logits,
        "rois": torch.cat([left_top, left_top + config.roi_size], dim=-1),
        "roi_attention": priors.roi_attention,
        "saliency": priors.saliency,
    }
    if gate is not None and answer.features is not None:
        computed["features"] = answer.features
    if answer.spread is not None:
        computed["spread"] = answer.spread
    moved = dict(zip(computed, _on_cpu(list(computed.values())), strict=True))
    members = pool_members(moved["global_logits"], moved["local_logits"], moved["feature_logits"])
    probs = scores_to_probs(moved["scores"], config, members)
    features = moved.pop("features", None)
    far = None if gate is None or features is None else torch.from_numpy(gate.score(features.numpy()))
    return PredictionTensors(**moved, probs=probs, uncertainty=uncertainty(probs, config.task), ood_score=far)


def pool_members(global_logits: Tensor, local_logits: Tensor, feature_logits: Tensor) -> Tensor:
    """Stacks the members of the pool, (B, M, C), in the order of `DiffMICConfig.pool_weights`.

    Args:
        global_logits: (B, C).
        local_logits: (B, C).
        feature_logits: (B, C), or (B, 0) where no classifier learned from F.
    """
    third = [feature_logits] if feature_logits.shape[1] else []
    return torch.stack([global_logits, local_logits, *third], dim=1)


def concatenated(parts: Sequence[PredictionTensors]) -> PredictionTensors:
    """Puts batches one after the other."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    names = [name for name in TENSORS if getattr(first, name) is not None]
    return PredictionTensors(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def selected(tensors: PredictionTensors, rows: list[int]) -> dict[str, Any]:
    """Returns the tensors of some images, by name; without those that are None."""
    index = torch.tensor(rows, dtype=torch.long)
    return {name: getattr(tensors, name)[index] for name in TENSORS if getattr(tensors, name) is not None}


def _on_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns tensors (B, …) as float32 on the CPU, brought there at once: every transfer waits for the device."""
    flat = torch.cat([tensor.flatten(1).float() for tensor in tensors], dim=1).cpu()
    parts = flat.split([tensor.shape[1:].numel() for tensor in tensors], dim=1)
    return [part.reshape(tensor.shape) for tensor, part in zip(tensors, parts, strict=True)]


#: Names of the tensors.
TENSORS = tuple(field.name for field in dataclasses.fields(PredictionTensors))
