"""`LabelledPredictions`: probabilities beside the true labels, as a CSV table and to compare with another model's."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.cells import join_cell, single_cell, split_cell
from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.rows import read_rows
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import write_text
from diffmiczoo.metrics.classification import compare_metrics, compute_metrics, scored_images
from diffmiczoo.metrics.medmnist import medmnist_scores
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.weighted import ScoredImages

#: First minus second value, and its 95 % interval low and high.
Difference = tuple[float, float, float]

_PREFIX = "prob_"


@dataclass(frozen=True)
class LabelledPredictions:
    """What a model predicts for labelled images.

    Attributes:
        names: N images.
        labels: of each image, the true ones.
        groups: lesion, patient or the like of each image; None where they have none.
        probs: (N, C) in [0, 1].
        class_names: C names.
        task: "multiclass" or "multilabel".
        ordinal: the classes are grades in order.
        thresholds: C probabilities from which a label is given; None means 0.5.
        label_adjustment: C offsets on log probabilities for the label of a "multiclass" model; None means none.
        benchmark: see `Manifest.benchmark`.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    groups: tuple[str, ...] | None
    probs: Tensor
    class_names: tuple[str, ...]
    task: str
    ordinal: bool = False
    thresholds: tuple[float, ...] | None = None
    label_adjustment: tuple[float, ...] | None = None
    benchmark: str = ""

    @classmethod
    def of(
        cls, manifest: Manifest, probs: Tensor, config: DiffMICConfig, *, fitted: bool = True
    ) -> LabelledPredictions:
        """Puts probabilities beside the images that they are for.

        Args:
            manifest: the images.
            probs: (N, C).
            config: of the model.
            fitted: whether its decision rule (thresholds, label adjustment) was fitted to these probabilities.
        """
        groups = manifest.groups()
        return cls(
            tuple(str(record.path) for record in manifest.records),
            tuple(record.labels for record in manifest.records),
            None if groups is None else tuple(groups),
            probs,
            config.labels,
            config.task,
            config.ordinal,
            (config.thresholds or None) if fitted else None,
            (config.label_adjustment or None) if fitted else None,
            manifest.benchmark,
        )

    @property
    def targets(self) -> Tensor:
        """The truth: (N,) int64, or (N, C) of 0 and 1 for "multilabel"."""
        index = {name: number for number, name in enumerate(self.class_names)}
        if self.task == "multiclass":
            return torch.tensor([index[labels[0]] for labels in self.labels])
        return torch.tensor([[float(name in labels) for name in self.class_names] for labels in self.labels])

    def scored(self) -> ScoredImages:
        """Returns what metrics are computed from."""
        rule = {"thresholds": self.thresholds, "label_adjustment": self.label_adjustment}
        return scored_images(self.probs, self.targets, task=self.task, **rule)

    @property
    def num_units(self) -> int:
        """How many groups there are, or images where these have no groups: what a resample draws."""
        return len(self.names) if self.groups is None else group_numbers(self.groups)[1]

    def select(self, rows: Sequence[int]) -> LabelledPredictions:
        """Returns the predictions for some of the images, by their places."""
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        names, labels = tuple(self.names[row] for row in rows), tuple(self.labels[row] for row in rows)
        return replace(self, names=names, labels=labels, groups=groups, probs=self.probs[list(rows)])

    def metrics(self, bootstrap: int = 1000, seed: int = 0, progress: bool | None = None) -> Metrics:
        """Returns `compute_metrics` of these predictions, with the benchmark's own metrics where they are for one."""
        found = compute_metrics(
            self.probs,
            self.targets,
            task=self.task,
            class_names=self.class_names,
            groups=self.groups,
            ordinal=self.ordinal,
            thresholds=self.thresholds,
            label_adjustment=self.label_adjustment,
            bootstrap=bootstrap,
            seed=seed,
            progress=progress,
        )
        return replace(found, medmnist=medmnist_scores(self.scored())) if self.benchmark else found

    def difference(
        self, other: LabelledPredictions, bootstrap: int = 1000, seed: int = 0, progress: bool | None = None
    ) -> dict[str, Difference]:
        """Returns metric → (this - other, and its 95 % interval low and high), see `compare_metrics`.

        Raises:
            ValueError: the predictions are for other images or classes.
        """
        self.check_same_images(other)
        return compare_metrics(
            self.probs,
            other.probs,
            self.targets,
            task=self.task,
            groups=self.groups,
            ordinal=self.ordinal,
            thresholds=self.thresholds,
            second_thresholds=other.thresholds,
            label_adjustment=self.label_adjustment,
            second_label_adjustment=other.label_adjustment,
            bootstrap=bootstrap,
            seed=seed,
            progress=progress,
        )

    def check_same_images(self, other: LabelledPredictions) -> None:
        """Raises ValueError where the predictions are for other images, labels or classes."""
        if self.class_names != other.class_names or self.task != other.task:
            raise InvalidValueError(
                f"the predictions are for other classes: {list(self.class_names)} ({self.task}) and "
                f"{list(other.class_names)} ({other.task})"
            )
        if self.names == other.names and self.labels == other.labels:
            return
        others = set(other.names)
        different = [name for name in self.names if name not in others] or [
            one
            for one, another, mine, theirs in zip(self.names, other.names, self.labels, other.labels, strict=False)
            if one != another or mine != theirs
        ]
        first = f", first {different[0]}" if different else ""
        raise InvalidValueError(
            f"the predictions are for {len(self.names)} and {len(other.names)} images that are not the same, in the "
            f"same order and with the same labels{first}"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a CSV: name, target (several joined by "|"), group where there are any, and prob_<class> per class."""
        table = io.StringIO()
        writer = csv.writer(table)
        group = [] if self.groups is None else ["group"]
        writer.writerow(["name", "target", *group, *(f"{_PREFIX}{join_cell((name,))}" for name in self.class_names)])
        for row, name in enumerate(self.names):
            own = [] if self.groups is None else [join_cell((self.groups[row],))]
            values = (f"{value:.7g}" for value in self.probs[row].tolist())
            writer.writerow([join_cell((name,)), join_cell(self.labels[row]), *own, *values])
        write_text(Path(path), table.getvalue())

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], ordinal: bool = False, thresholds: tuple[float, ...] | None = None
    ) -> LabelledPredictions:
        """Reads what `save` wrote; multi-label where the probabilities of a row do not sum to 1.

        Args:
            path: the CSV.
            ordinal: the classes are grades in order; the table does not say so.
            thresholds: C probabilities from which a label is given, which the table does not hold either.

        Raises:
            FileNotFoundError: it does not exist.
            ValueError: it is no such table.
        """
        rows = read_rows(Path(path))
        columns = list(rows[0][1]) if rows else []
        of_classes = [name for name in columns if name.startswith(_PREFIX)]
        names = tuple(single_cell(name.removeprefix(_PREFIX)) for name in of_classes)
        if not {"name", "target"} <= set(columns) or len(names) < 2:
            raise InvalidValueError(
                f"{path}: needs the columns name, target and prob_<class> for each class, as `diffmiczoo evaluate "
                f"--predictions` writes them; found {columns}"
            )
        try:
            probs = torch.tensor([[float(row[name]) for name in of_classes] for _, row in rows])
        except ValueError as error:
            raise InvalidValueError(f"{path}: a probability is not a number ({error})") from error
        labels = tuple(split_cell(row["target"]) for _, row in rows)
        unknown = sorted({label for each in labels for label in each} - set(names))
        if unknown:
            raise InvalidValueError(f"{path}: targets {unknown} have no column of probabilities")
        groups = tuple(single_cell(row["group"]) for _, row in rows) if "group" in columns else None
        one_each = all(len(each) == 1 for each in labels) and bool((probs.sum(1) - 1).abs().max() < 1e-2)
        task = "multiclass" if one_each else "multilabel"
        images = tuple(single_cell(row["name"]) for _, row in rows)
        return cls(images, labels, groups, probs, names, task, ordinal, thresholds)
