"""Which images a run trains on and validates with; checked, with the recipe, before any image is decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.data.splits import complete_splits
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.table import find_metric, metric_names
from diffmiczoo.runtime.precision import check_precision
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import Rank, batches_per_epoch


@dataclass(frozen=True)
class Plan:
    """The images of a run.

    Attributes:
        train, val: to train on, and to choose the epoch by.
        whole: all images of the data sets, with their groups.
        made: a sentence on splits that were made; the empty text where they were given.
    """

    train: Manifest
    val: Manifest
    whole: Manifest
    made: str

    def digest(self) -> str:
        """Returns a hash of the images, their labels and splits."""
        return self.train.digest() + self.val.digest()


def training_manifest(train: Any, config: DiffMICConfig, task: str | None = None) -> Manifest:
    """Reads training data; where their classes are among the model's own, these give order and task.

    Class numbers without names, as in an `.npz`, count as other classes: what they stand for is not known.

    Args:
        train: anything that `data.readers.as_manifest` takes.
        config: of the model to train.
        task: "multiclass" or "multilabel"; by default the model's, or what the data's labels say.
    """
    if isinstance(train, Manifest):
        return train
    given = _as_given(train, config, task)
    if not set(given.class_names) <= set(config.class_names) or task not in (None, config.task):
        return given
    return as_manifest(train, class_names=config.class_names, task=config.task)


def _as_given(train: Any, config: DiffMICConfig, task: str | None) -> Manifest:
    try:
        return as_manifest(train, task=task)
    except ValueError:
        # An image without a label is a mistake unless the task is to give any number of them.
        if task is not None or config.task != "multilabel":
            raise
        return as_manifest(train, task=config.task)


def plan_run(config: DiffMICConfig, train: Any, val: Any, seed: int) -> Plan:
    """Decides which images a run trains on and which it validates with.

    Args:
        config: the model's.
        train: as `fit` takes it; a plan that was made before is returned as it is, if it fits the model.
        val: as `fit` takes it.
        seed: of splits that have to be made.

    Raises:
        ValueError: the data do not fit the model, or each other.
    """
    if isinstance(train, Plan):
        _check_fits(train.train, config, config.class_names)
        return train
    names = config.class_names or None
    given = as_manifest(train, class_names=names, task=config.task)
    _check_fits(given, config, config.class_names)
    if val is None:
        whole, made = complete_splits(given, seed)
        return Plan(whole.split("train"), whole.split("val"), whole, made)
    other = as_manifest(val, class_names=given.class_names, task=config.task)
    _check_fits(other, config, given.class_names)
    training = given.split("train") if given.has_splits else given
    validation = other.split("val") if other.has_splits else other
    both = {record.path.resolve() for record in training.records} & {r.path.resolve() for r in validation.records}
    if both:
        raise InvalidValueError(
            f"{len(both)} images are in the training and in the validation data, first {sorted(both)[0]}; validate "
            "on images that the model is not trained on"
        )
    return Plan(training, validation, _joined(training, validation), "")


def _joined(training: Manifest, validation: Manifest) -> Manifest:
    marked = [
        replace(record, split=name)
        for name, part in (("train", training), ("val", validation))
        for record in part.records
    ]
    return training.with_records(marked)


def _check_fits(manifest: Manifest, config: DiffMICConfig, class_names: tuple[str, ...]) -> None:
    if manifest.task != config.task:
        raise InvalidValueError(
            f"{manifest.name} is {manifest.task}, the model {config.task}; create it with task={manifest.task!r}, or "
            "call finetune"
        )
    if manifest.class_names != class_names and (class_names or len(manifest.class_names) != config.num_classes):
        raise InvalidValueError(
            f"{manifest.name} has the classes {list(manifest.class_names)}, the model "
            f"{list(class_names or config.labels)}; call finetune, or model.reset_classifier(num_classes, class_names) "
            "before fit"
        )


def check_recipe(recipe: Recipe, config: DiffMICConfig, train: Manifest, rank: Rank, device: torch.device) -> None:
    """Raises, before any image is read, for what would fail in the middle of a run.

    Raises:
        ValueError: the recipe does not fit the data, the task or the device.
    """
    check_precision(recipe.precision, device)
    if recipe.compile and recipe.precision == "bf16" and device.type == "cpu":
        raise InvalidValueError(
            "compile=True would do without the fast gradients that precision='bf16' has on CPUs; leave out one of them"
        )
    if not batches_per_epoch(len(train), recipe.batch_size, rank):
        several = f" of {rank.world_size} processes" if rank.world_size > 1 else ""
        raise InvalidValueError(
            f"{train.name}: {len(train)} training images do not fill one batch of "
            f"{recipe.batch_size * rank.world_size}{several}; set batch_size to at most {len(train) // rank.world_size}"
        )
    known = metric_names(config.task, config.ordinal)
    if recipe.select not in known:
        hint = (
            "; create the model with ordinal=True if its classes are grades"
            if find_metric(recipe.select).needs_ordinal
            else ""
        )
        raise InvalidValueError(
            f"select={recipe.select!r} is not a metric of this {config.task} model; it has {', '.join(known)}{hint}"
        )
