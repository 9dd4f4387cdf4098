"""Calibration for local pictures: held at the present one, and moved as far as pictures that were left out confirm."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import LARGEST_OFFSET, DiffMICConfig
from diffmiczoo.inference.probabilities import UNCALIBRATED_TEMPERATURE, score_logits, scores_to_probs
from diffmiczoo.metrics.checks import indicator
from diffmiczoo.metrics.pool import LARGEST_WEIGHT, TEMPERATURE_RANGE, HeldFactors, curvature

#: Parts that pictures are divided into, whole groups each: fitted on all but one of them, measured on that one.
FOLDS = 5


@dataclass(frozen=True)
class Hold:
    """How firmly the present calibration is held.

    Attributes:
        pictures: as if so many held temperature and pool weights where they were; infinitely many leave them there.
        spread: standard deviation of the class offsets before any picture is seen; 0 leaves them at 0.
    """

    pictures: float
    spread: float


#: From no change to the largest; docs/experiments/recalibration.md has the measurements.
HOLDS = (Hold(math.inf, 0.0), Hold(256.0, 0.25), Hold(64.0, 0.5), Hold(32.0, 1.0), Hold(16.0, 2.0))


@dataclass(frozen=True, eq=False)
class LocalPictures:
    """What a model says of local pictures before calibration; N of them.

    Attributes:
        scores: (N, C).
        members: (N, M, C) logits of what the pool adds.
        targets: (N,) class numbers, or (N, C) of 0 and 1.
        groups: (N,) number of each picture's group.
        distances: (N,) from the training pictures, in the gate's own unit; None without a gate.
    """

    scores: Tensor
    members: Tensor
    targets: Tensor
    groups: np.ndarray
    distances: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def some(self, rows: np.ndarray) -> LocalPictures:
        """Returns some of the pictures."""
        at = torch.from_numpy(np.flatnonzero(rows) if rows.dtype == bool else rows)
        distances = None if self.distances is None else self.distances[at.numpy()]
        return LocalPictures(self.scores[at], self.members[at], self.targets[at], self.groups[at.numpy()], distances)

    def probs(self, config: DiffMICConfig) -> Tensor:
        """Returns probabilities, (N, C)."""
        return scores_to_probs(self.scores, config, self.members)

    def truth(self, config: DiffMICConfig) -> Tensor:
        """Returns the true classes, (N, C) bool."""
        return indicator(self.targets, self.scores.shape, config.task)


def folds(groups: np.ndarray, count: int = FOLDS, seed: int = 0) -> Iterator[np.ndarray]:
    """Yields the rows of each part, (N,) bool; a group is in one of them as a whole."""
    units, numbers = np.unique(groups, return_inverse=True)
    place = np.empty(len(units), dtype=np.int64)
    place[np.random.RandomState(seed).permutation(len(units))] = np.arange(len(units)) % count
    for part in range(count):
        yield place[numbers] == part


def fit_local_calibration(pictures: LocalPictures, config: DiffMICConfig) -> DiffMICConfig:
    """Returns a config whose probabilities are more likely for pictures like these; the decision rule is left.

    Temperature, pool weights and an offset for each class are held where they were. How firmly is decided by
    cross-validation over whole groups: from no change on, the next of `HOLDS` is taken while its gain in NLL on
    pictures that were left out is larger than its standard error, so that few pictures change little.

    Nothing is learned about a class that no picture shows: it keeps the mean probability that it had.

    Args:
        pictures: labelled; no training has seen them.
        config: the model's present one.
    """
    fit = _Fit.of(pictures, config)
    return fit.config(fit.chosen())


@dataclass(frozen=True, eq=False)
class _Fit:
    """Parts of the logits and where their factors are at present.

    Attributes:
        parts: (K, N, C) float64.
        start: (K,).
        truth: (N, C) float64.
    """

    pictures: LocalPictures
    before: DiffMICConfig
    parts: Tensor
    start: Tensor
    truth: Tensor

    @classmethod
    def of(cls, pictures: LocalPictures, config: DiffMICConfig) -> _Fit:
        logits, members = score_logits(pictures.scores, config)[None], pictures.members.transpose(0, 1)
        scale = 1 / (UNCALIBRATED_TEMPERATURE if config.temperature is None else config.temperature)
        if config.predictor == "diffusion":
            parts, start = torch.cat([logits, members]), (scale, *config.pool_weights)
        elif config.predictor == "dcg":
            weights = config.pool_weights
            parts, start = members, weights if any(weights) else (scale / 2, scale / 2)
        else:
            parts, start = logits, (scale,)
        truth = pictures.truth(config).double()
        return cls(pictures, config, parts.double(), torch.tensor(start).double(), truth)

    def some(self, rows: np.ndarray) -> _Fit:
        at = torch.from_numpy(rows)
        return _Fit(self.pictures.some(rows), self.before, self.parts[:, at], self.start, self.truth[at])

    def chosen(self) -> Hold:
        losses = np.zeros((len(HOLDS), len(self.pictures)))
        for left_out in folds(self.pictures.groups, seed=1):
            rest, out = self.some(~left_out), self.some(left_out)
            for place, hold in enumerate(HOLDS):
                losses[place, left_out] = out.losses(*rest.solution(hold))
        gains = -np.diff(_by_group(losses, self.pictures.groups), axis=0)
        errors = gains.std(1, ddof=1) / math.sqrt(gains.shape[1])
        worth = gains.mean(1) > errors
        return HOLDS[len(worth) if worth.all() else int(worth.argmin())]

    def solution(self, hold: Hold) -> tuple[Tensor, Tensor]:
        """Returns factors (K,) and offsets (C,)."""
        shown = self._shown()
        count, classes = len(self.start), int(shown.sum()) if hold.spread else 0
        offsets = torch.eye(self.truth.shape[1]).double()[shown][:classes, None].expand(-1, len(self.truth), -1)
        parts = torch.cat([self.parts, offsets])
        truth = self.truth
        if self.before.task == "multiclass":
            parts, truth = parts[:, :, shown], truth[:, shown]
        found = self._held(hold, classes).fitted(parts, truth, self.before.task)
        shifts = torch.zeros(self.truth.shape[1]).double()
        shifts[shown] = found[count:] if classes else 0.0
        return found[:count], self._levelled(found[:count], shifts, shown)

    def _shown(self) -> Tensor:
        """Returns which classes pictures tell something of, (C,) bool."""
        counts = self.truth.sum(0)
        return (counts > 0) & (counts < len(self.truth)) if self.before.task == "multilabel" else counts > 0

    def _held(self, hold: Hold, classes: int) -> HeldFactors:
        """Returns the factors of the parts, then as many offsets, and what holds them."""
        start, fixed = torch.cat([self.start, torch.zeros(classes).double()]), math.isinf(hold.pictures)
        low, high = torch.zeros(len(self.start)).double(), torch.full((len(self.start),), LARGEST_WEIGHT).double()
        if self.before.predictor != "dcg":
            low[0], high[0] = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
        low, high = (self.start, self.start) if fixed else (low, high)
        reach = torch.full((classes,), LARGEST_OFFSET / 2).double()
        cost = torch.zeros_like(self.start)
        if not fixed:
            cost = curvature(self.parts, self.start, self.before.task).diagonal() * hold.pictures
        stiffness = torch.full((classes,), 1 / hold.spread**2 if hold.spread else 0.0).double()
        return HeldFactors(start, torch.cat([cost, stiffness]), torch.cat([low, -reach]), torch.cat([high, reach]))

    def _levelled(self, factors: Tensor, shifts: Tensor, shown: Tensor) -> Tensor:
        """Returns offsets with which a class that no picture shows keeps its mean probability; of sum 0 without one."""
        if self.before.task == "multilabel" or not shifts.any():
            return shifts
        if bool(shown.all()):
            return shifts - shifts.mean()
        logits = torch.einsum("k,knc->nc", factors, self.parts)
        wanted = float(torch.einsum("k,knc->nc", self.start, self.parts).softmax(1)[:, ~shown].sum())
        low, high = -LARGEST_OFFSET / 2, LARGEST_OFFSET / 2
        for _ in range(50):
            middle = (low + high) / 2
            moved = logits + shifts + torch.where(shown, middle, 0.0)
            low, high = (middle, high) if float(moved.softmax(1)[:, ~shown].sum()) > wanted else (low, middle)
        return shifts + torch.where(shown, low, 0.0)

    def losses(self, factors: Tensor, offsets: Tensor) -> np.ndarray:
        """Returns the NLL of each picture, (N,); of several labels the mean."""
        logits = torch.einsum("k,knc->nc", factors, self.parts) + offsets
        if self.before.task == "multiclass":
            return (logits.logsumexp(1) - (self.truth * logits).sum(1)).numpy()
        return (torch.nn.functional.softplus(logits) - self.truth * logits).mean(1).numpy()

    def config(self, hold: Hold) -> DiffMICConfig:
        """Returns the config of a fit to all pictures."""
        factors, offsets = self.solution(hold)
        fields: dict[str, Any] = {} if math.isinf(hold.pictures) else self._fields(factors.tolist())
        if offsets.any():
            fields["class_offsets"] = tuple(offsets.tolist())
        return self.before.replace(**fields)

    def _fields(self, factors: list[float]) -> dict[str, Any]:
        if self.before.predictor == "dcg":
            return {"temperature": UNCALIBRATED_TEMPERATURE, "prior_weight": tuple(factors)}
        fields: dict[str, Any] = {"temperature": 1 / factors[0]}
        if len(factors) > 1:
            fields["prior_weight"] = tuple(factors[1:3])
        return {**fields, "feature_weight": factors[3]} if len(factors) > 3 else fields


def _by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Returns the means of groups, (S, N) → (S, G)."""
    numbers = np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(numbers)
    return np.stack([np.bincount(numbers, row) / counts for row in values])
