"""Prediction sets: the classes that cannot be ruled out, so that the true one is among them as often as promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.trust.arrays import checked, checked_groups, group_shares, groups_needed, quantile

#: The levels that are stored with weights.
ALPHAS = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class SetRule:
    """From which probability on a class is in the set.

    Attributes:
        alpha: share of pictures whose true class may be missed.
        overall: for all classes alike; None where there are too few groups for `alpha`.
        by_class: C of them, so that each class is missed that rarely; None for classes with too few groups, which are
            in every set.
    """

    alpha: float
    overall: float | None
    by_class: tuple[float | None, ...]


@dataclass(frozen=True)
class SetRules:
    """Rules for some levels.

    Attributes:
        rules: one per level.
        groups: of the calibration pictures; with several labels of those that have one.
        class_groups: C numbers: groups with a picture of the class.
    """

    rules: tuple[SetRule, ...]
    groups: int
    class_groups: tuple[int, ...]

    def rule(self, alpha: float) -> SetRule:
        """Returns the rule of a level.

        Raises:
            ValueError: it is not one of those that were fitted.
        """
        for rule in self.rules:
            if abs(rule.alpha - alpha) < 1e-9:
                return rule
        known = ", ".join(f"{rule.alpha:g}" for rule in self.rules)
        raise InvalidValueError(
            f"alpha={alpha!r} is not among the levels that these weights were calibrated for: {known}"
        )

    def contains(self, probs: ArrayLike, alpha: float = 0.1, *, by_class: bool = True) -> np.ndarray:
        """Returns which classes cannot be ruled out, (N, C) bool.

        Args:
            probs: (N, C) in [0, 1].
            alpha: a level.
            by_class: hold the level in every class, not only on average.

        Raises:
            ValueError: the level is unknown, or `probs` have other classes.
        """
        rule, values = self.rule(alpha), np.asarray(probs, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(rule.by_class):
            raise InvalidValueError(f"probs have shape {values.shape}; expected (N, {len(rule.by_class)})")
        lowest = rule.by_class if by_class else [rule.overall] * len(rule.by_class)
        found: np.ndarray = values >= np.array([0.0 if low is None else low for low in lowest])
        return found

    def too_few(self, alpha: float = 0.1, *, by_class: bool = True) -> dict[int, int]:
        """Returns class number → its groups, of the classes that are in every set for want of calibration pictures."""
        rule = self.rule(alpha)
        if not by_class:
            return {} if rule.overall is not None else dict.fromkeys(range(len(self.class_groups)), self.groups)
        return {n: self.class_groups[n] for n, low in enumerate(rule.by_class) if low is None}


def fit_sets(
    probs: ArrayLike, truth: ArrayLike, groups: ArrayLike | None = None, alphas: Sequence[float] = ALPHAS
) -> SetRules:
    """Fits rules to pictures that no training has seen.

    One label: P(true class in the set) ≥ 1 - α, over all pictures (`overall`) and within each class (`by_class`, the
    Mondrian sets). Several labels: the expected share of a picture's labels that are missed is ≤ α (`overall`, by
    conformal risk control), and each label is missed in at most α of the pictures that show it (`by_class`). All hold
    for a picture drawn from a new group of the same kind, on average over draws of the calibration groups.

    Args:
        probs: (N, C) in [0, 1].
        truth: (N, C) of 0 and 1: the true classes.
        groups: of the pictures; each counts once.
        alphas: levels in (0, 1).

    Raises:
        ValueError: shapes do not belong together, or a level is out of range.

    Source: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World* (2005), section 4.5; Angelopoulos et
    al., *Conformal Risk Control* (ICLR 2024); Lee, Barber and Willett (arXiv 2306.06342) for groups.
    """
    values, labels = checked(probs, "probs", 2), checked(truth, "truth", 2) > 0
    if values.shape != labels.shape:
        raise InvalidValueError(f"truth has shape {labels.shape}, probs {values.shape}; expected the same")
    if not all(0 < alpha < 1 for alpha in alphas):
        raise InvalidValueError(f"alphas={tuple(alphas)} must be between 0 and 1")
    numbers = checked_groups(groups, len(values))
    shown = [_Shown.of(values[:, [c]], labels[:, [c]], numbers) for c in range(values.shape[1])]
    every = _Shown.of(values, labels, numbers)
    rules = (SetRule(a, every.lowest(a), tuple(each.lowest(a) for each in shown)) for a in alphas)
    return SetRules(tuple(rules), every.groups, tuple(each.groups for each in shown))


@dataclass(frozen=True, eq=False)
class _Shown:
    """The probabilities of true classes, (M,), and their weights, in sum the number of groups that show any."""

    probs: np.ndarray
    weights: np.ndarray
    groups: int

    @classmethod
    def of(cls, probs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> _Shown:
        rows = labels.any(1)
        if not rows.any():
            return cls(np.empty(0), np.empty(0), 0)
        numbers = checked_groups(groups[rows], int(rows.sum()))
        # A picture's labels share its weight, the pictures of a group the group's.
        shares = (group_shares(numbers) / labels[rows].sum(1))[:, None] * labels[rows]
        return cls(probs[rows][labels[rows]], shares[labels[rows]], int(numbers.max()) + 1)

    def lowest(self, alpha: float) -> float | None:
        if self.groups < groups_needed(alpha):
            return None
        found = quantile(-self.probs, self.weights, 1 - alpha)
        return None if found is None else -found
