"""Confidence intervals: the same metrics for a thousand resamples at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffmiczoo.metrics.calibration import BINS, bin_of

# How many weights are in memory at once; 16 MB, and a few arrays of that size.
_CHUNK = 2_000_000


class WeightedMetrics:
    """The metrics of images that count w times each, for many weightings at once.

    A bootstrap resample is a weighting by how often each image was drawn. Most metrics are then ratios of sums that
    one matrix product gives, and a ranking needs its sort only once.

    Args:
        probs: (N, C) float64.
        truth, decisions: (N, C) bool, what is and what the model says.
        losses: name → (N,) float64, metrics that are means over the images.
        calibration: confidence and outcome, (N, D) both, whose expected calibration error is asked for.
        task: "multiclass" or "multilabel".
        ordinal: the classes are grades in order.
    """

    def __init__(
        self,
        probs: Tensor,
        truth: Tensor,
        decisions: Tensor,
        losses: dict[str, Tensor],
        calibration: tuple[Tensor, Tensor],
        task: str,
        ordinal: bool = False,
    ) -> None:
        confidence, outcome = calibration
        gaps = torch.zeros(len(probs), BINS, dtype=torch.float64)
        gaps.scatter_add_(1, bin_of(confidence), outcome - confidence)
        parts = [torch.stack(list(losses.values()), dim=1), gaps, truth & decisions, truth, decisions]
        # Which of the C² pairs of true and given grade an image is.
        parts.append((truth[:, :, None] & decisions[:, None]).flatten(1) if ordinal else truth[:, :0])
        self._linear = torch.cat([part.double() for part in parts], dim=1).numpy()
        self._splits = np.cumsum([part.shape[1] for part in parts])[:-1]
        self._losses, self._decisions_per_image = list(losses), confidence.shape[1]
        self._task, self._ordinal = task, ordinal
        self._rankings = [Ranking(*columns) for columns in zip(probs.T.numpy(), truth.T.numpy(), strict=True)]

    def __call__(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Returns each metric for R weightings; NaN where it is not defined.

        Args:
            weights: (N, R) counts, at least one image in every column.

        Returns:
            Name → (R,) float64.
        """
        total = weights.sum(0)
        losses, gaps, hits, support, decided, pairs = np.split(weights.T @ self._linear, self._splits, axis=1)
        values = dict(zip(self._losses, (losses / total[:, None]).T, strict=True))
        values["ece"] = np.abs(gaps).sum(1) / (total * self._decisions_per_image)
        both_kinds = (support > 0) & (support < total[:, None])
        f1 = _ratio(2 * hits, support + decided)
        if self._task == "multiclass":
            values["balanced_accuracy"] = _mean(_ratio(hits, support), support > 0)
            values["macro_f1"] = _mean(f1, support + decided > 0)
        else:
            values["macro_f1"] = _mean(f1, both_kinds)
        if self._ordinal:
            values["quadratic_kappa"] = quadratic_kappa(pairs.reshape(len(pairs), *2 * support.shape[1:]))
        ranked = [self._rank_statistics(*ranking.counts(weights)) for ranking in self._rankings]
        for name in ranked[0]:
            values[name] = _mean(np.stack([row[name] for row in ranked], axis=1), both_kinds)
        return values

    def _rank_statistics(self, positives: np.ndarray, negatives: np.ndarray) -> dict[str, np.ndarray]:
        values = {"auroc": auroc(positives, negatives)}
        if self._task == "multilabel":
            values["average_precision"] = average_precision(positives, negatives)
        return values


class Ranking:
    """Rank statistics of one class: images by falling score, equal scores together.

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


def auroc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns P(score of a positive > score of a negative) + P(equal) / 2 for `Ranking.counts` (U, R), as (R,)."""
    above = np.cumsum(positives, axis=0) - positives / 2
    return _ratio((above * negatives).sum(0), positives.sum(0) * negatives.sum(0))


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns Σ_scores (step in recall) · precision for `Ranking.counts` (U, R), as (R,)."""
    hits = np.cumsum(positives, axis=0)
    precision = hits / np.maximum(np.cumsum(positives + negatives, axis=0), 1)
    return _ratio((positives * precision).sum(0), positives.sum(0))


def quadratic_kappa(confusion: np.ndarray) -> np.ndarray:
    """Returns Cohen's κ with quadratic weights, 1 - Σ d² · observed / Σ d² · expected by chance, as (R,).

    Args:
        confusion: (R, C, C) numbers of images with true grade (row) and given grade (column).

    Source: Cohen, *Weighted kappa*, Psychological Bulletin 70 (1968).
    """
    grades = np.arange(confusion.shape[-1])
    distance = np.square(grades[:, None] - grades)
    expected = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None]
    total = confusion.sum((1, 2))
    return 1 - _ratio((distance * confusion).sum((1, 2)) * total, (distance * expected).sum((1, 2)))


def bootstrap_intervals(
    metrics: WeightedMetrics, groups: np.ndarray, resamples: int, seed: int, progress: bool | None
) -> dict[str, tuple[float, float]]:
    """Draws whole groups with replacement and returns the 2.5 and 97.5 percentiles of each metric.

    A resample in which a metric is not defined does not count for that metric; a metric that is defined in none has
    no interval.

    Args:
        metrics: of all images.
        groups: (N,) group of each image, 0..G-1; `arange(N)` draws single images.
        resamples: how many, ≥ 1.
        seed: of an own generator.
        progress: show a bar; by default where the standard error is a terminal.

    Source: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13; Davison and Hinkley,
    *Bootstrap Methods and their Application* (1997), section 3.8, for groups.
    """
    return _percentiles(_drawn(metrics, groups, resamples, seed, progress))


def paired_intervals(
    first: WeightedMetrics,
    second: WeightedMetrics,
    groups: np.ndarray,
    resamples: int,
    seed: int,
    progress: bool | None,
) -> dict[str, tuple[float, float]]:
    """Does what `bootstrap_intervals` does for first - second, both on the same resamples of the same images."""
    one = _drawn(first, groups, resamples, seed, progress)
    other = _drawn(second, groups, resamples, seed, progress)
    return _percentiles({name: one[name] - other[name] for name in one})


def _drawn(
    metrics: WeightedMetrics, groups: np.ndarray, resamples: int, seed: int, progress: bool | None
) -> dict[str, np.ndarray]:
    """Returns each metric for every resample, name → (resamples,)."""
    rows = []
    with tqdm(total=resamples, desc="bootstrap", disable=None if progress is None else not progress) as bar:
        for weights in _resample_weights(groups, resamples, seed):
            rows.append(metrics(weights))
            bar.update(weights.shape[1])
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def _percentiles(drawn: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    defined = {name: values[~np.isnan(values)] for name, values in drawn.items()}
    ends = {name: np.percentile(values, [2.5, 97.5]) for name, values in defined.items() if len(values)}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _resample_weights(groups: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yields how often each image was drawn, (N, r) a time."""
    generator = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    share = np.full(count, 1 / count)
    chunk = max(1, _CHUNK // len(groups))
    for start in range(0, resamples, chunk):
        drawn = generator.multinomial(count, share, size=min(chunk, resamples - start))
        yield drawn.T[groups].astype(np.float64)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    quotient = np.full(numerator.shape, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _mean(values: np.ndarray, defined: np.ndarray) -> np.ndarray:
    """Returns the mean of each row over the classes that are defined in it."""
    return _ratio(np.where(defined, values, 0).sum(1), defined.sum(1))
