"""What the rules are fitted on: checked arrays, with groups (patients, lesions) counted once each."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from diffmiczoo.errors import InvalidValueError

#: So much rounding may be in a sum of weights.
ROUNDING = 1e-9


def checked(values: ArrayLike, name: str, dimensions: int) -> np.ndarray:
    """Returns numbers as float64.

    Raises:
        ValueError: they are empty, have another number of dimensions, or are not finite.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions or not len(array):
        raise InvalidValueError(
            f"{name} has shape {array.shape}; expected {dimensions} dimensions and at least one row"
        )
    if not np.isfinite(array).all():
        raise InvalidValueError(f"{name} has NaN or infinite values")
    return array


def checked_groups(groups: ArrayLike | None, length: int) -> np.ndarray:
    """Returns the number of each picture's group, (N,) int64 in 0..G-1; a group for each picture where there are none.

    Raises:
        ValueError: there are not as many as pictures.
    """
    if groups is None:
        return np.arange(length)
    numbers = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1).astype(np.int64)
    if len(numbers) != length:
        raise InvalidValueError(f"groups has {len(numbers)} entries for {length} pictures")
    return numbers


def group_shares(groups: np.ndarray) -> np.ndarray:
    """Returns the weight of each picture where every group weighs 1, (N,)."""
    shares: np.ndarray = 1.0 / np.bincount(groups)[groups]
    return shares


def one_per_group(groups: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns the rows of one picture of each group, drawn with a seed; sorted."""
    order = np.random.RandomState(seed).permutation(len(groups))  # numpy promises this stream for good
    rows: np.ndarray = np.sort(order[np.unique(groups[order], return_index=True)[1]])
    return rows


def quantile(scores: np.ndarray, weights: np.ndarray, level: float) -> float | None:
    """Returns the smallest score at or below which a new group's picture lies with probability ≥ `level`.

    With a group for each picture it is the ⌈level · (n + 1)⌉-th smallest of n scores.

    Args:
        scores: (N,).
        weights: (N,), in sum the number of groups.
        level: in (0, 1).

    Returns:
        None where there are too few groups for the level: no score is large enough.

    Source: Lee, Barber and Willett, *Distribution-free inference with hierarchical data* (arXiv 2306.06342), HCP.
    """
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) >= level * (weights.sum() + 1) - ROUNDING
    return float(scores[order][reached.argmax()]) if reached.any() else None


def groups_needed(alpha: float) -> int:
    """Returns from how many groups on `quantile` finds a score for the level 1 - α."""
    return int(np.ceil((1 - alpha) / alpha - ROUNDING))


def coverage_band(calibration: int, test: int, alpha: float, level: float = 0.99) -> tuple[float, float]:
    """Returns where the share of test pictures within a quantile for 1 - α lies with probability `level`.

    It is beta-binomial: the true coverage of a calibration varies too, by Beta(k, n + 1 - k), k = ⌈(1 - α)(n + 1)⌉.

    Args:
        calibration: n ≥ `groups_needed(alpha)`, one picture per group.
        test: pictures, ≥ 1.
        alpha: in (0, 1).
        level: in (0, 1).

    Source: Vovk, *Conditional validity of inductive conformal predictors* (2012), proposition 2.
    """
    k = math.ceil((1 - alpha) * (calibration + 1) - ROUNDING)
    a, b, m = k, calibration + 1 - k, test
    logs = [
        math.lgamma(m + 1) - math.lgamma(j + 1) - math.lgamma(m - j + 1) + _log_beta(a + j, b + m - j) - _log_beta(a, b)
        for j in range(m + 1)
    ]
    below = np.cumsum(np.exp(logs))
    low, high = (int(np.searchsorted(below, tail)) for tail in ((1 - level) / 2, (1 + level) / 2))
    return low / m, min(high, m) / m


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
