"""Confidence intervals: the same metrics for a thousand resamples at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffmiczoo.metrics.table import Metric
from diffmiczoo.metrics.weighted import ScoredImages, WeightedImages
from diffmiczoo.runtime.progress import progress_bar

# How many weights are in memory at once; 16 MB, and a few arrays of that size.
_CHUNK = 2_000_000


@dataclass(frozen=True, eq=False)
class Resampling:
    """A bootstrap that draws whole groups with replacement; the same one draws the same resamples each time.

    Attributes:
        units: (N,) the group of each image, 0..G-1; `arange(N)` draws single images.
        resamples: how many, ≥ 1.
        seed: of its own random generator.

    Source: Efron and Tibshirani, *An Introduction to the Bootstrap* (1993), chapter 13; Davison and Hinkley,
    *Bootstrap Methods and their Application* (1997), section 3.8, for groups.
    """

    units: np.ndarray
    resamples: int
    seed: int

    def weights(self) -> Iterator[np.ndarray]:
        """Yields how often each image was drawn, (N, R) for some of the resamples at a time."""
        generator = np.random.default_rng(self.seed)
        count = int(self.units.max()) + 1
        share = np.full(count, 1 / count)
        chunk = max(1, _CHUNK // len(self.units))
        for start in range(0, self.resamples, chunk):
            drawn = generator.multinomial(count, share, size=min(chunk, self.resamples - start))
            yield drawn.T[self.units].astype(np.float64)


def resampled(
    images: ScoredImages, metrics: Sequence[Metric], resampling: Resampling, progress: bool | None
) -> dict[str, np.ndarray]:
    """Returns each metric for every resample, name → (R,); NaN where a resample does not define it.

    Args:
        images: all of them.
        metrics: which.
        resampling: how they are drawn.
        progress: show a bar; by default where the standard error is a terminal.
    """
    rows = []
    with progress_bar(resampling.resamples, "bootstrap", "it", progress) as bar:
        for weights in resampling.weights():
            weighted = WeightedImages(images, weights)
            rows.append({metric.name: metric.function(weighted) for metric in metrics})
            bar.update(weights.shape[1])
    return {metric.name: np.concatenate([row[metric.name] for row in rows]) for metric in metrics}


def percentiles(values: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Returns the 2.5 and 97.5 percentiles of each metric's resamples.

    Resamples in which a metric is not defined do not count for it; one that is defined in none has no interval.
    """
    defined = {name: each[~np.isnan(each)] for name, each in values.items()}
    ends = {name: np.percentile(each, [2.5, 97.5]) for name, each in defined.items() if len(each)}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}
