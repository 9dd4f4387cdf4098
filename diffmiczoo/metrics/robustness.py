"""`Robustness`: how a model holds on pictures that went wrong, as values, as JSON and as a printed table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.report import number_text
from diffmiczoo.metrics.table import find_metric

#: What is measured, where the task has it.
COLUMNS = {
    "multiclass": ("accuracy", "balanced_accuracy", "ece", "nll"),
    "multilabel": ("accuracy", "auroc", "ece", "nll"),
}

CLEAN, MEAN = "clean", "mean"

#: Fields of a row that only some weights fill.
_SHARES = ("coverage", "set_size", "flagged")


@dataclass(frozen=True)
class RobustnessRow:
    """What a model reaches on the same pictures in one state.

    Attributes:
        corruption: a name of `images.corruptions.CORRUPTIONS`; "clean" for the pictures as they are, "mean" for the
            mean over all others.
        severity: 1, 2 or 3; 0 for "clean" and "mean".
        values: metric → value.
        coverage: share of the true labels that are in the prediction sets; None without sets.
        set_size: mean number of classes in a set: a large one covers without saying much; None without sets.
        flagged: share of the pictures that are flagged as unlike the training pictures; None without a gate.
    """

    corruption: str
    severity: int
    values: dict[str, float]
    coverage: float | None = None
    set_size: float | None = None
    flagged: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values; NaN, which JSON does not have, becomes None."""
        values = {name: None if math.isnan(value) else value for name, value in self.values.items()}
        return vars(self) | {"values": values}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> RobustnessRow:
        """Builds it from what `to_dict` writes."""
        values = {name: math.nan if value is None else value for name, value in found["values"].items()}
        shares = (found[name] for name in _SHARES)
        return cls(found["corruption"], found["severity"], values, *shares)


@dataclass(frozen=True)
class Robustness:
    """How a model holds on pictures that went wrong.

    Attributes:
        num_images: N, in each row.
        alpha: level of the sets whose coverage is in the rows.
        clean: the pictures as they are.
        rows: each corruption at each severity.
    """

    num_images: int
    alpha: float
    clean: RobustnessRow
    rows: tuple[RobustnessRow, ...]

    @property
    def mean(self) -> RobustnessRow:
        """The mean over `rows`."""
        values = {name: _mean([row.values[name] for row in self.rows]) for name in self.clean.values}
        shares = ([getattr(row, name) for row in self.rows] for name in _SHARES)
        return RobustnessRow(MEAN, 0, values, *(None if None in each else _mean(each) for each in shares))

    def worst(self) -> tuple[RobustnessRow, ...]:
        """Returns the row of each corruption at its highest severity, in the order of `rows`."""
        return tuple({row.corruption: row for row in sorted(self.rows, key=lambda row: row.severity)}.values())

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values; the mean is among them and not read back."""
        return {
            "num_images": self.num_images,
            "alpha": self.alpha,
            "clean": self.clean.to_dict(),
            "mean": self.mean.to_dict(),
            "rows": [row.to_dict() for row in self.rows],
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Robustness:
        """Builds it from what `to_dict` writes.

        Raises:
            ValueError: it is something else.
        """
        try:
            rows = tuple(map(RobustnessRow.from_dict, found["rows"]))
            return cls(found["num_images"], found["alpha"], RobustnessRow.from_dict(found["clean"]), rows)
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidValueError(f"no measurement of robustness: {error!r}") from error

    def columns(self) -> dict[str, str]:
        """Returns the names of a row's numbers → their headings: those that there are."""
        found = {name: find_metric(name).short_label for name in self.clean.values}
        headings = zip(_SHARES, (f"sets cover ({self.alpha:g})", "set size", "flagged"), strict=True)
        return found | {name: text for name, text in headings if getattr(self.clean, name) is not None}

    def cells(self, row: RobustnessRow) -> list[str]:
        """Returns a row's numbers as texts, one for each of `columns`."""
        numbers: dict[str, float | None] = {**row.values, **{name: getattr(row, name) for name in _SHARES}}
        return [number_text(math.nan if (value := numbers[name]) is None else value) for name in self.columns()]

    def table(self) -> str:
        """Returns the rows as lines of text."""
        headings = self.columns().values()
        lines = [f"{self.num_images:,} images, in {len(self.rows)} corrupted versions", ""]
        lines.append(f"{'corruption':<12} {'severity':>8}" + "".join(f"  {heading:>9}" for heading in headings))
        for row in (self.clean, *self.rows, self.mean):
            severity = str(row.severity) if row.severity else ""
            texts = zip(self.cells(row), headings, strict=True)
            cells = "".join(f"  {text:>{max(9, len(heading))}}" for text, heading in texts)
            lines.append(f"{row.corruption:<12} {severity:>8}{cells}")
        return "\n".join(lines)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
