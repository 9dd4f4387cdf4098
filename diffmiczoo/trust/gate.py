"""Is a picture of the kind that the weights were trained on? Its features' distance from those of training pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.trust.arrays import checked, checked_groups, group_shares, quantile

#: Share of new pictures of the own kind that pass.
KEEP = 0.95

#: Numbers of the axes that are stored; in half precision and as letters they take less than 256 kB.
MOST_NUMBERS = 96_000

_PRECISION = np.float16


@dataclass(frozen=True, eq=False)
class Gate:
    """A Mahalanobis distance in features F, and how far pictures of the own kind are.

    Attributes:
        mean: (H,) float32, of the training pictures.
        axes: (r, H) float16, rows of length 1: the directions in which training pictures differ most.
        scales: (r,) float32, one over the standard deviation along each axis.
        rest: one over the standard deviation in all directions that have no axis.
        limit: the largest distance that passes.
        keep: share of new pictures of the own kind that pass.
        pictures, groups: of the held-back ones that `limit` was fitted on.
    """

    mean: np.ndarray
    axes: np.ndarray
    scales: np.ndarray
    rest: float
    limit: float
    keep: float
    pictures: int
    groups: int

    def score(self, features: ArrayLike) -> np.ndarray:
        """Returns how far pictures are from the training pictures, (N,) float32: above 1 they do not pass.

        Args:
            features: (N, H), F of each picture.

        Raises:
            ValueError: they have another length.
        """
        return (_distances(self, features) / self.limit).astype(np.float32)


def fit_gate(
    training: ArrayLike, held_back: ArrayLike, groups: ArrayLike | None = None, keep: float = KEEP
) -> Gate | None:
    """Fits mean and covariance to training pictures, and the limit to pictures that no training has seen.

    The limit is the finite-sample quantile of the held-back distances: since neither the weights nor the covariance
    know these pictures, as many of new ones pass, on average over draws of the held-back groups.

    Args:
        training: (N, H) features F of training pictures.
        held_back: (M, H) features of pictures of the same kind, not trained on.
        groups: of the held-back ones; each counts once.
        keep: share of new pictures of the own kind that pass, in (0, 1).

    Returns:
        None where there are fewer held-back groups than `keep` needs, 19 for 95 %.

    Raises:
        ValueError: an array has another shape or values that are not finite, or `keep` is out of range.

    Source: Lee et al., *A Simple Unified Framework for Detecting Out-of-Distribution Samples* (NeurIPS 2018), with one
    Gaussian for all classes; its shrinkage is Ledoit and Wolf's.
    """
    if not 0 < keep < 1:
        raise InvalidValueError(f"keep={keep} must be a share between 0 and 1")
    features, others = checked(training, "training", 2), checked(held_back, "held_back", 2)
    if len(features) < 2:
        raise InvalidValueError("training has one picture; a covariance needs at least two")
    mean = features.mean(0).astype(np.float32)
    variances, directions = _spectrum(features - mean)
    rank = min(len(directions), max(1, MOST_NUMBERS // len(mean)))
    # What gets no axis shares the mean of its variances.
    axes, along = directions[:rank], np.maximum(variances, np.finfo(np.float32).tiny)
    rest = 0.0 if rank == len(mean) else float(along[rank:].mean() ** -0.5)
    scales = (along[:rank] ** -0.5).astype(np.float32)
    numbers = checked_groups(groups, len(others))
    gate = Gate(mean, axes.astype(_PRECISION), scales, rest, 1.0, keep, len(others), int(numbers.max()) + 1)
    # The distances of the stored, rounded numbers, so that rounding moves no picture across the limit.
    limit = quantile(_distances(gate, others), group_shares(numbers), keep)
    if limit is None or limit <= 0:
        return None
    return Gate(**{**vars(gate), "limit": limit})


def shrunk_covariance(centred: np.ndarray) -> np.ndarray:
    """Returns the covariance of rows (N, H) with mean 0, drawn towards a multiple of the identity as far as is best.

    Source: Ledoit and Wolf, *A well-conditioned estimator for large-dimensional covariance matrices* (2004).
    """
    sample = centred.T @ centred / len(centred)
    level, weight = _shrinkage(centred, float((sample**2).sum()))
    shrunk: np.ndarray = (1 - weight) * sample + weight * level * np.eye(len(sample))
    return shrunk


def _shrinkage(centred: np.ndarray, squared_norm: float) -> tuple[float, float]:
    """Returns the mean variance and Ledoit and Wolf's weight of it.

    Args:
        centred: (N, H).
        squared_norm: sum of the squares of the covariance's entries.
    """
    count, width = centred.shape
    squares = centred**2
    level = float(squares.sum()) / count / width
    spread = squared_norm - width * level**2
    noise = float((squares.sum(1) ** 2).sum()) / count**2 - squared_norm / count
    return level, 1.0 if spread <= 0 else min(max(noise / spread, 0.0), 1.0)


def _spectrum(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the falling variances (H,) of the shrunk covariance, and the directions (r, H) of the first r of them.

    With fewer rows N than columns H the others all have the same variance, and no H × H matrix is needed: its
    eigenvectors would take minutes for features as long as those of the paper's size.
    """
    count, width = centred.shape
    if count >= width:
        variances, directions = np.linalg.eigh(shrunk_covariance(centred))
        return variances[::-1], directions.T[::-1]
    squares, left = np.linalg.eigh(centred @ centred.T)
    # Where nothing varies there is no direction.
    varies = squares > 1e-12 * max(float(squares[-1]), np.finfo(np.float64).tiny)
    squares, left = squares[varies][::-1], left[:, varies][:, ::-1]
    sample = squares / count
    level, weight = _shrinkage(centred, float((sample**2).sum()))
    directions = (left / np.sqrt(squares)).T @ centred
    return np.pad((1 - weight) * sample, (0, width - len(sample))) + weight * level, directions


def _distances(gate: Gate, features: ArrayLike) -> np.ndarray:
    rows = np.asarray(features, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(gate.mean):
        raise InvalidValueError(f"features have shape {rows.shape}; expected (N, {len(gate.mean)})")
    centred = (rows - gate.mean).astype(np.float64)
    # Not by BLAS: its threads would wait for torch's on the same cores, and make a batch's prediction 5 % slower.
    along = np.einsum("nh,kh->nk", centred, gate.axes.astype(np.float64)) ** 2
    squared = along @ gate.scales.astype(np.float64) ** 2
    if gate.rest:
        squared += gate.rest**2 * np.maximum((centred**2).sum(1) - along.sum(1), 0)
    distances: np.ndarray = np.sqrt(squared)
    return distances
