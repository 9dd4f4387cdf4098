"""Images that count w times each: the sums that every metric is computed from, for many weightings at once.

A plain metric is the weighting in which each image counts once; a bootstrap resample is the weighting by how often each
image was drawn. Most metrics are ratios of sums, and one matrix product gives such a sum for all resamples. A ranking
needs its sort only once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np


@dataclass(frozen=True, eq=False)
class ScoredImages:
    """Probabilities and decisions of a model beside the truth.

    Attributes:
        probs: (N, C) float64 in [0, 1].
        truth: (N, C) bool, the labels of each image.
        decisions: (N, C) bool, the labels that the model gives it.
        task: "multiclass" (one label each) or "multilabel".
    """

    probs: np.ndarray
    truth: np.ndarray
    decisions: np.ndarray
    task: str
    _computed: dict[PerImage, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.probs)

    def per_image(self, function: PerImage) -> np.ndarray:
        """Returns `function(self)`, (N, …), computed once."""
        if function not in self._computed:
            self._computed[function] = function(self)
        return self._computed[function]

    @cached_property
    def rankings(self) -> list[Ranking]:
        """The images ranked by their probability of each class."""
        return [Ranking(*columns) for columns in zip(self.probs.T, self.truth.T, strict=True)]

    def once_each(self) -> WeightedImages:
        """Returns the images as they are: R = 1, every weight 1."""
        return WeightedImages(self, np.ones((len(self), 1)))


class WeightedImages:
    """Images under R weightings; what a metric is a function of.

    Args:
        images: N of them.
        weights: (N, R) how often each image counts, ≥ 0, with at least one image in every column.
    """

    def __init__(self, images: ScoredImages, weights: np.ndarray) -> None:
        self.images, self.weights = images, weights
        self.total: np.ndarray = weights.sum(0)
        self._sums: dict[PerImage, np.ndarray] = {}

    def sums(self, per_image: PerImage) -> np.ndarray:
        """Returns the weighted sums, (R, K), of numbers (N, K) that each image has; the same ones only once."""
        if per_image not in self._sums:
            self._sums[per_image] = self.weights.T @ self.images.per_image(per_image).astype(np.float64)
        return self._sums[per_image]

    def mean(self, per_image: PerImage) -> np.ndarray:
        """Returns the weighted means, (R,), of one number (N,) per image."""
        return self.sums(per_image) / self.total

    @property
    def hits(self) -> np.ndarray:
        """(R, C) number of images that have the label and are given it."""
        return self.sums(_hits)

    @property
    def support(self) -> np.ndarray:
        """(R, C) number of images that have the label."""
        return self.sums(_truth)

    @property
    def decided(self) -> np.ndarray:
        """(R, C) number of images that are given the label."""
        return self.sums(_decisions)

    @property
    def confusion(self) -> np.ndarray:
        """(R, C, C) number of images with true class (row) and given class (column)."""
        classes = self.images.truth.shape[1]
        return self.sums(_pairs).reshape(-1, classes, classes)

    @property
    def both_kinds(self) -> np.ndarray:
        """(R, C) bool, whether there are images with the label and images without it."""
        return (self.support > 0) & (self.support < self.total[:, None])

    def ranked(self, statistic: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """Returns a statistic of `Ranking.counts` for each class, (R, C); NaN where not `both_kinds`."""
        # Class by class: the counts of all classes at once would be C times as large as the weights.
        columns = [statistic(*ranking.counts(self.weights)) for ranking in self.images.rankings]
        return np.where(self.both_kinds, np.stack(columns, axis=1), np.nan)


class Ranking:
    """Images by falling score, with equal scores together.

    Args:
        scores: (N,).
        positive: (N,) bool.
    """

    def __init__(self, scores: np.ndarray, positive: np.ndarray) -> None:
        order = np.argsort(-scores, kind="stable")
        starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
        self._tied = partial(np.add.reduceat, indices=starts, axis=0)
        self._order, self._positive = order, positive[order][:, None]

    def counts(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weights of positives and of negatives at each of U scores, (U, R) both, highest score first."""
        ordered = weights[self._order]
        return self._tied(ordered * self._positive), self._tied(ordered * ~self._positive)


#: (N,) or (N, K) numbers, one row per image.
PerImage = Callable[[ScoredImages], np.ndarray]


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Returns numerator / denominator, NaN where the denominator is 0."""
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Returns the mean over the classes, (R, C) → (R,), without those whose value is NaN; NaN where all are."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(1), defined.sum(1))


def _hits(images: ScoredImages) -> np.ndarray:
    return images.truth & images.decisions


def _truth(images: ScoredImages) -> np.ndarray:
    return images.truth


def _decisions(images: ScoredImages) -> np.ndarray:
    return images.decisions


def _pairs(images: ScoredImages) -> np.ndarray:
    return (images.truth[:, :, None] & images.decisions[:, None]).reshape(len(images), -1)
