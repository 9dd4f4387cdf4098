"""What a calibration is worth on local pictures, and how that differs from another's on the same resamples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.decisions import decide
from diffmiczoo.metrics.bootstrap import Resampling
from diffmiczoo.metrics.held_back import HeldBack
from diffmiczoo.metrics.local_fit import LocalPictures
from diffmiczoo.metrics.recalibration import Change, Interval
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.metrics.weighted import ScoredImages, WeightedImages
from diffmiczoo.trust.selective import Deferral
from diffmiczoo.trust.stored import Trust

#: Level of the sets, and the error whose deferral is shown.
ALPHA, ERROR = 0.1, 0.1

_METRICS = {"multiclass": ("nll", "ece", "accuracy", "balanced_accuracy"), "multilabel": ("nll", "ece", "macro_f1")}

#: Number of an outcome → (R,), for weights (R, N) of pictures.
Number = Callable[["Outcome", np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a model says of each of N pictures; NaN where it knows nothing of the kind.

    Attributes:
        probs: (N, C).
        given: (N, C) bool: the labels.
        truth: (N, C) bool.
        covered: (N,) share of the true classes that are in the set by class at the level `ALPHA`.
        size: (N,) classes of that set.
        flagged: (N,) 1 for pictures unlike the training pictures.
        seen: (N,) 1 for pictures that a person sees so that at most `ERROR` of the others are wrong; 1 for all where
            that cannot be promised.
    """

    probs: np.ndarray
    given: np.ndarray
    truth: np.ndarray
    covered: np.ndarray
    size: np.ndarray
    flagged: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, pictures: LocalPictures, config: DiffMICConfig, trust: Trust | None) -> Outcome:
        """Returns what a model with this calibration says of pictures."""
        probs = pictures.probs(config).double()
        given = decide(probs, config.task, config.thresholds, config.label_adjustment).numpy()
        known = HeldBack.from_probs(probs, pictures.targets, pictures.groups, config)
        nothing = np.full(len(pictures), np.nan)
        covered = size = flagged = seen = nothing
        if trust is not None and trust.sets is not None:
            inside = trust.sets.contains(known.probs, ALPHA) | given
            shown = np.maximum(known.truth.sum(1), 1)
            covered = np.where(known.truth.any(1), (inside & known.truth).sum(1) / shown, np.nan)
            size = inside.sum(1).astype(float)
        foreign = np.zeros(len(pictures), dtype=bool)
        if trust is not None and trust.gate is not None and pictures.distances is not None:
            foreign = pictures.distances > trust.gate.limit
            flagged = foreign.astype(float)
        if trust is not None and trust.deferral is not None:
            seen = (foreign | (known.uncertainty > _limit(trust.deferral))).astype(float)
        return cls(known.probs, given, known.truth, covered, size, flagged, seen)

    @classmethod
    def assembled(cls, parts: list[tuple[np.ndarray, Outcome]]) -> Outcome:
        """Returns the outcome of all pictures from those of parts; rows (N,) bool with each."""
        order = np.argsort(np.concatenate([np.flatnonzero(rows) for rows, _ in parts]))
        columns = {name: [getattr(part, name) for _, part in parts] for name in cls.__dataclass_fields__}
        return cls(**{name: np.concatenate(column)[order] for name, column in columns.items()})


def _limit(deferral: Deferral) -> float:
    try:
        return deferral.step(ERROR).limit
    except InvalidValueError:
        return -1.0


def changes(
    before: Outcome, after: Outcome, groups: np.ndarray, task: str, resamples: int = 1000
) -> tuple[Change, ...]:
    """Compares two outcomes of the same pictures, with 95 % bootstrap intervals over groups.

    Args:
        before: with the calibration that the weights came with.
        after: of pictures that the new one was not fitted on.
        groups: (N,) numbers 0..G-1; drawn whole.
        task: "multiclass" or "multilabel".
        resamples: of the bootstrap, ≥ 1.
    """
    drawn = np.concatenate([weights.T for weights in Resampling(groups, resamples, seed=0).weights()])
    weights = np.concatenate([np.ones((1, len(groups))), drawn])
    numbers: dict[str, tuple[str, Number]] = {}
    for name in _METRICS[task]:
        metric = find_metric(name)
        numbers[name] = metric.short_label, _of_metric(metric.function, task)
    numbers |= _SHARES
    found = []
    for name, (label, number) in numbers.items():
        one, other = number(before, weights), number(after, weights)
        found.append(Change(name, label, _interval(one), _interval(other), _interval(other - one)))
    return tuple(found)


def _of_metric(function: Callable[[WeightedImages], np.ndarray], task: str) -> Number:
    def number(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
        images = ScoredImages(outcome.probs, outcome.truth, outcome.given, task)
        return function(WeightedImages(images, weights.T))

    return number


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    if not known.any():
        return np.full(len(weights), np.nan)
    totals = weights[:, known].sum(1)
    means: np.ndarray = np.divide(
        weights[:, known] @ values[known], totals, out=np.full(len(weights), np.nan), where=totals > 0
    )
    return means


def _wrong_among_others(outcome: Outcome, weights: np.ndarray) -> np.ndarray:
    wrong = (outcome.given != outcome.truth).any(1).astype(float)
    return _mean(np.where(outcome.seen == 0, wrong, np.nan), weights)


_SHARES: dict[str, tuple[str, Number]] = {
    "coverage": (f"in the set at {ALPHA:g} by class", lambda outcome, weights: _mean(outcome.covered, weights)),
    "size": ("classes in the set", lambda outcome, weights: _mean(outcome.size, weights)),
    "flagged": ("unlike the training pictures", lambda outcome, weights: _mean(outcome.flagged, weights)),
    "seen": (f"seen by a person for ≤ {ERROR:g} errors", lambda outcome, weights: _mean(outcome.seen, weights)),
    "wrong_among_others": ("wrong among the others", _wrong_among_others),
}


def _interval(values: np.ndarray) -> Interval | None:
    """Returns the first value, and the 2.5 and 97.5 percentiles of the others; None where there is none."""
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(drawn):
        return None
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(values[0]), float(low), float(high)
