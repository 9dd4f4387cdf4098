"""Scores of an epoch on validation images, by calibrated probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.evaluate import Batches, collect_scores
from diffmiczoo.inference.probabilities import logits_to_probs, scores_to_probs
from diffmiczoo.metrics.calibration import fit_calibration, fit_temperature
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import seeded_generator
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import Stage
from diffmiczoo.training.whole_batches import BatchedImages, BatchesInOrder

#: Pictures that a GPU validates at once, at least: without gradients more fit than in training.
_GPU_BATCH = 256


@dataclass(frozen=True)
class Validated:
    """Metrics of an epoch, and the config's fields for the calibration that they were computed with."""

    metrics: Metrics
    calibration: dict[str, Any]

    @property
    def row(self) -> dict[str, float]:
        """Returns both as columns of a table, a number each."""
        fields = dict(self.calibration)
        weights = dict(zip(("prior_weight_global", "prior_weight_local"), fields.pop("prior_weight", ()), strict=False))
        return {**self.metrics.values, **fields, **weights}


def validate(
    model: DiffMICv2,
    stage: Stage,
    images: ImageDataset | BatchedImages,
    batch_size: int,
    processes: Processes,
    progress: bool | None = None,
) -> Validated:
    """Computes the metrics of a stage's scores, each image once, divided among all processes.

    Probabilities are calibrated on the same images first: uncalibrated NLL prefers under-confident epochs.
    """
    loader = _batches(images, processes.shard(len(images)), batch_size)
    scores, targets = collect_scores(model, stage.scores, loader, progress)
    scores, targets = processes.gather(scores), processes.gather(targets)
    config = model.config
    probs, calibration = _calibrated(scores, targets, config)
    names, ordinal = config.labels, config.ordinal
    metrics = compute_metrics(probs, targets, task=config.task, class_names=names, ordinal=ordinal, bootstrap=0)
    return Validated(metrics, calibration)


def check_selectable(recipe: Recipe, targets: Tensor, config: DiffMICConfig) -> list[str]:
    """Returns what to say of validation images that do not define the metric by which epochs are selected.

    Raises:
        ValueError: such a metric would end stages early.
    """
    # Any probabilities do: whether a metric is defined depends on the labels.
    probs = 0.1 + 0.8 * torch.rand(len(targets), config.num_classes, generator=seeded_generator(0))
    if config.task == "multiclass":
        probs = probs / probs.sum(1, keepdim=True)
    names, ordinal = config.labels, config.ordinal
    found = compute_metrics(probs, targets, task=config.task, class_names=names, ordinal=ordinal, bootstrap=0)
    if math.isfinite(found.values[recipe.select]):
        return []
    what = f"the validation images do not define select={recipe.select!r}, as where they all show one class"
    if recipe.patience:
        raise InvalidValueError(
            f"{what}: patience={recipe.patience} would end stages by chance; add such images, take select='nll', or "
            "patience=0"
        )
    return [f"{what}: the last epoch of each stage is taken for the best one; select='nll' can tell"]


def _batches(images: ImageDataset | BatchedImages, shard: range, batch_size: int) -> Batches:
    if isinstance(images, BatchedImages):
        at_once = max(batch_size, _GPU_BATCH) if images.device.type == "cuda" else batch_size
        return BatchesInOrder(images, shard, at_once)
    return DataLoader(Subset(images, shard), batch_size)


def _calibrated(scores: Tensor, targets: Tensor, config: DiffMICConfig) -> tuple[Tensor, dict[str, Any]]:
    """Returns probabilities of a stage's scores, calibrated on these targets, and the config's fields that say how."""
    if scores.ndim == 2:
        temperature = fit_temperature(scores, targets, task=config.task)
        return logits_to_probs(scores / temperature, config.task), {"temperature": temperature}
    own, members = scores[:, 0], scores[:, 1:]
    fields = fit_calibration(own, members, targets, config)
    return scores_to_probs(own, config.uncalibrated().replace(**fields), members), fields


def selection_value(metrics: Metrics, name: str) -> float:
    """Returns what to maximise; a metric that the validation data do not define counts as the worst.

    Raises:
        ValueError: the task has no such metric.
    """
    if name not in metrics.values:
        raise InvalidValueError(f"select={name!r} is not a metric of this task; it has {', '.join(metrics.values)}")
    return find_metric(name).quality(metrics.values[name])
