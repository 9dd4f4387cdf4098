"""Metrics of a classifier with bootstrap intervals, and of two on the same images."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import torch

from diffmiczoo.data.groups import group_numbers
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.decisions import decide
from diffmiczoo.metrics.bootstrap import Resampling, percentiles, resampled
from diffmiczoo.metrics.checks import Values, checked_matrix, indicator
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.table import Metric, class_metrics, metrics_for
from diffmiczoo.metrics.weighted import ScoredImages


def compute_metrics(
    probs: Values,
    targets: Values,
    *,
    task: str,
    class_names: Sequence[str] | None = None,
    groups: Iterable[Hashable] | None = None,
    ordinal: bool = False,
    thresholds: Sequence[float] | None = None,
    label_adjustment: Sequence[float] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Metrics:
    """Compares probabilities with the truth, by every metric of `diffmiczoo.metrics.table` that the task has.

    A multi-label model gives a label where its probability is at least the label's threshold. A metric that is a mean
    over classes leaves out those for which it is not defined. A probability of 0 for the truth counts as 2⁻⁵² in nll.

    95 % intervals are percentiles over resamples of the images, or of whole groups; images of one lesion or patient are
    alike, and drawing them one by one would give intervals that are too narrow. In a resample the means are taken over
    the classes that are defined in it.

    Args:
        probs: (N, C) in [0, 1], C ≥ 2; rows sum to 1 for "multiclass".
        targets: (N,) class indices, or (N, C) of 0 and 1 for "multilabel".
        task: "multiclass" or "multilabel".
        class_names: C names; "class_0", "class_1", … by default.
        groups: N lesions, patients or the like, anything that can be compared.
        ordinal: the classes are grades in order.
        thresholds: C probabilities, for "multilabel"; 0.5 each by default.
        label_adjustment: C offsets on log probabilities, for "multiclass", see `decide`; 0 each by default.
        bootstrap: number of resamples; 0 for no intervals. One image or one group has none either.
        seed: of the resamples; the global random state is left alone.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: lengths do not fit, there are no images, probabilities are NaN or not in [0, 1] or do not sum to
            1, or targets are out of range.
    """
    images = scored_images(probs, targets, task=task, thresholds=thresholds, label_adjustment=label_adjustment)
    names = _checked_names(class_names, images.probs.shape[1])
    if bootstrap < 0:
        raise InvalidValueError(f"bootstrap={bootstrap} must not be negative")
    units, num_units = _units(groups, len(images))
    metrics = metrics_for(task, ordinal)
    intervals = {}
    if bootstrap and num_units > 1:
        intervals = percentiles(resampled(images, metrics, Resampling(units, bootstrap, seed), progress))
    both_kinds = images.once_each().both_kinds[0]
    return Metrics(
        values=_values(images, metrics),
        intervals=intervals,
        per_class=_by_class(images, names),
        num_images=len(images),
        num_groups=None if groups is None else num_units,
        left_out=tuple(name for name, both in zip(names, both_kinds, strict=True) if not both),
    )


def compare_metrics(
    first: Values,
    second: Values,
    targets: Values,
    *,
    task: str,
    groups: Iterable[Hashable] | None = None,
    ordinal: bool = False,
    thresholds: Sequence[float] | None = None,
    second_thresholds: Sequence[float] | None = None,
    label_adjustment: Sequence[float] | None = None,
    second_label_adjustment: Sequence[float] | None = None,
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
        label_adjustment: of the first model, see `compute_metrics`.
        second_label_adjustment: of the second.
        bootstrap: number of resamples, ≥ 1; both models are measured on the same ones.
        seed: of the resamples.
        progress: show a bar; by default where the standard error is a terminal.

    Returns:
        Metric → (first - second, and its 95 % interval low and high). An interval that holds 0 means that these images
        do not tell the models apart.

    Raises:
        ValueError: as `compute_metrics` does, there is one image or group only, or `bootstrap` is less than 1.
    """
    if bootstrap < 1:
        raise InvalidValueError(f"bootstrap={bootstrap} must be at least 1")
    one = scored_images(first, targets, task=task, thresholds=thresholds, label_adjustment=label_adjustment)
    rule = {"thresholds": second_thresholds, "label_adjustment": second_label_adjustment}
    other = scored_images(second, targets, task=task, **rule)
    units, num_units = _units(groups, len(one))
    if num_units < 2:
        raise InvalidValueError("a comparison needs at least two images, or two groups")
    metrics, resampling = metrics_for(task, ordinal), Resampling(units, bootstrap, seed)
    left, right = (resampled(images, metrics, resampling, progress) for images in (one, other))
    intervals = percentiles({name: left[name] - right[name] for name in left})
    values, others = _values(one, metrics), _values(other, metrics)
    return {name: (values[name] - others[name], *intervals[name]) for name in values if name in intervals}


def scored_images(
    probs: Values,
    targets: Values,
    *,
    task: str,
    thresholds: Sequence[float] | None = None,
    label_adjustment: Sequence[float] | None = None,
) -> ScoredImages:
    """Returns what metrics are computed from, checked; see `compute_metrics` for the arguments and errors."""
    matrix = checked_matrix(probs, "probs")
    if not ((matrix >= 0) & (matrix <= 1)).all():
        low, high = matrix.min().item(), matrix.max().item()
        raise InvalidValueError(
            f"probs are between {low:.4g} and {high:.4g}; expected [0, 1], scores_to_probs gives these"
        )
    # Half precision rounds each of the probabilities, hence the wide tolerance.
    if task == "multiclass" and not torch.allclose(matrix.sum(1), torch.ones(()).double(), atol=1e-2):
        raise InvalidValueError(
            "probs of a multiclass task must sum to 1 in each row; for independent labels use multilabel"
        )
    truth = indicator(targets, matrix.shape, task)
    decisions = decide(matrix, task, thresholds, label_adjustment)
    return ScoredImages(matrix.numpy(), truth.numpy(), decisions.numpy(), task)


def _values(images: ScoredImages, metrics: Sequence[Metric]) -> dict[str, float]:
    once = images.once_each()
    return {metric.name: float(metric.function(once)[0]) for metric in metrics}


def _by_class(images: ScoredImages, names: Sequence[str]) -> dict[str, dict[str, float]]:
    once = images.once_each()
    columns = {metric.name: metric.function(once)[0].tolist() for metric in class_metrics()}
    columns["support"] = images.truth.sum(0).tolist()
    return {name: {key: column[place] for key, column in columns.items()} for place, name in enumerate(names)}


def _checked_names(class_names: Sequence[str] | None, count: int) -> list[str]:
    names = [f"class_{index}" for index in range(count)] if class_names is None else list(class_names)
    if len(names) != count or len(set(names)) != count:
        raise InvalidValueError(f"class_names holds {len(set(names))} different names; probs have {count} columns")
    return names


def _units(groups: Iterable[Hashable] | None, count: int) -> tuple[np.ndarray, int]:
    """Returns what a resample draws, as the number 0..G-1 of each image's group or of itself, and G."""
    if groups is None:
        return np.arange(count), count
    numbers, num_groups = group_numbers(groups)
    if len(numbers) != count:
        raise InvalidValueError(f"groups has {len(numbers)} entries for {count} images")
    return numbers, num_groups
