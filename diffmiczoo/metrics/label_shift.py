"""How frequent classes are among pictures without labels, from calibrated probabilities of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.trust.arrays import checked, checked_groups, group_shares

#: As if so many pictures with the shares of the calibration had been seen besides: no class vanishes.
PRIOR_PICTURES = 10.0

#: Shares with a larger standard error are no use.
LARGEST_ERROR = 0.1

_MOST_ROUNDS = 10_000

_NORMAL_99 = 2.3263


@dataclass(frozen=True)
class ClassShares:
    """How frequent classes are.

    Attributes:
        shares: C of them, sum 1.
        errors: their standard errors.
        gain: how much more likely they make the pictures than the known ones do, in log-likelihood.
    """

    shares: tuple[float, ...]
    errors: tuple[float, ...]
    gain: float

    @property
    def certain(self) -> bool:
        """Whether the gain is one that chance brings in about one of a hundred places where nothing is other."""
        free = len(self.shares) - 1
        return 2 * self.gain > free * (1 - 2 / (9 * free) + _NORMAL_99 * math.sqrt(2 / (9 * free))) ** 3

    def offsets(self, known: ArrayLike) -> tuple[float, ...]:
        """Returns what to add to logits that were calibrated where the shares were `known`, (C,); of sum 0."""
        odds = np.log(np.asarray(self.shares) / np.asarray(known, dtype=np.float64))
        return tuple((odds - odds.mean()).tolist())


def estimate_shares(probs: ArrayLike, known: ArrayLike, groups: ArrayLike | None = None) -> ClassShares:
    """Finds the class shares that make pictures most likely, by expectation maximisation.

    It holds for pictures that differ from those of the calibration in nothing but how frequent the classes are, and is
    as good as the probabilities' calibration. Each group counts once.

    Args:
        probs: (N, C), calibrated; rows sum to 1.
        known: C shares > 0 of the pictures that they were calibrated on, as the model sees them: the mean
            probabilities. (Where it gives a rare class too much everywhere, counted shares would make that worse.)
        groups: of the pictures.

    Raises:
        ValueError: shapes do not belong together, or the pictures leave the shares open: a standard error is above
            `LARGEST_ERROR`.

    Source: Saerens, Latinne, Decaestecker, *Adjusting the Outputs of a Classifier to New a Priori Probabilities*
    (Neural Computation 2002); standard errors are those of maximum likelihood. With calibrated probabilities it is
    better than inverting a confusion matrix (BBSE): Alexandari, Kundaje, Shrikumar, *Maximum Likelihood with
    Bias-Corrected Calibration is Hard-To-Beat at Label Shift Adaptation* (ICML 2020).
    """
    rows, start = checked(probs, "probs", 2), checked(known, "known", 1)
    if start.shape != rows.shape[1:] or not (start > 0).all():
        raise InvalidValueError(f"known={start.tolist()} must be a share above 0 for each of {rows.shape[1]} classes")
    start = start / start.sum()
    weights = group_shares(checked_groups(groups, len(rows)))
    count, shares = weights.sum(), start
    for _ in range(_MOST_ROUNDS):
        likely = rows * (shares / start)
        likely /= likely.sum(1, keepdims=True)
        moved = (weights @ likely + PRIOR_PICTURES * start) / (count + PRIOR_PICTURES)
        done, shares = np.abs(moved - shares).max() < 1e-10, moved
        if done:
            break
    errors = _errors(likely, shares, start, weights)
    gain = float(weights @ np.log((rows * (shares / start)).sum(1)))
    found = ClassShares(tuple(shares.tolist()), tuple(errors.tolist()), gain)
    worst = int(np.argmax(found.errors))
    if found.errors[worst] > LARGEST_ERROR:
        raise InvalidValueError(
            f"{len(rows):,} pictures without labels leave open how frequent the classes are: class number {worst} has "
            f"a share of {100 * found.shares[worst]:.0f} ± {100 * found.errors[worst]:.0f} %; take more pictures, or "
            "label some"
        )
    return found


def _errors(likely: np.ndarray, shares: np.ndarray, start: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns standard errors of shares from the curvature of the likelihood, along directions that keep the sum 1."""
    slopes = likely / shares
    information = (slopes * weights[:, None]).T @ slopes + PRIOR_PICTURES * np.diag(start / shares**2)
    basis = np.linalg.svd(np.ones((1, len(shares))))[2][1:].T
    covariance = basis @ np.linalg.pinv(basis.T @ information @ basis) @ basis.T
    errors: np.ndarray = np.sqrt(np.maximum(np.diag(covariance), 0))
    return errors
