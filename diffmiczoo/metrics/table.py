"""The table of metrics: a new metric is a function in `definitions.py` and a row here.

Values, intervals, the printed report, model cards, the choices of `Recipe.select`, curves and the command line all read
this table when they are asked. It needs NumPy and nothing else, so that reading a recipe stays quick.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics import definitions as define
from diffmiczoo.metrics.weighted import WeightedImages


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Attributes:
        name: its key in `Metrics.values`, files and recipes; for `per_class`, in the rows of `Metrics.per_class`.
        label: the words for it in cards and tables; more exact words stand in brackets at the end.
        function: weighted images → (R,), or (R, C) for `per_class`; NaN where it is not defined.
        higher_is_better: False for errors and losses.
        tasks: where it has a meaning.
        needs_ordinal: only for classes that are grades in order.
        per_class: one value per class, a column of the table by class; in no interval and no choice of epochs.
        selects_epochs: `Recipe.select` may name it.
        headline: shown where there is room for a few only: the last lines of `diffmiczoo fit`, a card's table by class.
    """

    name: str
    label: str
    function: Callable[[WeightedImages], np.ndarray]
    higher_is_better: bool = True
    tasks: tuple[str, ...] = ("multiclass", "multilabel")
    needs_ordinal: bool = False
    per_class: bool = False
    selects_epochs: bool = True
    headline: bool = False

    @property
    def short_label(self) -> str:
        """The label without what stands in brackets."""
        return self.label.split(" (")[0]

    def quality(self, value: float) -> float:
        """Returns a number of which more is better; what is not defined (NaN) counts as the worst, -∞."""
        if math.isnan(value):
            return -math.inf
        return value if self.higher_is_better else -value


#: Every metric, in the order in which reports show them.
METRICS: tuple[Metric, ...] = (
    Metric("accuracy", "accuracy", define.accuracy, headline=True),
    Metric("balanced_accuracy", "balanced accuracy", define.balanced_accuracy, tasks=("multiclass",)),
    Metric("macro_f1", "macro F1", define.macro_f1, headline=True),
    Metric(
        "quadratic_kappa",
        "quadratic κ",
        define.quadratic_kappa,
        tasks=("multiclass",),
        needs_ordinal=True,
        headline=True,
    ),
    Metric("auroc", "AUROC (macro, one-vs-rest)", define.auroc, headline=True),
    Metric("average_precision", "average precision (macro)", define.average_precision, tasks=("multilabel",)),
    # Always giving the frequencies of the classes has no calibration error, so it cannot choose an epoch.
    Metric("ece", "ECE (15 bins)", define.calibration_error, higher_is_better=False, selects_epochs=False),
    Metric("nll", "NLL", define.nll, higher_is_better=False),
    Metric("brier", "Brier score", define.brier, higher_is_better=False),
    Metric("recall", "recall", define.recall_by_class, per_class=True, headline=True),
    Metric("precision", "precision", define.precision_by_class, per_class=True, headline=True),
    Metric("f1", "F1", define.f1_by_class, per_class=True, headline=True),
    Metric("auroc", "AUROC", define.auroc_by_class, per_class=True, headline=True),
    Metric("average_precision", "average precision", define.average_precision_by_class, per_class=True),
)


def overall_metrics() -> tuple[Metric, ...]:
    """Returns the metrics that are one number for all classes."""
    return tuple(metric for metric in METRICS if not metric.per_class)


def class_metrics() -> tuple[Metric, ...]:
    """Returns the metrics that are one number per class."""
    return tuple(metric for metric in METRICS if metric.per_class)


def metrics_for(task: str, ordinal: bool = False) -> tuple[Metric, ...]:
    """Returns the overall metrics of a task; with `ordinal`, also those of classes that are grades in order."""
    known = (metric for metric in overall_metrics() if task in metric.tasks)
    return tuple(metric for metric in known if ordinal or not metric.needs_ordinal)


def metric_names(task: str, ordinal: bool = False) -> tuple[str, ...]:
    """Returns the names of the metrics that `compute_metrics` has for a task."""
    return tuple(metric.name for metric in metrics_for(task, ordinal))


def selection_names() -> tuple[str, ...]:
    """Returns the names of the metrics that epochs may be chosen by."""
    return tuple(metric.name for metric in overall_metrics() if metric.selects_epochs)


def find_metric(name: str) -> Metric:
    """Returns an overall metric.

    Raises:
        ValueError: there is none of that name.
    """
    known = {metric.name: metric for metric in overall_metrics()}
    if name not in known:
        raise InvalidValueError(f"{name!r} is not a metric; known are {', '.join(known)}")
    return known[name]
