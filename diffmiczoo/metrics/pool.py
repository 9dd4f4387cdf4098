"""Pool of a model's members: the weights that make the sum of their logits most likely on validation images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.probabilities import logits_to_probs
from diffmiczoo.metrics.checks import Values, checked_matrix, checked_members, indicator

#: Where temperatures are searched.
TEMPERATURE_RANGE = (1e-3, 1e2)

#: No member weighs more.
LARGEST_WEIGHT = 10.0

_MOST_STEPS, _MOST_HALVINGS = 200, 40


@dataclass(frozen=True)
class Pool:
    """How members are added: logits / `temperature` + Σ_m `weights`[m] · member m."""

    temperature: float
    weights: tuple[float, ...]


def fit_pool(logits: Values | None, members: Values, targets: Values, *, task: str, pseudo_images: float = 0.0) -> Pool:
    """Finds the temperature T and the weights w ≥ 0 with the smallest NLL of logits / T + Σ_m w_m · member m.

    Models that have seen the same training images err in different places; the sum of their logarithms is more often
    right about how sure to be than any of them. The likelihood is log-concave in 1/T and the weights together: a
    projected Newton's method finds its only maximum, the same from the same data. A member is let in only where that
    raises the likelihood by more than rounding can, so that one that repeats the others weighs exactly 0.

    Args:
        logits: (N, C), what `diffmiczoo.inference.probabilities.score_logits` gives; None where members alone predict.
        members: (N, M, C) logits of M further members.
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel".
        task: "multiclass" or "multilabel".
        pseudo_images: how many images hold each factor, 1/T and every weight, at its value before calibration: T = 1
            and no weights, or equal weights of sum 1 where members alone predict. Added to the likelihood is half the
            squared distance from it, times so many images' mean curvature there.

    Returns:
        T in `TEMPERATURE_RANGE`, 1 without logits, and weights in 0..`LARGEST_WEIGHT`.

    Raises:
        ValueError: there are no rows, logits are not finite or have different shapes, or targets do not fit.

    Source: Bertsekas, *Projected Newton Methods for Optimization Problems with Simple Constraints* (SIAM J. Control
    1982); Lawson and Hanson, *Solving Least Squares Problems* (1974), chapter 23, for letting members in one by one.
    """
    parts = checked_members(members)
    if logits is not None:
        own = checked_matrix(logits, "logits")
        if own.shape != parts.shape[1:]:
            shapes = f"{tuple(own.shape)} and {(parts.shape[1], parts.shape[0], parts.shape[2])}"
            raise InvalidValueError(f"logits and members have shapes {shapes}; expected (N, C) and (N, M, C)")
        parts = torch.cat([own[None], parts])
    scored, count = logits is not None, len(parts)
    start = torch.full((count,), 1 / count).double()
    low, high = torch.zeros(count).double(), torch.full((count,), LARGEST_WEIGHT).double()
    if scored:
        start = torch.eye(count).double()[0]
        low[0], high[0] = 1 / TEMPERATURE_RANGE[1], 1 / TEMPERATURE_RANGE[0]
    truth = indicator(targets, parts.shape[1:], task).double()
    problem = _Problem(parts, truth, task, low, high, start, torch.zeros(count).double())
    held = problem.curvature(start).diagonal() * pseudo_images / len(truth)
    found = replace(problem, held=held).solution(always=int(scored)).tolist()
    return Pool(1 / found[0], tuple(found[1:])) if scored else Pool(1.0, tuple(found))


@dataclass(frozen=True, eq=False)
class HeldFactors:
    """Factors β of parts of logits, and what holds each where it was.

    Attributes:
        start: (K,) where they were.
        held: (K,) ≥ 0: half a squared distance from `start` costs so much.
        low, high: (K,), where they may be; both are `start` for one that may not move.
    """

    start: Tensor
    held: Tensor
    low: Tensor
    high: Tensor

    def fitted(self, parts: Tensor, truth: Tensor, task: str) -> Tensor:
        """Returns the factors with the smallest NLL of Σ_k β_k · parts[k], plus what their distance costs; (K,).

        Args:
            parts: (K, N, C) float64.
            truth: (N, C) of 0 and 1, float64.
            task: "multiclass" or "multilabel".
        """
        problem = _Problem(parts, truth, task, self.low, self.high, self.start, self.held)
        return problem.solution(always=len(parts))


def curvature(parts: Tensor, factors: Tensor, task: str) -> Tensor:
    """Returns how much each picture tells of factors: the second derivatives of the NLL, their mean, (K, K)."""
    nothing = torch.zeros_like(factors)
    truth = torch.zeros_like(parts[0])
    return _Problem(parts, truth, task, nothing, nothing, factors, nothing).curvature(factors) / max(len(truth), 1)


def _summed(parts: Tensor, factors: Tensor) -> Tensor:
    """Returns Σ_k factors[k] · parts[k], (N, C)."""
    return torch.einsum("k,knc->nc", factors, parts)


@dataclass(frozen=True)
class _Problem:
    """The summed NLL of Σ_k β_k · parts[k], and what holds β where it was before calibration.

    Attributes:
        parts: (K, N, C) float64.
        truth: (N, C) of 0 and 1.
        low, high: (K,), where β may be.
        start: (K,), β before calibration.
        held: (K,), how much half a squared distance from `start` costs.
    """

    parts: Tensor
    truth: Tensor
    task: str
    low: Tensor
    high: Tensor
    start: Tensor
    held: Tensor

    def solution(self, always: int) -> Tensor:
        """Returns the best factors (K,); the first `always` parts are in, the others only where they help."""
        # Sums of so many numbers are no nearer to 0 than this where they should be 0.
        noise = 1e-9 * self.parts.abs().sum((1, 2))
        inside = torch.arange(len(noise)) < always
        factors = torch.where(inside, self.start, self.low)
        while True:
            factors = self._minimum(factors, inside)
            gain = torch.where(inside, -torch.inf, -self._slope(factors) - noise)
            if float(gain.max()) <= 0:
                return factors
            inside[int(gain.argmax())] = True

    def _minimum(self, factors: Tensor, inside: Tensor) -> Tensor:
        """Returns the best factors where only those `inside` may move."""
        for _ in range(_MOST_STEPS if inside.any() else 0):
            slope, curvature = self._slope(factors), self.curvature(factors)
            stuck = ((factors <= self.low) & (slope > 0)) | ((factors >= self.high) & (slope < 0))
            free = inside & ~stuck
            step = torch.zeros_like(factors)
            step[free] = -torch.linalg.pinv(curvature[free][:, free], hermitian=True, rtol=1e-13) @ slope[free]
            moved = self._descended(factors, step, slope)
            if moved is None:
                return factors
            factors = moved
        return factors

    def _descended(self, factors: Tensor, step: Tensor, slope: Tensor) -> Tensor | None:
        """Returns factors after a step, halved until the loss falls; None where rounding hides a fall."""
        before = self._loss(factors)
        for halving in range(_MOST_HALVINGS):
            moved = torch.clamp(factors + 0.5**halving * step, self.low, self.high)
            gain = -float(slope @ (moved - factors))
            if gain <= 1e-14 * (1 + before):
                return None
            if self._loss(moved) <= before - 1e-4 * gain:
                return moved
        return None

    def _loss(self, factors: Tensor) -> float:
        logits = _summed(self.parts, factors)
        far = float((self.held * (factors - self.start).square()).sum() / 2)
        if self.task == "multiclass":
            return far + float((logits.logsumexp(1) - (self.truth * logits).sum(1)).sum())
        return far + float((torch.nn.functional.softplus(logits) - self.truth * logits).sum())

    def _slope(self, factors: Tensor) -> Tensor:
        gap = logits_to_probs(_summed(self.parts, factors), self.task) - self.truth
        return torch.einsum("nc,knc->k", gap, self.parts) + self.held * (factors - self.start)

    def curvature(self, factors: Tensor) -> Tensor:
        """Returns the second derivatives of the loss, (K, K)."""
        probs = logits_to_probs(_summed(self.parts, factors), self.task)
        if self.task == "multilabel":
            return torch.einsum("nc,knc,lnc->kl", probs * (1 - probs), self.parts, self.parts) + self.held.diag()
        centred = self.parts - torch.einsum("nc,knc->kn", probs, self.parts)[..., None]
        return torch.einsum("nc,knc,lnc->kl", probs, centred, centred) + self.held.diag()
