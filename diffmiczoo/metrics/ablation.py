"""`Ablation`: what each member of a model's pool is worth alone and with others, as a table and in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffmiczoo.metrics.report import number_text
from diffmiczoo.metrics.table import find_metric

#: Row → what it is, in the order of the table. "pool" is the model as it predicts.
ROWS = {
    "global": "ŷ_g alone",
    "local": "ŷ_l alone",
    "priors": "ŷ_g and ŷ_l weighted",
    "logistic": "logistic regression on F",
    "logistic_pool": "logistic regression on F, ŷ_g and ŷ_l weighted",
    "feature": "ŷ_F alone, the classifier on F",
    "all_priors": "ŷ_g, ŷ_l and ŷ_F weighted",
    "sampler": "sampler alone",
    "pool": "pool: sampler and all priors",
}

#: Rows that the pool is compared with: what can be had without the diffusion.
RIVALS = ("priors", "logistic_pool", "all_priors")

COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "quadratic_kappa", "nll", "ece")

#: What has to be better for a second stage to pay; the first is the one that calibration optimises.
_JUDGED = ("nll", "balanced_accuracy", "macro_f1")

#: First minus second value, and its 95 % interval low and high.
Difference = tuple[float, float, float]


@dataclass(frozen=True)
class Ablation:
    """Metrics of members of a pool on the same images, each calibrated on the same validation images.

    Attributes:
        values: row of `ROWS` → metric → value.
        differences: row of `RIVALS` → metric → pool - row, and its 95 % interval low and high; empty without resamples.
    """

    values: dict[str, dict[str, float]]
    differences: dict[str, dict[str, Difference]]

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values; NaN, which JSON does not have, becomes None."""
        values = {
            row: {name: None if math.isnan(value) else value for name, value in each.items()}
            for row, each in self.values.items()
        }
        differences = {row: {name: list(ends) for name, ends in each.items()} for row, each in self.differences.items()}
        return {"values": values, "differences": differences}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Ablation:
        """Builds it from what `to_dict` writes."""
        return cls(
            {
                row: {name: math.nan if value is None else value for name, value in each.items()}
                for row, each in found["values"].items()
            },
            {
                row: {name: (ends[0], ends[1], ends[2]) for name, ends in each.items()}
                for row, each in found["differences"].items()
            },
        )

    def table(self) -> str:
        """Returns the rows as a Markdown table, and below them what the pool is better by."""
        columns = [name for name in COLUMNS if name in self.values["pool"]]
        lines = [
            "| | " + " | ".join(find_metric(name).short_label for name in columns) + " |",
            "|---|" + "---|" * len(columns),
        ]
        for row, label in ROWS.items():
            if row in self.values:
                cells = [number_text(self.values[row][name]) for name in columns]
                lines.append(f"| {label} | " + " | ".join(cells) + " |")
        for row, differences in self.differences.items():
            cells = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*differences[name]) for name in columns]
            lines.append(f"| pool − {ROWS[row]} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def verdict(self) -> str:
        """Says in words whether the second stage pays: from the intervals, for each rival."""
        return " ".join(
            self._against(row, {name: each[name] for name in _JUDGED if name in each})
            for row, each in self.differences.items()
        )

    def _against(self, row: str, differences: dict[str, Difference]) -> str:
        better = [name for name, ends in differences.items() if _sign(name, ends) > 0]
        worse = [name for name, ends in differences.items() if _sign(name, ends) < 0]
        told = {name: find_metric(name).label for name in differences}
        rival = ROWS[row]
        if better and not worse:
            text = f"The second stage beats *{rival}* in {_listed(told[name] for name in better)}"
            others = [told[name] for name in differences if name not in better]
            return text + (f", and not in {_listed(others)}." if others else ".")
        if worse:
            text = f"**The second stage does not pay against *{rival}***: it is worse in "
            text += _listed(told[name] for name in worse)
            return text + (f", better in {_listed(told[name] for name in better)}." if better else ".")
        return (
            f"**The second stage does not beat *{rival}***, which needs no sampling: the differences in "
            f"{_listed(told.values())} cannot be told from 0 on these images."
        )


def _sign(name: str, ends: Difference) -> int:
    """Returns 1 where the pool is better beyond chance, -1 where it is worse, else 0."""
    _, low, high = ends
    if not low * high > 0:
        return 0
    return 1 if (low > 0) == find_metric(name).higher_is_better else -1


def _listed(words: Any) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else str(last)
