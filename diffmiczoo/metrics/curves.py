"""Curves with 95 % bands: ROC, precision and recall, reliability, risk and coverage; groups are drawn whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from diffmiczoo.metrics.bootstrap import Resampling, percentiles
from diffmiczoo.metrics.definitions import area_under_roc, average_precision_of
from diffmiczoo.metrics.table import class_metrics
from diffmiczoo.metrics.weighted import ScoredImages, WeightedImages, ratio
from diffmiczoo.runtime.progress import progress_bar

#: Places along the x axis of a curve.
GRID = np.linspace(0, 1, 101)

#: Equal-width bins of the reliability diagram: few enough for a hundred images.
RELIABILITY_BINS = 10

#: Metrics of a class that come from the same counts as its curves.
_RANKED = {"auroc": area_under_roc, "average_precision": average_precision_of}

#: Digits that a drawing can show.
_DIGITS = 4


@dataclass(frozen=True)
class Curve:
    """A line with a band around it.

    Attributes:
        x: places.
        y: the value at each; NaN where it is not defined.
        low, high: ends of the 95 % interval at each; () without resamples.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True)
class ClassCurves:
    """How well one class is told from the others.

    Attributes:
        name: of the class.
        positives, negatives: images with and without it.
        values: metric of `metrics.table.class_metrics` → value; NaN where it is not defined.
        intervals: metric → lower and upper end of the 95 % interval; without those that have none.
        roc: sensitivity (y) at each share of false alarms (x); None without images of both kinds.
        precision_recall: the highest threshold's precision (y) that reaches each recall (x); None the same.
    """

    name: str
    positives: int
    negatives: int
    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    roc: Curve | None = None
    precision_recall: Curve | None = None


@dataclass(frozen=True)
class ReliabilityBin:
    """Statements of about the same probability.

    Attributes:
        low, high: ends of the bin.
        count: statements in it: images; for "multilabel" labels of images.
        confidence: their mean probability; None for none.
        observed: how often they were right; None for none.
        interval: 95 % of `observed`; None without resamples.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    observed: float | None
    interval: tuple[float, float] | None = None


def widened(share: float, interval: tuple[float, float], units: int) -> tuple[float, float]:
    """Returns an interval of a share, wider where nothing or everything was counted: resamples then know no doubt.

    Args:
        share: in [0, 1].
        interval: 95 %, by resampling.
        units: groups that it was counted among, or images without groups.

    Source: Clopper and Pearson, *The use of confidence or fiducial limits* (Biometrika 1934), at 0 and n of n.
    """
    low, high = interval
    edge = 0.025 ** (1 / max(units, 1))
    return (min(low, edge) if share == 1 else low), (max(high, 1 - edge) if share == 0 else high)


def class_curves(
    images: ScoredImages, names: Sequence[str], resampling: Resampling | None = None, progress: bool | None = None
) -> tuple[ClassCurves, ...]:
    """Returns curves and metrics of each class.

    Args:
        images: of a model.
        names: C classes.
        resampling: what bands and intervals are drawn by; None for none.
        progress: show a bar; by default where the standard error is a terminal.
    """
    once = images.once_each()
    values = {metric.name: metric.function(once)[0] for metric in class_metrics()}
    lines = [each.lines for each in _ranked(once)]
    metrics, bands = _resampled(images, resampling, progress)
    found = []
    for place, name in enumerate(names):
        own = {metric: float(column[place]) for metric, column in values.items()}
        intervals = percentiles({metric: column[:, place] for metric, column in metrics.items()})
        for metric, among in (("recall", images.truth), ("precision", images.decisions)):
            if resampling is not None and metric in intervals:
                units = len(np.unique(resampling.units[among[:, place]]))
                intervals[metric] = widened(own[metric], intervals[metric], units)
        positives = int(images.truth[:, place].sum())
        both = 0 < positives < len(images)
        drawn = zip(lines[place], bands, strict=True)
        roc, precision = (_curve(line[0], band.get(place)) if both else None for line, band in drawn)
        found.append(ClassCurves(name, positives, len(images) - positives, own, intervals, roc, precision))
    return tuple(found)


def reliability(
    images: ScoredImages, resampling: Resampling | None = None, bins: int = RELIABILITY_BINS
) -> tuple[ReliabilityBin, ...]:
    """Returns how often statements of about the same probability were right: of the most probable class, or all labels.

    Args:
        images: of a model.
        resampling: what intervals are drawn by; None for none.
        bins: number of equal-width bins; the last one includes 1.
    """
    confidence, outcome = images.probs, images.truth
    if images.task == "multiclass":
        index = images.probs.argmax(1)[:, None]
        confidence, outcome = (np.take_along_axis(each, index, axis=1) for each in (images.probs, images.truth))
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts, sums, rights = (np.zeros((len(images), bins)) for _ in range(3))
    rows = np.arange(len(images))[:, None]
    for total, values in ((counts, 1.0), (sums, confidence), (rights, outcome)):
        np.add.at(total, (rows, places), values)
    drawn = [ratio(weights.T @ rights, weights.T @ counts) for weights in resampling.weights()] if resampling else []
    columns = np.concatenate(drawn).T if drawn else np.empty((0, 0))
    intervals = percentiles({str(place): column for place, column in enumerate(columns)})
    found = []
    for b in range(bins):
        count = int(counts[:, b].sum())
        mean, share = (float(each[:, b].sum() / count) if count else None for each in (sums, rights))
        interval = intervals.get(str(b)) if count else None
        if resampling is not None and interval is not None and share is not None:
            interval = widened(share, interval, len(np.unique(resampling.units[counts[:, b] > 0])))
        found.append(ReliabilityBin(b / bins, (b + 1) / bins, count, mean, share, interval))
    return tuple(found)


def risk_curve(uncertainty: np.ndarray, wrong: np.ndarray, resampling: Resampling | None = None) -> Curve:
    """Returns the share of errors (y) among each share of the surest images (x); of equally sure ones on average.

    Args:
        uncertainty: (N,).
        wrong: (N,) bool.
        resampling: what the band is drawn by; None for none.

    Source: El-Yaniv and Wiener, *On the Foundations of Noise-free Selective Classification* (JMLR 2010).
    """
    order = np.argsort(uncertainty, kind="stable")
    starts = np.flatnonzero(np.diff(uncertainty[order], prepend=-np.inf))
    errors = wrong[order].astype(np.float64)[:, None]

    def risks(weights: np.ndarray) -> np.ndarray:
        drawn = weights[order]
        seen, missed = (_from_zero(np.add.reduceat(each, starts, axis=0)) for each in (drawn, drawn * errors))
        shares = GRID[1:]
        columns = [
            np.interp(shares * total[-1], total, part) / (shares * total[-1])
            for total, part in zip(seen.T, missed.T, strict=True)
        ]
        return np.stack(columns)

    values = risks(np.ones((len(order), 1)))[0]
    if resampling is None:
        return _curve(values, None, GRID[1:])
    found = _curve(values, np.concatenate([risks(weights) for weights in resampling.weights()]), GRID[1:])
    _, first = np.unique(resampling.units[order], return_index=True)
    units = [int((first < max(share * len(order), 1)).sum()) for share in found.x]
    rows = zip(found.y, zip(found.low, found.high, strict=True), units, strict=True)
    low, high = zip(*(widened(*row) for row in rows), strict=True)
    return Curve(found.x, found.y, _rounded(np.array(low)), _rounded(np.array(high)))


def _resampled(
    images: ScoredImages, resampling: Resampling | None, progress: bool | None
) -> tuple[dict[str, np.ndarray], tuple[dict[int, np.ndarray], ...]]:
    """Returns each class metric for every resample (R, C), and class → (R, G) of both curves."""
    rows: dict[str, list[np.ndarray]] = {}
    bands: tuple[dict[int, list[np.ndarray]], ...] = ({}, {})
    if resampling is None:
        return {}, ({}, {})
    plain = [metric for metric in class_metrics() if metric.name not in _RANKED]
    with progress_bar(resampling.resamples, "curves", "it", progress) as bar:
        for weights in resampling.weights():
            weighted = WeightedImages(images, weights)
            for metric in plain:
                rows.setdefault(metric.name, []).append(metric.function(weighted))
            ranked = list(_ranked(weighted))
            for name in _RANKED:
                rows.setdefault(name, []).append(np.stack([each.areas[name] for each in ranked], axis=1))
            for place, each in enumerate(ranked):
                for band, line in zip(bands, each.lines, strict=True):
                    band.setdefault(place, []).append(line)
            bar.update(weights.shape[1])
    joined = tuple({place: np.concatenate(parts) for place, parts in band.items()} for band in bands)
    return {name: np.concatenate(parts) for name, parts in rows.items()}, joined


@dataclass(frozen=True, eq=False)
class _RankedClass:
    """What the ranking of the images by one class gives, for R weightings; NaN without images of both kinds.

    Attributes:
        lines: ROC and precision-recall, (R, G) each at `GRID`.
        areas: name of `_RANKED` → (R,).
    """

    lines: tuple[np.ndarray, np.ndarray]
    areas: dict[str, np.ndarray]


def _ranked(images: WeightedImages) -> Iterator[_RankedClass]:
    """Yields each class; the counts, which take most of the time, are made once for all that is read from them."""
    for place, ranking in enumerate(images.images.rankings):
        counts = ranking.counts(images.weights)
        both = images.both_kinds[:, place]
        areas = {name: np.where(both, area(*counts), np.nan) for name, area in _RANKED.items()}
        positives, negatives = map(_from_zero, counts)
        recalls, alarms = (ratio(each, np.broadcast_to(each[-1], each.shape)) for each in (positives, negatives))
        precisions = ratio(positives, positives + negatives)
        roc = np.stack([np.interp(GRID, x, y) for x, y in zip(alarms.T, recalls.T, strict=True)])
        precision = np.stack([_reaching(x, y) for x, y in zip(recalls.T, precisions.T, strict=True)])
        yield _RankedClass((roc, precision), areas)


def _reaching(recalls: np.ndarray, precisions: np.ndarray) -> np.ndarray:
    """Returns the precision at the highest threshold that reaches each recall of `GRID`, above 0."""
    if np.isnan(recalls[-1]):
        return np.full(len(GRID), np.nan)
    wanted = np.maximum(GRID, 1e-9)
    values: np.ndarray = precisions[np.searchsorted(recalls, wanted - 1e-12)]
    return values


def _from_zero(counts: np.ndarray) -> np.ndarray:
    """Returns running sums (U, R) of counts that begin with 0, (U + 1, R)."""
    return np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])


def _curve(line: np.ndarray, band: np.ndarray | None, x: np.ndarray = GRID) -> Curve:
    ends: tuple[tuple[float, ...], ...] = ((), ())
    if band is not None and (rows := band[~np.isnan(band).any(1)]).size:
        ends = tuple(_rounded(each) for each in np.percentile(rows, [2.5, 97.5], axis=0))
    return Curve(_rounded(x), _rounded(line), *ends)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.round(values, _DIGITS).tolist())
