"""Test-time augmentation: the mean of what a model says of a picture, its mirror images and its quarter turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffmiczoo.nn.condition import Priors

#: Name → (quarter turns, dimensions that are flipped) of each view, the picture as it is first.
VIEWS: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "none": ((0, ()),),
    "hflip": ((0, ()), (0, (-1,))),
    "flips": tuple((0, flipped) for flipped in ((), (-1,), (-2,), (-2, -1))),
    "rotations": tuple((turns, flipped) for turns in range(4) for flipped in ((), (-1,))),
}


@dataclass(frozen=True)
class Answer:
    """What probabilities are made from, for B images.

    Shapes: `scores` (B, C); `feature_logits` ŷ_F (B, C), or (B, 0) where no classifier learned from F; `priors`;
    `features` F (B, H), None where there is none; `spread` (B, C), see `diffusion.sampling.scores_of`, None where there
    are no runs to compare.
    """

    scores: Tensor
    priors: Priors
    feature_logits: Tensor
    features: Tensor | None = None
    spread: Tensor | None = None


def views_of(images: Tensor, tta: str) -> list[Tensor]:
    """Returns the views of a batch of squares (B, 3, S, S) in the batch's memory layout, itself first.

    Args:
        images: squares, so that a quarter turn has the same shape.
        tta: a name of `VIEWS`.
    """
    last = images.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    turned = [images.rot90(turns, (-2, -1)).flip(dims) for turns, dims in VIEWS[tta][1:]]
    return [images, *(view.contiguous(memory_format=layout) for view in turned)]


def mean_over_views(images: Tensor, tta: str, compute: Callable[[Tensor], Answer]) -> Answer:
    """Returns what a model says of images, the mean over their views of what probabilities are made from.

    Saliency, ROIs, attention, features and spread are those of the picture as it is. One view is computed after the
    other: the memory is that of one.

    Args:
        images: (B, 3, S, S), preprocessed.
        tta: a name of `VIEWS`.
        compute: what a model says of a view.
    """
    first, *others = views_of(images, tta)
    answer = compute(first)
    if not others:
        return answer
    sums = _averaged_parts(answer)
    for view in others:
        sums = [total + part for total, part in zip(sums, _averaged_parts(compute(view)), strict=True)]
    scores, feature_logits, global_prior, local_prior = (total / (1 + len(others)) for total in sums)
    priors = replace(answer.priors, global_prior=global_prior, local_prior=local_prior)
    return Answer(scores, priors, feature_logits, answer.features, answer.spread)


def _averaged_parts(answer: Answer) -> list[Tensor]:
    return [answer.scores, answer.feature_logits, answer.priors.global_prior, answer.priors.local_prior]
