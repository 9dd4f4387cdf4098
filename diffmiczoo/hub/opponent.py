"""`Opponent`: a plain classifier beside which weights were measured, at the same budget."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from diffmiczoo.metrics.table import find_metric

#: What a comparison is told by in words.
_TOLD = ("nll", "balanced_accuracy", "auroc")


@dataclass(frozen=True)
class Opponent:
    """What a plain classifier reaches on the same test images after training with the same budget.

    Attributes:
        name: of the model, as `create_model` takes it.
        seeds: seed → metric → value, of runs that differ in nothing else.
        differences: metric → (the weights' value - that of the opponent's best seed on the validation split, and its
            95 % interval low and high), on the same resamples.
    """

    name: str
    seeds: dict[str, dict[str, float]]
    differences: dict[str, tuple[float, float, float]]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Opponent:
        """Reads what `metrics.json` holds under "opponent"."""
        differences = {name: tuple(each) for name, each in values["differences"].items()}
        return cls(values["name"], values["seeds"], differences)

    def verdict(self, own: dict[str, dict[str, float]]) -> str:
        """Says in words what the weights have over the opponent, and what not.

        Args:
            own: seed → metric → value of the weights' own runs; with two or more on both sides, means are compared
                too, in standard deviations.
        """
        said = [self._said(name, own) for name in _TOLD if name in self.differences]
        return f"Against {self.name}, trained with the same budget: {'; '.join(said)}." if said else ""

    def _said(self, name: str, own: dict[str, dict[str, float]]) -> str:
        value, low, high = self.differences[name]
        metric = find_metric(name)
        if low <= 0 <= high:
            found = "no difference that excludes 0"
        else:
            found = "better" if metric.quality(value) > metric.quality(0.0) else "worse"
        text = f"{metric.short_label} {value:+.3f} [{low:+.3f}, {high:+.3f}], {found}"
        means = [[run[name] for run in runs.values() if name in run] for runs in (own, self.seeds)]
        if min(map(len, means)) < 2:
            return text
        spread = max(statistics.stdev(values) for values in means)
        distance = statistics.mean(means[0]) - statistics.mean(means[1])
        return f"{text} (means of the seeds: {distance:+.3f}, {abs(distance) / spread:.1f} sd)" if spread else text
