"""Deferral: which pictures a person should see, so that the error among the rest stays below what was promised."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.trust.arrays import checked, checked_groups, one_per_group

#: With this probability, over draws of the calibration groups, a promise holds.
CONFIDENCE = 0.9

#: The first step that is tested would pass with so many errors, where one among the surer two thirds would: a step that
#: no error may spoil would often fail.
SPARE = 2

#: Shares of the pictures that are tried: 5 %, 10 %, …, 100 %.
STEPS = 20


@dataclass(frozen=True)
class Step:
    """The surest pictures of the calibration.

    Attributes:
        limit: the largest uncertainty among them.
        kept: how many they are, one per group.
        errors: how many of these are predicted wrongly.
    """

    limit: float
    kept: int
    errors: int


@dataclass(frozen=True)
class Deferral:
    """How many errors there are among the surest pictures, from few of them to all.

    Attributes:
        steps: by rising share of pictures.
        groups: of the calibration, one picture of each.
    """

    steps: tuple[Step, ...]
    groups: int

    def step(self, error: float, confidence: float = CONFIDENCE) -> Step:
        """Returns the largest step whose error is at most `error` with that confidence; what is surer is kept.

        Steps are tested from few pictures to all until one fails, so that testing several costs no confidence.

        Args:
            error: the largest share of wrong predictions among those that are kept, in (0, 1).
            confidence: in (0, 1).

        Raises:
            ValueError: an argument is out of range, or no step can be promised; the message tells what can.

        Source: Angelopoulos et al., *Learn then Test* (2021), fixed sequences; the test is Clopper and Pearson's.
        """
        for name, value in (("defer_error", error), ("confidence", confidence)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
                raise InvalidValueError(f"{name}={value!r} must be a share between 0 and 1, such as 0.05")
        found = self._found(error, confidence)
        if found is None:
            raise InvalidValueError(self._why_not(error, confidence))
        return found

    def _found(self, error: float, confidence: float) -> Step | None:
        found = None
        for step in self.steps[self._start(error, confidence) :]:
            if _chance(step.errors, step.kept, error) > 1 - confidence:
                break
            found = step
        return found

    def _start(self, error: float, confidence: float) -> int:
        """Returns the first step that is tested: known before any error is counted, as a fixed sequence has to be."""
        surer = self.steps[: 2 * len(self.steps) // 3]
        for errors, steps in ((SPARE, surer), (0, self.steps)):
            for place, step in enumerate(steps):
                if _chance(errors, step.kept, error) <= 1 - confidence:
                    return place
        # None can pass even without an error, so that none is tested.
        return len(self.steps)

    def least(self, confidence: float = CONFIDENCE) -> float:
        """Returns the smallest error that can be promised, rounded up to a tenth of a per cent; 1 where none can."""
        errors = (error / 1000 for error in range(1, 1000))
        return next((error for error in errors if self._found(error, confidence) is not None), 1.0)

    def _why_not(self, error: float, confidence: float) -> str:
        promise = f"an error of at most {100 * error:g} % with {100 * confidence:g} % confidence cannot be promised: "
        start = self._start(error, confidence)
        if start == len(self.steps):
            why = f"{self.groups:,} calibration groups (patients, lesions) are too few even without an error"
        else:
            first = self.steps[start]
            why = f"of the surest {first.kept:,} calibration pictures {first.errors:,} are predicted wrongly"
        least = self.least(confidence)
        return promise + why + (f"; the smallest that can is {100 * least:g} %" if least < 1 else "")


def fit_deferral(uncertainty: ArrayLike, wrong: ArrayLike, groups: ArrayLike | None = None, seed: int = 0) -> Deferral:
    """Counts errors among the surest pictures, one per group, of pictures that no training has seen.

    Args:
        uncertainty: (N,) by which pictures are ranked; infinite for those that a person sees in any case.
        wrong: (N,) whether the prediction is wrong.
        groups: of the pictures.
        seed: of the draw of one picture per group.

    Raises:
        ValueError: shapes do not belong together, or no uncertainty is finite.
    """
    ranked = np.asarray(uncertainty, dtype=np.float64)
    errors = checked(wrong, "wrong", 1) > 0
    if ranked.shape != errors.shape or np.isnan(ranked).any():
        raise InvalidValueError(f"uncertainty has shape {ranked.shape} or NaN; expected {len(errors)} numbers")
    rows = one_per_group(checked_groups(groups, len(errors)), seed)
    ranked, errors = ranked[rows], errors[rows]
    finite = np.sort(ranked[np.isfinite(ranked)])
    if not len(finite):
        raise InvalidValueError("uncertainty is infinite for every picture")
    limits = [float(finite[math.ceil(len(finite) * step / STEPS) - 1]) for step in range(1, STEPS + 1)]
    steps = (
        Step(each, int((ranked <= each).sum()), int(errors[ranked <= each].sum())) for each in dict.fromkeys(limits)
    )
    return Deferral(tuple(steps), len(rows))


def risk_coverage(uncertainty: ArrayLike, wrong: ArrayLike) -> np.ndarray:
    """Returns the share of errors among the k surest pictures, k = 1..N, (N,); of equally sure ones on average.

    Source: El-Yaniv and Wiener, *On the Foundations of Noise-free Selective Classification* (JMLR 2010).
    """
    ranked, errors = checked(uncertainty, "uncertainty", 1), checked(wrong, "wrong", 1)
    if ranked.shape != errors.shape:
        raise InvalidValueError(f"wrong has shape {errors.shape}, uncertainty {ranked.shape}; expected the same")
    _, tied = np.unique(ranked, return_inverse=True)
    means = np.bincount(tied, errors) / np.bincount(tied)
    risks: np.ndarray = np.cumsum(means[np.sort(tied)]) / np.arange(1, len(ranked) + 1)
    return risks


def aurc(uncertainty: ArrayLike, wrong: ArrayLike) -> float:
    """Returns the area under the risk-coverage curve: the mean of `risk_coverage`, 0 is best.

    Source: Geifman, Uziel and El-Yaniv, *Bias-Reduced Uncertainty Estimation* (ICLR 2019).
    """
    return float(risk_coverage(uncertainty, wrong).mean())


def _chance(errors: int, n: int, error: float) -> float:
    """Returns the probability of so few errors of n if `error` were the rate, P(X ≤ errors), binomial."""
    one, other = math.log(error), math.log(1 - error)
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * one + (n - k) * other
        for k in range(min(errors, n) + 1)
    )
    return math.fsum(math.exp(each) for each in logs)
