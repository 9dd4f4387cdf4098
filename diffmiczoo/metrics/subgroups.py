"""`SubgroupTable`: metrics of a model on parts of the images, such as of women and men, as values, JSON and text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.report import number_text
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.runtime.text import plain_text

#: What is measured, where the task has it.
COLUMNS = ("accuracy", "balanced_accuracy", "auroc", "ece")

#: A subgroup with fewer images or groups (patients, lesions) has no numbers: they would be chance.
MIN_IMAGES, MIN_GROUPS = 20, 10

TOO_FEW = "too few"


@dataclass(frozen=True)
class Subgroup:
    """Metrics on the images of a subgroup.

    Attributes:
        name: of the subgroup; "all" for all images.
        num_images: how many.
        num_groups: how many groups these are; None where images have no groups.
        num_classes: how many classes they show; balanced accuracy and AUROC are means over those alone.
        values: metric → value; empty where there are too few.
        intervals: metric → lower and upper end of the 95 % interval.
    """

    name: str
    num_images: int
    num_groups: int | None
    num_classes: int
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values; NaN, which JSON does not have, becomes None."""
        values = {name: None if math.isnan(value) else value for name, value in self.values.items()}
        return vars(self) | {"values": values, "intervals": {name: list(ends) for name, ends in self.intervals.items()}}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Subgroup:
        """Builds it from what `to_dict` writes."""
        values = {name: math.nan if value is None else value for name, value in found["values"].items()}
        intervals = {name: (low, high) for name, (low, high) in found["intervals"].items()}
        images, groups, classes = (found[name] for name in ("num_images", "num_groups", "num_classes"))
        return cls(found["name"], images, groups, classes, values, intervals)

    def cells(self, metrics: list[str]) -> list[str]:
        """Returns metrics with their intervals as texts; the first says so where there are too few images."""
        if not self.values:
            return [TOO_FEW] + ["–"] * (len(metrics) - 1)
        ends = {name: " [{:.3f}, {:.3f}]".format(*both) for name, both in self.intervals.items()}
        return [number_text(self.values[name]) + ends.get(name, "") for name in metrics]


@dataclass(frozen=True)
class SubgroupTable:
    """Metrics on the images of each subgroup of a column.

    Attributes:
        column: that divides the images.
        everything: all of them.
        subgroups: each image is in one.
        num_classes: of the model.
        note: how numbers were cut into ranges; "" for values as they are.
    """

    column: str
    everything: Subgroup
    subgroups: tuple[Subgroup, ...]
    num_classes: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values."""
        parts = {"everything": self.everything.to_dict(), "subgroups": [each.to_dict() for each in self.subgroups]}
        return vars(self) | parts

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> SubgroupTable:
        """Builds it from what `to_dict` writes.

        Raises:
            ValueError: it is something else.
        """
        try:
            subgroups = tuple(map(Subgroup.from_dict, found["subgroups"]))
            everything = Subgroup.from_dict(found["everything"])
            return cls(found["column"], everything, subgroups, found["num_classes"], found["note"])
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidValueError(f"no table of subgroups: {error!r}") from error

    def columns(self) -> dict[str, list[str]]:
        """Returns the table, heading → cells, all images last."""
        rows = (*self.subgroups, self.everything)
        found = {
            self.column: [plain_text(row.name) for row in rows],
            "images": [f"{row.num_images:,}" for row in rows],
        }
        if self.everything.num_groups is not None:
            found["groups"] = ["–" if row.num_groups is None else f"{row.num_groups:,}" for row in rows]
        found["classes"] = [str(row.num_classes) for row in rows]
        metrics = [name for name in COLUMNS if any(name in row.values for row in rows)] or list(COLUMNS[:1])
        cells = zip(*(row.cells(metrics) for row in rows), strict=True)
        return found | {find_metric(name).short_label: list(each) for name, each in zip(metrics, cells, strict=True)}

    def notes(self) -> str:
        """Returns what has to be known to read the table, in sentences; "" for nothing."""
        said = [f"{self.note[0].upper()}{self.note[1:]}."] if self.note else []
        if any(not row.values for row in self.subgroups):
            said.append(f"Too few: less than {MIN_IMAGES} images or {MIN_GROUPS} groups.")
        if any(row.num_classes < self.num_classes for row in self.subgroups if row.values):
            said.append(
                f"Some subgroups show less than the {self.num_classes} classes; balanced accuracy and AUROC are means "
                "over those that they show, and do not compare with the others'."
            )
        if "ece" in self.everything.values:
            said.append("ECE is larger by chance alone where there are fewer images.")
        return " ".join(said)

    def table(self) -> str:
        """Returns the table and its notes as lines of text."""
        columns = [[heading, *cells] for heading, cells in self.columns().items()]
        widths = [max(map(len, column)) for column in columns]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in zip(*columns, strict=True)
        ]
        return "\n".join([*lines, self.notes()]).rstrip()
