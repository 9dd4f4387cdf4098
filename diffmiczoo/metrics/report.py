"""`Metrics`: the result of an evaluation, as values, as JSON and as a printed table."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.medmnist import MedMNISTScores
from diffmiczoo.metrics.table import class_metrics, overall_metrics
from diffmiczoo.runtime.text import plain_text

_SUPPORT = "support"


@dataclass(frozen=True)
class Metrics:
    """Metrics of a model on a data set; `print` shows them as a table.

    Attributes:
        values: name → value, see `diffmiczoo.metrics.table`; NaN where the data do not define it.
        intervals: name → lower and upper end of the 95 % interval; without the metrics that have none.
        per_class: class → name → value of each metric per class, NaN where not defined, and "support", the number of
            images with the class.
        num_images: N.
        num_groups: how many groups the intervals were drawn from; None where single images were drawn.
        left_out: classes of which there was no positive or no negative image, so that they are in no AUROC.
        num_trained_on: how many of the images the weights were trained on; None where that is not known.
        medmnist: both metrics of MedMNIST as it defines them; None where the images are not MedMNIST's.
    """

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: dict[str, dict[str, float]]
    num_images: int
    num_groups: int | None
    left_out: tuple[str, ...]
    num_trained_on: int | None = None
    medmnist: MedMNISTScores | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values; NaN, which JSON does not have, becomes None."""
        return {
            "values": _without_nan(self.values),
            "intervals": {name: list(ends) for name, ends in self.intervals.items()},
            "per_class": {name: _without_nan(row) for name, row in self.per_class.items()},
            "num_images": self.num_images,
            "num_groups": self.num_groups,
            "left_out": list(self.left_out),
            "num_trained_on": self.num_trained_on,
            **({} if self.medmnist is None else {"medmnist": self.medmnist.to_dict()}),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Metrics:
        """Builds metrics from what `to_dict` writes.

        Raises:
            ValueError: a field is missing or unknown.
        """
        expected = {field.name for field in dataclasses.fields(cls)}
        # Metrics of the first published weights do not say what was trained on.
        optional = {"num_trained_on", "medmnist"}
        missing, unknown = sorted(expected - optional - values.keys()), sorted(values.keys() - expected)
        if missing or unknown:
            raise InvalidValueError(f"metrics: missing fields {missing}, unknown fields {unknown}")
        return cls(
            values=_with_nan(values["values"]),
            intervals={name: (low, high) for name, (low, high) in values["intervals"].items()},
            per_class={name: _with_nan(row) for name, row in values["per_class"].items()},
            num_images=values["num_images"],
            num_groups=values["num_groups"],
            left_out=tuple(values["left_out"]),
            num_trained_on=values.get("num_trained_on"),
            medmnist=MedMNISTScores.from_dict(values["medmnist"]) if values.get("medmnist") else None,
        )

    def headline(self) -> str:
        """Returns the values of the headline metrics in one line."""
        names = [metric.name for metric in overall_metrics() if metric.headline]
        return ", ".join(f"{name} {self.values[name]:.4f}" for name in names if name in self.values)

    def __str__(self) -> str:
        groups = "" if self.num_groups is None else f" in {self.num_groups:,} groups"
        lines = [f"{self.num_images:,} images{groups}" + (", 95 % intervals" if self.intervals else "")]
        if self.num_trained_on:
            lines += [f"{self.num_trained_on:,} of them were used to train these weights: no measure of new images"]
        lines += [f"{name:<18}{number_text(value)}{self._interval(name)}" for name, value in self.values.items()]
        if self.medmnist is not None:
            lines += [str(self.medmnist)]
        columns = [metric.name for metric in class_metrics()]
        width = 2 + max(5, *(len(plain_text(label)) for label in self.per_class))
        lines += ["", "class".ljust(width) + "".join(_cell(name, name) for name in [*columns, _SUPPORT])]
        for label, row in self.per_class.items():
            cells = {name: number_text(row.get(name, math.nan)) for name in columns}
            cells[_SUPPORT] = f"{row[_SUPPORT]:,.0f}"
            lines.append(plain_text(label).ljust(width) + "".join(_cell(text, name) for name, text in cells.items()))
        if self.left_out:
            lines += ["", f"no positive or no negative image of: {', '.join(self.left_out)}"]
        return "\n".join(lines)

    def _interval(self, name: str) -> str:
        if name not in self.intervals:
            return ""
        low, high = self.intervals[name]
        return f" [{low:.3f}, {high:.3f}]"


def _cell(text: str, column: str) -> str:
    return text.rjust(2 + max(len(column), len("precision")))


def number_text(value: float) -> str:
    """Returns three decimals, or a dash for what is not defined."""
    return "–" if math.isnan(value) else f"{value:.3f}"


def _without_nan(row: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in row.items()}


def _with_nan(row: dict[str, float | None]) -> dict[str, float]:
    return {name: math.nan if value is None else value for name, value in row.items()}
