"""Test-time augmentation: the mean of what a model says of a picture, its mirror images and its quarter turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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

#: Preprocessed images (B, 3, S, S) → their scores (B, C) and priors.
ScoredPriors = Callable[[Tensor], tuple[Tensor, Priors]]


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


def mean_over_views(images: Tensor, tta: str, compute: ScoredPriors) -> tuple[Tensor, Priors]:
    """Returns scores and priors of images, the means over their views of what probabilities are made from.

    Saliency, ROIs and attention are those of the picture as it is. One view is computed after the other: the memory is
    that of one.

    Args:
        images: (B, 3, S, S), preprocessed.
        tta: a name of `VIEWS`.
        compute: what a model says of a view.
    """
    first, *others = views_of(images, tta)
    scores, priors = compute(first)
    if not others:
        return scores, priors
    sums = [scores, priors.global_prior, priors.local_prior]
    for view in others:
        again, more = compute(view)
        sums = [total + part for total, part in zip(sums, (again, more.global_prior, more.local_prior), strict=True)]
    scores, global_prior, local_prior = (total / (1 + len(others)) for total in sums)
    return scores, replace(priors, global_prior=global_prior, local_prior=local_prior)
