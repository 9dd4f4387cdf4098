"""`fit` and `finetune`: from labelled images to weights on disk, with a record of how they were made."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from diffmiczoo.data.augmentation import create_augmentation
from diffmiczoo.data.checks import check_data
from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.dataset import ImageDataset, images_or_error
from diffmiczoo.data.image_cache import remove_partial_squares
from diffmiczoo.data.split_table import write_split
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.files import check_directory
from diffmiczoo.images.items import ImageError
from diffmiczoo.metrics.calibration import ENOUGH_IMAGES, calibration_sentence
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import preserve_modes
from diffmiczoo.runtime.settings import full_precision
from diffmiczoo.training.artifacts import Replacement, write_artifacts
from diffmiczoo.training.callbacks import Callback, TensorBoardCallback
from diffmiczoo.training.checkpoint import load_checkpoint, remove_partial_checkpoints
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.drop_path import check_drop_path
from diffmiczoo.training.epoch_log import EpochLog, log_interval
from diffmiczoo.training.lock import exclusive
from diffmiczoo.training.plan import Plan, check_recipe, plan_run, training_manifest, validation_manifest
from diffmiczoo.training.presets import finetune_recipe, preset_recipe
from diffmiczoo.training.progressive import check_start_size
from diffmiczoo.training.readiness import make_trainable
from diffmiczoo.training.recipe import Recipe, seed_of
from diffmiczoo.training.signals import StopOnSignal
from diffmiczoo.training.stages import create_stages
from diffmiczoo.training.teachers import load_teachers
from diffmiczoo.training.trainer import RunSettings, Trainer, TrainingData
from diffmiczoo.training.validation import check_selectable

REPORT_FILE, SPLIT_FILE, CACHE = "data_report.json", "split.csv", "cache"


@dataclass(frozen=True, repr=False)
class TrainingResult:
    """What `fit` returns; `print` shows a summary.

    Attributes:
        model: with the best weights on validation data, calibrated.
        history: a row per epoch, as in metrics.csv.
        output: the directory of the run.
        metrics: of the model on the validation data; None where nothing was trained.
    """

    model: DiffMICv2
    history: list[dict[str, Any]]
    output: Path
    metrics: Metrics | None

    def __repr__(self) -> str:
        """Says how good the model is on validation images, and where its weights are."""
        if self.metrics is None and self.history:
            return "only the DCG was trained; set diffusion_epochs above 0 before predicting"
        if self.metrics is None:
            return "nothing was trained: the recipe has 0 epochs"
        best = [f"{row['stage']} {row['epoch']}" for row in self.history if row.get("best")]
        return (
            f"on {self.metrics.num_images:,} validation images: {self.metrics.headline()}; best epochs: "
            f"{', '.join(best) or 'none'}; more in {self.output}/README.md\n"
            f'weights: {self.output}/best  (create_model("local-dir:{self.output}/best", pretrained=True))'
        )


@torch.inference_mode(False)
@torch.enable_grad()
def fit(
    model: DiffMICv2,
    train: Any,
    val: Any = None,
    recipe: Recipe | None = None,
    *,
    output: str | os.PathLike[str],
    resume: str = "auto",
    checkpoint_minutes: float = 5.0,
    tensorboard: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    class_names: Any = None,
    classes: Any = None,
    log_every: int | None = None,
) -> TrainingResult:
    """Trains the DCG, then the diffusion with the DCG frozen; takes the best epoch of each on validation data.

    A run that was killed, stopped with Ctrl-C or out of disk space resumes from its last checkpoint when it is started
    again, and ends with the same weights as an uninterrupted one. Started by `torchrun` or `accelerate launch`, all
    processes train one model, each with batches of `recipe.batch_size`.

    Writes to `output`:

    - `best/` and `last/`: weights and config, calibrated on the validation data, for
      `create_model("local-dir:OUTPUT/best", pretrained=True)`;
    - `README.md`, `curves.png`, `confusion.png` (needs matplotlib), `metrics.csv` (a row per epoch);
    - `recipe.json`, `data_report.json` and, where splits were made, `split.csv`;
    - `checkpoint.pt`, from which a run resumes.

    The global random state is the same afterwards. Gradients that the caller switched off, autocast and inference mode
    have no say in it.

    Args:
        model: trained in place, on its device, in float32.
        train: a table, folder, `.npz`, the root of an original download (see `data.readers.read_manifest`), a torch
            Dataset of (image, label), a `Manifest`, or the plan that `training.prepare.prepare` made. Without splits,
            70 % train, 10 % val and 20 % test are made, stratified and grouped; without validation images, some are
            taken from training.
        val: the same; by default the images of `train` whose split is "val".
        recipe: settings; by default the preset for the model and the number of images.
        output: a directory, made if need be.
        resume: "auto" continues from `output/checkpoint.pt` if there is one, "never" starts again.
        checkpoint_minutes: time between checkpoints within an epoch, ≥ 0; each epoch ends with one.
        tensorboard: write curves for TensorBoard into `output/tensorboard` too.
        callbacks: called before each step, after each epoch and after each checkpoint.
        progress: show bars; by default where the standard error is a terminal. False is silent.
        log_every: write a line to the standard error every so many epochs, 0 for none; by default every epoch where
            no bars are shown and `progress` is not False.
        class_names: the classes in order, and what the class numbers of the data stand for, 0 first, where they are
            numbers without names (or a dictionary of number → name); by default the data's own names.
        classes: names of those to learn; by default all. Images of others are left out.

    Warns:
        UserWarning: the data make results look better or worse than they are: groups or images in two splits, classes
            without validation images; the model's parameters were not float32, or have `requires_grad` off.

    Raises:
        ValueError: the classes are not the model's, a class has no training image, the loss became NaN or infinite, the
            checkpoint belongs to another model, recipe or data, or another run is going on in `output`.
        ImageError: images cannot be read; the message names them.
        OSError: the disk is full; the last checkpoint is intact.
        KeyboardInterrupt: after Ctrl-C or SIGTERM, once the checkpoint is written.
    """
    settings = RunSettings(_named(output), resume, checkpoint_minutes, progress)
    log_every = log_interval(log_every, progress)
    check_directory(settings.output)
    processes = Processes(model.default_noise.device)
    plan = plan_run(model.config, train, val, seed_of(recipe), class_names, classes)
    recipe = recipe or preset_recipe(model.config, len(plan.train))
    check_recipe(recipe, model.config, plan.train, processes.rank, processes.device)
    check_drop_path(model.encoders(), recipe.drop_path)
    make_trainable(model, recipe)
    check_start_size(model, recipe)
    loss = model.config.loss if recipe.loss is None else recipe.loss
    config = model.config.replace(class_names=plan.train.class_names, loss=loss)
    teachers = load_teachers(recipe, config, processes.device)
    model.config = config
    settings.output.mkdir(parents=True, exist_ok=True)
    # DataLoaders draw a seed from the global generator at each pass.
    with exclusive(settings.output, processes.rank.rank), torch.random.fork_rng(), _quiet_surroundings(model):
        if not processes.distributed:
            remove_partial_squares(settings.output / CACHE)
        data = _decoded(model, recipe, plan, settings.output, progress if processes.is_main else False)
        if teachers is not None:
            data = replace(data, digest=data.digest + teachers.digest)
        processes.check_same("images, labels, splits or teachers", data.digest, "give all machines the same")
        report = _checked(plan, data, settings, recipe, processes.is_main)
        if teachers is not None and processes.is_main:
            teachers.check_held_back(plan.held_back(), progress)
        model.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if tensorboard and processes.is_main:
            callbacks = [*callbacks, TensorBoardCallback(settings.output / "tensorboard")]
        if log_every and processes.is_main:
            callbacks = [*callbacks, EpochLog(create_stages(recipe, model.config), recipe.select, log_every)]
        replaces = settings.resume == "never" and settings.checkpoint.exists()
        if replaces and processes.is_main:
            callbacks = [*callbacks, Replacement(settings.output)]
        with keep_memory(), StopOnSignal() as stop:
            trainer = Trainer(model, recipe, data, processes, settings, stop, callbacks, teachers)
            _train(trainer, plan, report)
        metrics = write_artifacts(trainer, plan, report) if processes.is_main else None
    processes.barrier()
    return TrainingResult(model, trainer.history, settings.output, metrics)


def _named(output: str | os.PathLike[str]) -> Path:
    if not os.fspath(output):
        raise InvalidValueError("output='' names no directory; output='.' is the one that you are in")
    return Path(output)


@contextmanager
def _quiet_surroundings(model: DiffMICv2) -> Iterator[None]:
    """Puts modes back in the end, and switches off an autocast of the caller's, which has no say in training."""
    with preserve_modes(model), full_precision(model.default_noise.device):
        yield


def _train(trainer: Trainer, plan: Plan, report: DataReport) -> None:
    """Trains what is left."""
    model, recipe, settings = trainer.model, trainer.recipe, trainer.settings
    # What is trained is no longer what was loaded, nor has it the limits that were fitted to that.
    model.weights_name = model.loaded_from = model.trust = model.recalibration = None
    found = settings.checkpoint.exists()
    shared = "output has to be a folder that all machines share"
    trainer.processes.check_same(f"{settings.output}: checkpoints", "a checkpoint" if found else "none", shared)
    if settings.resume == "auto" and found:
        checkpoint = load_checkpoint(settings.checkpoint)
        trainer.restore(checkpoint)
        stages = create_stages(recipe, model.config)
        ended = checkpoint.stage == len(stages) - 1 and checkpoint.progress.epoch >= stages[-1].epochs
        if ended and trainer.processes.is_main:
            warn(f"{settings.output} holds this run, finished: nothing is left to train; resume='never' starts again")
    if trainer.processes.is_main:
        remove_partial_checkpoints(settings.checkpoint)
        # Not before: a run that is refused leaves the files of the run that is there.
        recipe.save(settings.output / "recipe.json")
        report.save(settings.output / REPORT_FILE)
        # A table of an older run's data would be taken for this one's.
        if plan.made or (settings.output / SPLIT_FILE).exists():
            write_split(plan.whole, settings.output / SPLIT_FILE)
    trainer.train()
    final = next(stage for stage in create_stages(recipe, model.config) if stage.is_final)
    model.trained = final.epochs > 0 or model.trained


@torch.inference_mode(False)
@torch.enable_grad()
def finetune(
    model: DiffMICv2,
    train: Any,
    val: Any = None,
    recipe: Recipe | None = None,
    *,
    output: str | os.PathLike[str],
    resume: str = "auto",
    checkpoint_minutes: float = 5.0,
    tensorboard: bool = False,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    class_names: Any = None,
    classes: Any = None,
    log_every: int | None = None,
) -> TrainingResult:
    """Trains pretrained weights on other images: `fit` with new classes and the fine-tuning recipe.

    Where the classes or the task are not the model's own, the layers that depend on them are initialised anew, but for
    the rows of classes that the model knows by name; all others start from the model's weights.

    Args:
        model: as for `fit`.
        train: as for `fit`.
        val: as for `fit`.
        recipe: by default `training.presets.finetune_recipe` for the model and the number of images.
        output: as for `fit`, like all that follow.
        resume: "auto" or "never".
        checkpoint_minutes: ≥ 0.
        tensorboard: write curves for TensorBoard.
        callbacks: called while it trains.
        progress: show bars.
        class_names: as for `fit`.
        classes: as for `fit`.
        log_every: write a line every so many epochs.

    Raises:
        ValueError, ImageError, OSError, KeyboardInterrupt: as `fit` does.
    """
    # Before the model is touched: what these refuse would leave it with other classes.
    RunSettings(_named(output), resume, checkpoint_minutes, progress)
    log_interval(log_every, progress)
    check_directory(Path(output))
    manifest = training_manifest(train, model.config, None, class_names, classes)
    validation = validation_manifest(val, manifest, class_names, classes)
    adapt_classes(model, manifest.class_names, manifest.task, model.config.ordinal and manifest.ordered)
    plan = plan_run(model.config, manifest, validation, seed=seed_of(recipe))
    return fit(
        model,
        plan,
        recipe=recipe or finetune_recipe(model.config, len(plan.train)),
        output=output,
        resume=resume,
        checkpoint_minutes=checkpoint_minutes,
        tensorboard=tensorboard,
        callbacks=callbacks,
        progress=progress,
        log_every=log_every,
    )


def adapt_classes(model: DiffMICv2, class_names: tuple[str, ...], task: str, ordinal: bool = False) -> None:
    """Gives a model other classes, which may be grades in order; nothing changes where they are its own."""
    if task != model.config.task:
        model.config = model.config.uncalibrated().replace(task=task, ordinal=False)
    elif class_names == model.config.class_names:
        return
    with warnings.catch_warnings():
        # The warning asks for training, which is about to begin.
        warnings.simplefilter("ignore", UserWarning)
        model.reset_classifier(len(class_names), class_names)
    if ordinal and task == "multiclass":
        model.config = model.config.replace(ordinal=True)


def _decoded(model: DiffMICv2, recipe: Recipe, plan: Plan, output: Path, progress: bool | None) -> TrainingData:
    augmentation = create_augmentation(
        model.config.input_size,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        rotation=recipe.rotation,
        min_scale=recipe.min_scale,
        fill=recipe.fill,
        color_jitter=recipe.color_jitter,
        rand_augment=recipe.rand_augment,
        degrade=recipe.degrade,
    )
    cache = output / CACHE
    found = [
        images_or_error(plan.train, model.config, augmentation, progress, cache),
        images_or_error(plan.val, model.config, None, progress, cache),
    ]
    # Of both splits at once: who mends pictures does not want to hear of the rest in the next start.
    if errors := [each for each in found if isinstance(each, ImageError)]:
        raise errors[0] if len(errors) == 1 else ImageError(plan.whole.name, "; ".join(map(str, errors)))
    training, validation = (each for each in found if isinstance(each, ImageDataset))
    # The pixels as well: other files under the old names are other images, and squares are what is trained on.
    digest = plan.digest() + training.digest() + validation.digest()
    return TrainingData(training, validation, digest)


def _checked(plan: Plan, data: TrainingData, settings: RunSettings, recipe: Recipe, is_main: bool) -> DataReport:
    """Returns the report on the data, warns of what is odd and refuses what is wrong."""
    progress = settings.progress if is_main else False
    report = check_data({"train": data.train, "val": data.val}, plan.whole, made=plan.made, progress=progress)
    if report.problems:
        see = ""
        if is_main and not settings.checkpoint.exists() and not (settings.output / "best").exists():
            report.save(settings.output / REPORT_FILE)
            see = f" (see {settings.output / REPORT_FILE})"
        raise InvalidValueError(f"{plan.train.name}: {'; '.join(report.problems)}{see}")
    few = [calibration_sentence(plan.val.counts, len(plan.val))] if len(plan.val) < ENOUGH_IMAGES else []
    for sentence in [*report.warnings, *few] if is_main else []:
        warn(f"{plan.train.name}: {sentence}")
    unselectable = check_selectable(recipe, data.val.targets, data.val.config)
    for sentence in unselectable if is_main else []:
        warn(f"{plan.train.name}: {sentence}")
    return report
