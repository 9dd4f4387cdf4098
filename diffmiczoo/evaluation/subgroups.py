"""`subgroups`: a model's metrics on the parts into which columns of a table divide its images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.subgroups import Division, divide
from diffmiczoo.evaluation.evaluate import evaluation_split, probabilities
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.metrics.subgroups import COLUMNS, MIN_GROUPS, MIN_IMAGES, Subgroup, SubgroupTable
from diffmiczoo.model import DiffMICv2


def subgroups(
    model: DiffMICv2,
    data: Any,
    by: str | Sequence[str],
    *,
    split: str | None = None,
    class_names: Any = None,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[SubgroupTable, ...]:
    """Measures a model on the subgroups of labelled images, with 95 % bootstrap intervals; groups are drawn whole.

    Args:
        model: predicts with its own sampling steps, calibration and decision rule.
        data: a table, or a folder of a public data set with one; anything else has no columns.
        by: a column, or several, each of which divides all images: see `diffmiczoo.data.subgroups.divide`.
        split: as for `evaluate`.
        class_names: as for `evaluate`.
        batch_size: images computed at once.
        bootstrap: resamples, 0 for no intervals.
        seed: of the resampling.
        progress: show bars; by default where the standard error is a terminal.

    Returns:
        A table for each column.

    Raises:
        ValueError: as `evaluate` does, or there is no such column; the message names those that there are.
        ImageError: an image cannot be read.
    """
    manifest = evaluation_split(model.config, data, split, class_names)
    columns = [by] if isinstance(by, str) else list(by)
    divisions = [divide(manifest, column) for column in columns]  # what is wrong is said before anything is predicted
    probs = probabilities(model, manifest, batch_size=batch_size, progress=progress)
    predictions = LabelledPredictions.of(manifest, probs, model.config)
    return tuple(subgroup_table(predictions, division, bootstrap, seed, progress) for division in divisions)


def subgroup_table(
    predictions: LabelledPredictions,
    division: Division,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> SubgroupTable:
    """Returns the metrics of predictions on the subgroups of a column.

    Args:
        predictions: for the images that were divided, in their order.
        division: by a column.
        bootstrap: resamples, 0 for no intervals.
        seed: of the resampling.
        progress: show bars; by default where the standard error is a terminal.
    """
    found = []
    for place, name in enumerate(division.subgroups):
        rows = [row for row, own in enumerate(division.of_image) if own == place]
        found.append(_measured(name, predictions.select(rows), bootstrap, seed, progress))
    everything = _measured("all", predictions, bootstrap, seed, progress)
    return SubgroupTable(division.column, everything, tuple(found), len(predictions.class_names), division.note)


def _measured(
    name: str, predictions: LabelledPredictions, bootstrap: int, seed: int, progress: bool | None
) -> Subgroup:
    groups = None if predictions.groups is None else group_numbers(predictions.groups)[1]
    classes = len({label for labels in predictions.labels for label in labels})
    counts = Subgroup(name, len(predictions.names), groups, classes)
    if counts.num_images < MIN_IMAGES or predictions.num_units < MIN_GROUPS:
        return counts
    metrics = predictions.metrics(bootstrap, seed, progress)
    names = [metric for metric in COLUMNS if metric in metrics.values]
    values = {metric: metrics.values[metric] for metric in names}
    intervals = {metric: metrics.intervals[metric] for metric in names if metric in metrics.intervals}
    return Subgroup(name, counts.num_images, groups, classes, values, intervals)
