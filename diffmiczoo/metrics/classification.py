"""Metrics of a classifier with bootstrap intervals, and of two on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multilabel_f1_score,
    multilabel_precision,
    multilabel_recall,
)

from diffmiczoo.metrics.bootstrap import WeightedMetrics, bootstrap_intervals, paired_intervals, quadratic_kappa
from diffmiczoo.metrics.calibration import expected_calibration_error
from diffmiczoo.metrics.checks import checked_matrix, indicator
from diffmiczoo.metrics.report import PER_CLASS, Metrics

_ORDER = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "quadratic_kappa",
    "auroc",
    "average_precision",
    "ece",
    "nll",
    "brier",
)
_ONLY = {"balanced_accuracy": "multiclass", "quadratic_kappa": "multiclass", "average_precision": "multilabel"}


def metric_names(task: str, ordinal: bool = False) -> tuple[str, ...]:
    """Returns the names of the metrics that `compute_metrics` has for a task."""
    names = (name for name in _ORDER if _ONLY.get(name, task) == task)
    return tuple(name for name in names if ordinal or name != "quadratic_kappa")


def compute_metrics(
    probs: Any,
    targets: Any,
    *,
    task: str,
    class_names: Sequence[str] | None = None,
    groups: Sequence[Any] | None = None,
    ordinal: bool = False,
    thresholds: Sequence[float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Metrics:
    """Compares probabilities with the truth.

    "multiclass":

    - accuracy: share of images whose most probable class is right (the first of equally probable ones counts);
    - balanced_accuracy: mean recall over the classes that are present in the targets;
    - macro_f1: mean over the classes that are present in targets or predictions;
    - auroc: mean of one class against the rest, over the classes with positive and negative images;
    - ece: `expected_calibration_error` of the most probable class, 15 bins;
    - nll: mean of -log p of the right class;
    - brier: mean of Σ_c (p_c - y_c)², 0..2;
    - quadratic_kappa, where the classes are grades in order: agreement beyond chance, -1..1, that counts a miss by the
      square of its distance.

    "multilabel", a label is given where its probability is at least its threshold, 0.5 by default:

    - accuracy: share of right decisions, over all images and labels;
    - macro_f1, auroc, average_precision: means over the labels with positive and negative images;
    - ece, nll, brier: of all decisions, that is of each p of a label against 0 or 1; brier 0..1.

    Probabilities of 0 and 1 count as 2e-16 away from it in nll. 95 % intervals are percentiles over resamples of the
    images, or of whole groups; images of one lesion or patient are alike, and drawing them one by one would give
    intervals that are too narrow. In a resample the means are taken over the classes that are defined in it.

    Args:
        probs: (N, C) in [0, 1], C ≥ 2; rows sum to 1 for "multiclass".
        targets: (N,) class indices, or (N, C) of 0 and 1 for "multilabel".
        task: "multiclass" or "multilabel".
        class_names: C names; "class_0", "class_1", … by default.
        groups: N lesions, patients or the like, anything that can be compared.
        ordinal: the classes are grades in order.
        thresholds: C probabilities, for "multilabel".
        bootstrap: number of resamples; 0 for no intervals. One image or one group has none either.
        seed: of the resamples; the global random state is left alone.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: lengths do not fit, there are no images, probabilities are NaN or not in [0, 1] or do not sum to
            1, or targets are out of range.

    Source: the metrics are torchmetrics' where it has them with this meaning.
    """
    probs = _checked_probs(probs, task)
    truth = indicator(targets, probs.shape, task)
    names = _checked_names(class_names, probs.shape[1])
    if bootstrap < 0:
        raise ValueError(f"bootstrap={bootstrap} must not be negative")
    units, num_units = _group_numbers(groups, len(probs))
    decisions = _decisions(probs, task, thresholds)
    losses, calibration = _losses(probs, truth, decisions, task), _calibration(probs, truth, task)
    table = _class_table(probs, truth, decisions)
    values = {name: float(loss.mean()) for name, loss in losses.items()} | _macro(table, task)
    values["ece"] = expected_calibration_error(calibration[0].flatten(), calibration[1].flatten())
    if ordinal:
        confusion = truth.double().T @ decisions.double()
        values["quadratic_kappa"] = float(quadratic_kappa(confusion[None].numpy())[0])
    intervals = {}
    if bootstrap and num_units > 1:
        weighted = _weighted(probs, truth, decisions, task, ordinal)
        intervals = bootstrap_intervals(weighted, units, bootstrap, seed, progress)
    order = [name for name in _ORDER if name in values]
    return Metrics(
        values={name: values[name] for name in order},
        intervals={name: intervals[name] for name in order if name in intervals},
        per_class={name: _row(table, index) for index, name in enumerate(names)},
        num_images=len(probs),
        num_groups=None if groups is None else num_units,
        left_out=tuple(name for name, both in zip(names, table["both_kinds"].tolist(), strict=True) if not both),
    )


def compare_metrics(
    first: Any,
    second: Any,
    targets: Any,
    *,
    task: str,
    groups: Sequence[Any] | None = None,
    ordinal: bool = False,
    thresholds: Sequence[float] | None = None,
    second_thresholds: Sequence[float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> dict[str, tuple[float, float, float]]:
    """Returns how much better or worse one model's probabilities are than another's on the same images.

    Args:
        first: (N, C), see `compute_metrics`.
        second: (N, C), another model's.
        targets: see `compute_metrics`.
        task: "multiclass" or "multilabel".
        groups: N lesions, patients or the like; drawn whole.
        ordinal: the classes are grades in order.
        thresholds: of the first model, see `compute_metrics`.
        second_thresholds: of the second.
        bootstrap: number of resamples, ≥ 1; both models are judged on the same ones.
        seed: of the resamples.
        progress: show a bar; by default where the standard error is a terminal.

    Returns:
        Metric → (first - second, and its 95 % interval low and high). An interval that holds 0 says that these
        images do not tell the models apart.

    Raises:
        ValueError: as `compute_metrics` does, there is one image or group only, or `bootstrap` is less than 1.
    """
    if bootstrap < 1:
        raise ValueError(f"bootstrap={bootstrap} must be at least 1")
    own = (thresholds, second_thresholds)
    one, other = (
        compute_metrics(probs, targets, task=task, ordinal=ordinal, thresholds=limits, bootstrap=0).values
        for probs, limits in zip((first, second), own, strict=True)
    )
    matrices = [_checked_probs(probs, task) for probs in (first, second)]
    units, num_units = _group_numbers(groups, len(matrices[0]))
    if num_units < 2:
        raise ValueError("a comparison needs at least two images, or two groups")
    left, right = (
        _weighted(probs, indicator(targets, probs.shape, task), _decisions(probs, task, limits), task, ordinal)
        for probs, limits in zip(matrices, own, strict=True)
    )
    intervals = paired_intervals(left, right, units, bootstrap, seed, progress)
    return {name: (one[name] - other[name], *intervals[name]) for name in one if name in intervals}


# ---------------------------------------------------------------------- the parts of compute_metrics


def _weighted(probs: Tensor, truth: Tensor, decisions: Tensor, task: str, ordinal: bool) -> WeightedMetrics:
    losses, calibration = _losses(probs, truth, decisions, task), _calibration(probs, truth, task)
    return WeightedMetrics(probs, truth, decisions, losses, calibration, task, ordinal)


def _checked_probs(probs: Any, task: str) -> Tensor:
    matrix = checked_matrix(probs, "probs")
    if not ((matrix >= 0) & (matrix <= 1)).all():
        low, high = matrix.min().item(), matrix.max().item()
        raise ValueError(f"probs are between {low:.4g} and {high:.4g}; expected [0, 1], scores_to_probs gives these")
    # Half precision rounds each of the probabilities, hence the wide tolerance.
    if task == "multiclass" and not torch.allclose(matrix.sum(1), torch.ones(()).double(), atol=1e-2):
        raise ValueError("probs of a multiclass task must sum to 1 in each row; for independent labels use multilabel")
    return matrix


def _checked_names(class_names: Sequence[str] | None, count: int) -> list[str]:
    names = [f"class_{index}" for index in range(count)] if class_names is None else list(class_names)
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"class_names holds {len(set(names))} different names; probs have {count} columns")
    return names


def _group_numbers(groups: Any, count: int) -> tuple[np.ndarray, int]:
    """Returns each image's group as 0..G-1, in order of appearance, and G."""
    if groups is None:
        return np.arange(count), count
    # The elements of arrays and tensors are objects that differ although their values are equal.
    keys = groups.tolist() if isinstance(groups, np.ndarray | Tensor) else list(groups)
    if len(keys) != count:
        raise ValueError(f"groups has {len(keys)} entries for {count} images")
    if any(key is None or key != key for key in keys):
        raise ValueError("groups has an entry that is None or NaN; give an image without a group one of its own")
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys]), len(numbers)


def _decisions(probs: Tensor, task: str, thresholds: Sequence[float] | None = None) -> Tensor:
    """Returns what `Prediction.labels` says as (N, C) bool."""
    if task == "multilabel":
        return probs >= torch.tensor(thresholds or [0.5], dtype=probs.dtype)
    return torch.nn.functional.one_hot(probs.argmax(1), probs.shape[1]).bool()


def _losses(probs: Tensor, truth: Tensor, decisions: Tensor, task: str) -> dict[str, Tensor]:
    """Returns the metrics that are means over the images, (N,) each."""
    eps = torch.finfo(torch.float64).eps
    squares = (probs - truth.double()).square()
    if task == "multiclass":
        right = (probs * truth).sum(1)
        return {
            "accuracy": (decisions & truth).any(1).double(),
            "nll": -right.clamp(min=eps).log(),
            "brier": squares.sum(1),
        }
    of_truth = torch.where(truth, probs, 1 - probs)
    return {
        "accuracy": (decisions == truth).double().mean(1),
        "nll": -of_truth.clamp(min=eps).log().mean(1),
        "brier": squares.mean(1),
    }


def _calibration(probs: Tensor, truth: Tensor, task: str) -> tuple[Tensor, Tensor]:
    """Returns confidence and outcome, (N, D) both: the most probable class, or every label."""
    if task == "multilabel":
        return probs, truth.double()
    confidence, index = probs.max(1, keepdim=True)
    return confidence, truth.gather(1, index).double()


def _class_table(probs: Tensor, truth: Tensor, decisions: Tensor) -> dict[str, Tensor]:
    """Returns the metrics per class, (C,) each, NaN where not defined, and "support" and "both_kinds"."""
    support, decided, classes = truth.sum(0), decisions.sum(0), truth.shape[1]
    both_kinds = (support > 0) & (support < len(truth))
    whole = decisions.long(), truth.long(), classes
    table = {
        "recall": _defined(multilabel_recall(*whole, average="none"), support > 0),
        "precision": _defined(multilabel_precision(*whole, average="none"), decided > 0),
        "f1": _defined(multilabel_f1_score(*whole, average="none"), support + decided > 0),
    }
    for name, metric in (("auroc", binary_auroc), ("average_precision", binary_average_precision)):
        table[name] = torch.full((classes,), math.nan, dtype=torch.float64)
        for index in both_kinds.nonzero().flatten().tolist():
            table[name][index] = metric(probs[:, index], whole[1][:, index])
    return table | {"support": support, "both_kinds": both_kinds}


def _macro(table: dict[str, Tensor], task: str) -> dict[str, float]:
    """Returns the means over the classes that are defined."""
    if task == "multiclass":
        means = {"balanced_accuracy": table["recall"], "macro_f1": table["f1"], "auroc": table["auroc"]}
    else:
        f1 = _defined(table["f1"], table["both_kinds"])
        means = {"macro_f1": f1, "auroc": table["auroc"], "average_precision": table["average_precision"]}
    return {name: values.nanmean().item() for name, values in means.items()}


def _defined(values: Tensor, where: Tensor) -> Tensor:
    return values.double().where(where, math.nan)


def _row(table: dict[str, Tensor], index: int) -> dict[str, float]:
    return {name: table[name][index].item() for name in PER_CLASS}
