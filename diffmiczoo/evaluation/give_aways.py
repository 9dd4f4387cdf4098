"""Statistics of files and pixels that give the label away: what a model may learn in place of what is shown."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from diffmiczoo.data.finding import GiveAway, Interval
from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.metrics.bootstrap import Resampling
from diffmiczoo.metrics.definitions import auroc_by_class
from diffmiczoo.metrics.weighted import ScoredImages, WeightedImages

#: Parts of the cross-validation, ranges that a statistic is cut into, and resamples for the interval.
_FOLDS, _RANGES, _RESAMPLES = 5, 16, 200

#: The least number of groups with a label, and without it, for a test; and the most images, which bound the time.
LEAST_GROUPS, _MOST_IMAGES = 10, 20_000


def give_aways(manifest: Manifest, statistics: Mapping[str, np.ndarray], seed: int = 0) -> list[GiveAway]:
    """Tests how well each statistic tells the labels, by a predictor that knows nothing else.

    The predictor is naive Bayes on the statistic's numbers, each cut into at most 16 ranges. It predicts each of five
    parts, of whole groups, from the other four. Of more than 20,000 images that many are drawn.

    Args:
        manifest: M images.
        statistics: name → (M, columns).
        seed: of the parts and of the resampling.

    Returns:
        One for each statistic, in order, with the labels that enough groups have and lack; none where there is none.
    """
    groups, count = group_numbers(manifest.groups() or range(len(manifest)))
    truth = _truth(manifest)
    chosen = _drawn(groups, count, seed)
    groups, truth = groups[chosen], truth[chosen]
    labels = [place for place in range(truth.shape[1]) if _enough(truth[:, place], groups)]
    if not labels:
        return []
    truth, names = truth[:, labels], [manifest.class_names[place] for place in labels]
    folds = _folds(truth, groups, seed)
    resampling = Resampling(group_numbers(groups)[0], _RESAMPLES, seed)
    found = []
    for name, values in statistics.items():
        scores = _scores(_ranges(values[chosen]), truth, folds)
        found.append(GiveAway(name, dict(zip(names, _intervals(scores, truth, resampling), strict=True))))
    return found


def _truth(manifest: Manifest) -> np.ndarray:
    """Returns which labels each image has, (M, C) bool."""
    place = {name: number for number, name in enumerate(manifest.class_names)}
    truth = np.zeros((len(manifest), len(place)), dtype=bool)
    for row, record in enumerate(manifest.records):
        truth[row, [place[label] for label in record.labels]] = True
    return truth


def _drawn(groups: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Returns the places of the images of as many groups, drawn by lot, as make about the largest number of images."""
    if len(groups) <= _MOST_IMAGES:
        return np.arange(len(groups))
    order = np.random.default_rng(seed).permutation(count)
    sizes = np.bincount(groups, minlength=count)
    return np.flatnonzero(np.isin(groups, order[np.cumsum(sizes[order]) <= _MOST_IMAGES]))


def _enough(has: np.ndarray, groups: np.ndarray) -> bool:
    return all(len(np.unique(groups[part])) >= LEAST_GROUPS for part in (has, ~has))


def _folds(truth: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns the part (M,) of each image: whole groups, dealt out in turn among those with the same rarest label."""
    rarest = np.where(truth, truth.sum(0), np.inf).argmin(1)
    owners, first = np.unique(groups, return_index=True)
    order = np.lexsort((np.random.default_rng(seed).random(len(owners)), rarest[first]))
    part = np.empty(len(owners), dtype=int)
    part[order] = np.arange(len(owners)) % _FOLDS
    return part[np.searchsorted(owners, groups)]


def _ranges(values: np.ndarray) -> np.ndarray:
    """Returns the range (M, columns) that each number is in; few different numbers have one each."""
    count = int(np.clip(len(values) // 20, 2, _RANGES))
    columns = []
    for column in values.T:
        edges = np.unique(column)
        if len(edges) > count:
            edges = np.unique(np.quantile(column, np.arange(1, count) / count))
        columns.append(np.searchsorted(edges, column, side="left"))
    return np.stack(columns, axis=1)


def _scores(ranges: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Returns a score in [0, 1] of each label (M, C) for every image, from the other parts alone."""
    scores = np.zeros(truth.shape)
    sides = np.hstack([truth, ~truth]).astype(np.float64)
    for fold in range(_FOLDS):
        here = folds == fold
        for column in ranges.T:
            hit = column[:, None] == np.arange(column.max() + 1)
            share = hit[~here].T.astype(np.float64) @ sides[~here] + 0.5
            with_label, without = np.split(np.log(share / share.sum(0)), 2, axis=1)
            scores[here] += (with_label - without)[column[here]]
    return 1 / (1 + np.exp(-scores))


def _intervals(scores: np.ndarray, truth: np.ndarray, resampling: Resampling) -> list[Interval]:
    images = ScoredImages(scores, truth, scores > 0.5, "multilabel")
    value = auroc_by_class(images.once_each())[0]
    drawn = np.concatenate([auroc_by_class(WeightedImages(images, weights)) for weights in resampling.weights()])
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    return [Interval(*map(float, each)) for each in zip(value, low, high, strict=True)]
