"""Which images a run trains on and validates with; checked, with the recipe, before any image is decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.classes import SAY_NAMES, match_classes, own_names, select_classes
from diffmiczoo.data.grades import grade_order, in_grade_order
from diffmiczoo.data.labels import is_bare
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.data.splits import complete_splits
from diffmiczoo.data.summary import count_lines, log_manifest, reading_lines
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.metrics.decisions import check_balance
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

    def lines(self) -> list[str]:
        """Says in a few lines what is trained on: classes, counts per split, and what was left out and why."""
        told = dict.fromkeys([*reading_lines(self.whole), *reading_lines(self.val)])
        return [*count_lines(self.whole), *([self.made] if self.made else []), *told]

    def held_back(self) -> Manifest:
        """Returns the images for validation and test."""
        return self.whole.with_records(record for record in self.whole.records if record.split in ("val", "test"))

    def digest(self) -> str:
        """Returns a hash of the images, their labels and splits."""
        return self.train.digest() + self.val.digest()


def training_manifest(
    train: Any, config: DiffMICConfig, task: str | None = None, class_names: Any = None, classes: Any = None
) -> Manifest:
    """Reads training data for a model that is to learn their classes; names that the model knows are its own classes.

    Where all classes are the model's, these give order and task; where they are only some of them, only these are
    learned. Class numbers without names count as other classes: what they stand for is not known.

    Args:
        train: anything that `data.readers.as_manifest` takes.
        config: of the model to train.
        task: "multiclass" or "multilabel"; by default the model's, or what the data's labels say.
        class_names: as `as_manifest` takes them.
        classes: names of those to learn; by default all.

    Returns:
        The images; `ordered` says whether their classes are in the order of grades, if `config.ordinal` asks for that.
    """
    given = _chosen(_as_given(train, config, task, class_names), classes)
    known = own_names(given.class_names, config.class_names)
    if known is None or task not in (None, config.task):
        return _new_classes(given, config)
    if given.task != config.task and not isinstance(train, Manifest):
        given = _chosen(as_manifest(train, class_names=class_names, task=config.task), classes)
    order = [name for name in config.class_names if name in known.values()]
    others = [name for name in config.class_names if name not in order]
    if others and class_names is None and classes is None:
        warn(
            f"{given.name} has {len(order)} of the model's {config.num_classes} classes; {', '.join(order)} are "
            f"learned, and {', '.join(others)} are left out for want of images; class_names=[...] lists those to keep"
        )
    return given.with_classes(order, known)


def validation_manifest(val: Any, train: Manifest, class_names: Any = None, classes: Any = None) -> Manifest | None:
    """Reads validation data beside training data; None where there are none.

    Raises:
        ValueError: a class is none of the training data's.
    """
    if val is None:
        return None
    other = as_manifest(val, class_names=class_names, task=train.task, known=train.class_names)
    renamed = own_names(_chosen(other, classes).class_names, train.class_names)
    if renamed is None:
        raise InvalidValueError(
            f"validation data {other.name} have the classes {list(other.class_names)}, the training data "
            f"{list(train.class_names)}" + ("" if other.named or not train.named else f"; {SAY_NAMES}")
        )
    return _chosen(other, classes).with_classes(train.class_names, renamed, ordered=train.ordered)


def _chosen(manifest: Manifest, classes: Any) -> Manifest:
    return manifest if classes is None else select_classes(manifest, classes)


def _new_classes(given: Manifest, config: DiffMICConfig) -> Manifest:
    """Says what becomes of a model's classes that the data do not have, and of its grades."""
    if config.class_names and not given.named and not is_bare(config.class_names):
        warn(
            f"{given.name} has class numbers without names, which are learned as classes of their own, not as the "
            f"model's {', '.join(config.class_names)}; {SAY_NAMES}"
        )
    if not config.ordinal or given.task != "multiclass":
        return given
    if not config.class_names or given.ordered or not given.named or grade_order(given.class_names) is not None:
        return in_grade_order(given)
    warn(f"{given.name} has other classes than the model's grades; nothing says that they are grades in order")
    return given


def _as_given(train: Any, config: DiffMICConfig, task: str | None, class_names: Any) -> Manifest:
    try:
        return as_manifest(train, class_names=class_names, task=task)
    except ValueError:
        # An image without a label is a mistake unless the task is to give any number of them.
        if task is not None or config.task != "multilabel":
            raise
        return as_manifest(train, class_names=class_names, task=config.task)


def plan_run(
    config: DiffMICConfig, train: Any, val: Any, seed: int, class_names: Any = None, classes: Any = None
) -> Plan:
    """Decides which images a run trains on and which it validates with.

    Args:
        config: the model's.
        train: as `fit` takes it; a plan that was made before is returned as it is, if it fits the model.
        val: as `fit` takes it.
        seed: of splits that have to be made.
        class_names: as `fit` takes them.
        classes: as `fit` takes them.

    Raises:
        ValueError: the data do not fit the model, or each other.
    """
    if isinstance(train, Plan):
        _check_fits(train.train, config)
        return train
    read = as_manifest(train, class_names=class_names, task=config.task, known=config.class_names)
    given = _with_model_classes(_chosen(read, classes), config)
    other = validation_manifest(val, given, class_names, classes)
    if other is None:
        whole, made = complete_splits(given, seed)
        log_manifest(whole)
        return Plan(whole.split("train"), whole.split("val"), whole, made)
    training = given.split("train") if given.has_splits else given
    validation = other.split("val") if other.has_splits else other
    seen = {record.identity for record in training.records}
    both = [record.path for record in validation.records if record.identity in seen]
    if both:
        raise InvalidValueError(
            f"{len(both)} images are in the training and in the validation data, first {min(both)}; validate on images "
            "that the model is not trained on"
        )
    whole = _joined(training, validation)
    notes = (*whole.notes, *_not_used(given, whole, "val"), *_not_used(other, whole, "train"))
    whole = replace(whole, notes=notes)
    log_manifest(whole)
    return Plan(training, validation, whole, "")


def _not_used(given: Manifest, whole: Manifest, split: str) -> list[str]:
    """Says how many images of a split are passed over because another data set stands for it."""
    passed = [record for record in given.records if record.split == split] if given.has_splits else []
    used = {record.identity for record in whole.records} if passed else set()
    count = sum(record.identity not in used for record in passed)
    return [f"{given.name}: its {count:,} images of split {split} are not used"] if count else []


def _joined(training: Manifest, validation: Manifest) -> Manifest:
    marked = [
        replace(record, split=name)
        for name, part in (("train", training), ("val", validation))
        for record in part.records
    ]
    return training.with_records(marked)


#: What to do where classes are not the model's.
_RESET = "call finetune, or model.reset_classifier(num_classes, class_names) before fit"


def _with_model_classes(manifest: Manifest, config: DiffMICConfig) -> Manifest:
    """Returns the images with the model's classes; a model without names takes the data's."""
    if config.class_names:
        _check_task(manifest, config)
        return match_classes(manifest, config, _RESET)
    _check_fits(manifest, config)
    return in_grade_order(manifest) if config.ordinal else manifest


def _check_task(manifest: Manifest, config: DiffMICConfig) -> None:
    if manifest.task != config.task:
        raise InvalidValueError(
            f"{manifest.name} is {manifest.task}, the model {config.task}; create it with task={manifest.task!r}, or "
            "call finetune"
        )


def _check_fits(manifest: Manifest, config: DiffMICConfig) -> None:
    _check_task(manifest, config)
    names = manifest.class_names
    if len(names) != config.num_classes or config.class_names not in ((), names):
        raise InvalidValueError(
            f"{manifest.name} has the classes {list(names)}, the model {list(config.labels)}; {_RESET}"
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
    _check_combinations(recipe, config)
    if not batches_per_epoch(len(train), recipe.batch_size, rank):
        several = f" of {rank.world_size} processes" if rank.world_size > 1 else ""
        raise InvalidValueError(
            f"{train.name}: {len(train)} training images do not fill one batch of "
            f"{recipe.batch_size * rank.world_size}{several}; set batch_size to at most {len(train) // rank.world_size}"
        )
    known = metric_names(config.task, config.ordinal)
    if recipe.select not in known:
        hint = (
            "; if its classes are grades in order, create the model with ordinal=True (--config ordinal=true)"
            if find_metric(recipe.select).needs_ordinal
            else ""
        )
        raise InvalidValueError(
            f"select={recipe.select!r} is not a metric of this {config.task} model; it has {', '.join(known)}{hint}"
        )


def _check_combinations(recipe: Recipe, config: DiffMICConfig) -> None:
    if recipe.encoder_start == "trained" and config.predictor in ("global", "classifier"):
        raise InvalidValueError(
            f"encoder_start='trained' is for encoders that learn after others; predictor={config.predictor!r} has one "
            "encoder"
        )
    if recipe.encoder_start == "trained" and recipe.freeze == "backbones":
        raise InvalidValueError(
            "encoder_start='trained' starts encoders from those trained before them, and freeze='backbones' trains "
            "none; leave out one of them"
        )
    if recipe.drop_path and recipe.freeze == "backbones":
        raise InvalidValueError(
            f"drop_path={recipe.drop_path} skips blocks of encoders that learn, and freeze='backbones' keeps them as "
            "they are; leave out one of them"
        )
    _check_effects(recipe, config)
    if recipe.dcg_loss == "ldam" and config.task != "multiclass":
        raise InvalidValueError(
            "dcg_loss='ldam' gives each class a margin over the others, and images of this multilabel model may have "
            "several; take 'cross_entropy' or 'ohem'"
        )
    check_balance(recipe.balance_labels, config.task)
    if recipe.ordinal_smoothing and not config.ordinal:
        raise InvalidValueError(
            f"ordinal_smoothing={recipe.ordinal_smoothing} is for classes that are grades in order, which those of "
            f"this {config.task} model are not; ordinal=True (--config ordinal=true) says so of a model"
        )


def _check_effects(recipe: Recipe, config: DiffMICConfig) -> None:
    """Refuses fields that would do nothing, or not what they are for."""
    if recipe.loss is not None and config.predictor != "diffusion":
        raise InvalidValueError(
            f"loss={recipe.loss!r} is that of a diffusion, and predictor={config.predictor!r} has none; leave it out"
        )
    if recipe.hard_share != Recipe().hard_share and recipe.dcg_loss != "ohem":
        raise InvalidValueError(
            f"hard_share={recipe.hard_share} is for dcg_loss='ohem', not {recipe.dcg_loss!r}; leave out one of them"
        )
    if not recipe.teachers and recipe.teacher_share != Recipe().teacher_share:
        raise InvalidValueError(f"teacher_share={recipe.teacher_share} is for teachers, and there are none; name some")
    if recipe.teachers and not (recipe.teacher_share and recipe.dcg_epochs):
        raise InvalidValueError(
            f"teachers are for the DCG's labels; teacher_share={recipe.teacher_share} with dcg_epochs="
            f"{recipe.dcg_epochs} would never ask them"
        )
    if recipe.start_size is not None and recipe.dcg_epochs < 2:
        raise InvalidValueError(
            f"start_size={recipe.start_size} is for the first two thirds of the DCG's epochs, and dcg_epochs="
            f"{recipe.dcg_epochs} leaves none; set at least 2"
        )
    if recipe.start_size is not None and recipe.patience:
        raise InvalidValueError(
            f"start_size={recipe.start_size} needs the last third of the epochs for pictures of the full size, and "
            f"patience={recipe.patience} may end before them; leave out one of them"
        )
