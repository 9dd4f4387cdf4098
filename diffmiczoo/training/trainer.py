"""`Trainer`: all stages, from the first batch or from a checkpoint, to the best weights of each."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.busy import BusyWatch
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.training.batches import possible_workers, training_batches, worker_errors
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.checkpoint import Best, Checkpoint, Progress, save_checkpoint
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.drop_path import dropped_paths
from diffmiczoo.training.optimization import NotFiniteError, Optimization
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import BatchSampler, batches_per_epoch
from diffmiczoo.training.signals import StopOnSignal
from diffmiczoo.training.stages import Stage, create_stages, trainable
from diffmiczoo.training.streams import start_from_trained
from diffmiczoo.training.synced_norm import synced_norms
from diffmiczoo.training.teachers import Teachers
from diffmiczoo.training.validation import selection_value, validate
from diffmiczoo.training.whole_batches import augmentation_of, batched

CHECKPOINT_FILE = "checkpoint.pt"
HISTORY_FILE = "metrics.csv"

#: Fields of a recipe that change how fast a run is, and not what comes of it.
_WITHOUT_EFFECT = ("num_workers",)


@dataclass(frozen=True)
class TrainingData:
    """Decoded images of a run, and a hash of their pixels, files' names, labels and splits."""

    train: ImageDataset
    val: ImageDataset
    digest: str


@dataclass(frozen=True)
class RunSettings:
    """What does not change the result of a run.

    Attributes:
        output: a directory.
        resume: "auto" continues from a checkpoint in `output` if there is one, "never" starts again.
        checkpoint_minutes: time between two checkpoints within an epoch, ≥ 0; each epoch ends with one.
        progress: show bars; None means where the standard error is a terminal.

    Raises:
        ValueError: a field is out of range.
    """

    output: Path
    resume: str = "auto"
    checkpoint_minutes: float = 5.0
    progress: bool | None = None

    def __post_init__(self) -> None:
        if self.resume not in ("auto", "never"):
            raise InvalidValueError(f"resume={self.resume!r} must be 'auto' or 'never'")
        if not self.checkpoint_minutes >= 0:
            raise InvalidValueError(f"checkpoint_minutes={self.checkpoint_minutes!r} must be at least 0")

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint."""
        return self.output / CHECKPOINT_FILE


@dataclass
class _StageRun:
    """State of the stage that is being trained; `batches` is their number per epoch."""

    stage: Stage
    optimization: Optimization
    batches: int
    progress: Progress = field(default_factory=Progress)
    best: Best = field(default_factory=Best)


class Trainer:
    """Trains a model, validates each epoch and writes checkpoints.

    Args:
        model: trained in place.
        recipe: how it is trained.
        data: images to train on and to validate with.
        processes: that train together; rank 0 writes the files.
        settings: output directory, checkpoints and bars.
        stop: says whether a signal asked to stop.
        callbacks: called before steps and after epochs and checkpoints.
        teachers: whose answers the DCG learns beside the labels; None where there are none.

    Attributes:
        history: a row per epoch.
        last: weights after the last epoch of the final stage; None before.
    """

    def __init__(
        self,
        model: DiffMICv2,
        recipe: Recipe,
        data: TrainingData,
        processes: Processes,
        settings: RunSettings,
        stop: StopOnSignal,
        callbacks: Sequence[Callback] = (),
        teachers: Teachers | None = None,
    ) -> None:
        self.model, self.recipe, self.data, self.processes = model, recipe, data, processes
        self.settings, self.stop, self.callbacks, self.teachers = settings, stop, callbacks, teachers
        self.progress = settings.progress if processes.is_main else False
        self.history: list[dict[str, Any]] = []
        self.last: dict[str, Tensor] | None = None
        self._resumed: Checkpoint | None = None
        self._batched = batched(recipe, processes.device, data.train, data.val)
        if self._batched and recipe.num_workers:
            warn(f"num_workers={recipe.num_workers} is for rand_augment; without it batches are augmented as a whole")
        workers = 0 if self._batched else recipe.num_workers
        self._workers = possible_workers(workers, recipe.batch_size, model.config.input_size)
        self._saved_at = time.monotonic()
        self._busy = BusyWatch()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint.

        Raises:
            ValueError: it belongs to another model, recipe or data, or to another number of processes.
        """
        path, again = self.settings.checkpoint, "choose another output directory, or resume='never' to start again"
        # Through the classes: what a checkpoint lacks, because the field came later, has its default.
        pairs = {
            "recipe": (Recipe.from_dict(checkpoint.recipe, source=str(path)).to_dict(), self.recipe.to_dict()),
            "config": (DiffMICConfig.from_dict(checkpoint.config, source=str(path)).to_dict(), self._config()),
        }
        for what, (theirs, mine) in pairs.items():
            changed = sorted(key for key in mine if theirs[key] != mine[key] and key not in _WITHOUT_EFFECT)
            if changed:
                raise InvalidValueError(f"{path}: was made with another {what} (fields {changed}); {again}")
        if checkpoint.data != self.data.digest:
            raise InvalidValueError(
                f"{path}: was made with other images, labels, splits or teachers, or the same in another order (files "
                f"of the same names count as others where their pixels, or weights, are others); {again}"
            )
        if checkpoint.world_size != self.processes.rank.world_size:
            raise InvalidValueError(
                f"{path}: was made by {checkpoint.world_size} processes, now there are "
                f"{self.processes.rank.world_size}; start as many, or {again}"
            )
        self.history = checkpoint.history
        # Tensors alone: the trainer sets the calibration itself.
        self.model.load_state_dict(dict(checkpoint.model))
        self._resumed = checkpoint

    def train(self) -> None:
        """Trains what is left of all stages, and leaves the best weights of each in the model.

        Raises:
            ValueError: the loss or a gradient became NaN or infinite.
            KeyboardInterrupt: the run was asked to stop; a checkpoint was written.
        """
        first, drop_path = 0 if self._resumed is None else self._resumed.stage, self.recipe.drop_path
        try:
            for stage in create_stages(self.recipe, self.model.config)[first:]:
                with (
                    trainable(self.model, stage, self.recipe),
                    dropped_paths(self.model.encoders(), drop_path),
                    synced_norms(self.model, self.recipe.sync_batchnorm and self.processes.distributed),
                ):
                    self._train_stage(stage)
        finally:
            for callback in self.callbacks:
                callback.on_end()

    def _train_stage(self, stage: Stage) -> None:
        targets = self.data.train.targets
        batches = batches_per_epoch(len(targets), self.recipe.batch_size, self.processes.rank)
        if self.recipe.encoder_start == "trained" and self._resumed is None and stage.epochs:
            start_from_trained(self.model, stage.name)
        optimization = Optimization(self.model, stage, self.recipe, targets, batches, self.processes, self.teachers)
        run = _StageRun(stage, optimization, batches)
        if self._resumed is not None:
            run.optimization.load_state_dict(self._resumed.optimization)
            run.progress, run.best = self._resumed.progress, self._resumed.best
            self._resumed = None
        while run.progress.epoch < stage.epochs and not self._out_of_patience(run):
            self._train_epoch(run)
            self._finish_epoch(run)
            run.progress = Progress(epoch=run.progress.epoch + 1)
            self._save(run)
        if run.best.weights is not None:
            self._load_best(run, run.best.weights)

    def _out_of_patience(self, run: _StageRun) -> bool:
        """Whether a stage ends early, which only an epoch that was validated can tell."""
        epoch, patience = run.progress.epoch, self.recipe.patience
        return 0 < patience <= epoch - run.best.improved and epoch % self.recipe.validate_every == 0

    def _train_epoch(self, run: _StageRun) -> None:
        """Trains on the batches of an epoch that are not done yet."""
        progress, name = run.progress, run.stage.name
        started = time.monotonic() - progress.seconds
        size = self.recipe.batch_size * self.processes.rank.world_size
        title = f"{name} {progress.epoch + 1}/{run.stage.epochs}"
        bar = progress_bar(run.batches * size, title, "img", self.progress, initial=progress.batch * size)
        with worker_errors(self._workers), bar:
            for images, targets in self._batches(run):
                for callback in self.callbacks:
                    callback.on_step(name, progress.epoch, progress.batch)
                try:
                    loss = run.optimization.training_step(images, targets, progress.epoch, progress.batch)
                except NotFiniteError as error:
                    raise NotFiniteError(self._not_finite(error, run)) from error
                progress.loss += loss
                progress.batch += 1
                progress.seconds = time.monotonic() - started
                bar.update(size)
                bar.set_postfix(loss=f"{progress.loss / progress.batch:.4f}")
                self._save_or_stop(run)
                if self.processes.device.type == "cpu" and (hint := self._busy.hint()):
                    warn(hint)

    def _batches(self, run: _StageRun) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, progress = self.recipe, run.progress
        seeds = (recipe.seed, run.stage.number, progress.epoch)
        sampler = BatchSampler(
            self.data.train.targets, recipe.batch_size, recipe.sampling, seeds, progress.batch, self.processes.rank
        )
        if self._batched is not None:
            return self._batched[0].augmented(sampler, augmentation_of(recipe))
        pin = self.processes.device.type == "cuda"
        return training_batches(self.data.train, sampler, self._workers, pin)

    def _save_or_stop(self, run: _StageRun) -> None:
        """Writes a checkpoint where one is due, and stops where a signal asked any of the processes to."""
        if not run.optimization.is_update(run.progress.batch - 1):
            return
        if self.processes.any(self.stop.requested):
            self._save(run)
            raise KeyboardInterrupt(
                f"stopped in epoch {run.progress.epoch + 1}, batch {run.progress.batch} of {run.batches}"
            )
        due = time.monotonic() - self._saved_at >= self.settings.checkpoint_minutes * 60
        if due and run.progress.batch < run.batches:
            self._save(run)

    def _not_finite(self, error: Exception, run: _StageRun) -> str:
        path = self.settings.checkpoint
        earlier = f" {path} holds an earlier state." if path.exists() else ""
        return (
            f"{error} in stage {run.stage.name}, epoch {run.progress.epoch + 1}, batch {run.progress.batch + 1}."
            f"{earlier} Lower the learning rate and start again with resume='never'"
        )

    def _finish_epoch(self, run: _StageRun) -> None:
        """Validates, where it is the epoch for it, and adds the epoch's row to the history."""
        started, stage, epoch = time.monotonic(), run.stage, run.progress.epoch + 1
        row: dict[str, Any] = {"stage": stage.name, "epoch": epoch, "lr": run.optimization.lr}
        row["train_loss"] = run.progress.loss / run.batches
        if epoch % self.recipe.validate_every == 0 or epoch == stage.epochs:
            row |= self._validate(run, epoch)
        row["seconds"] = round(run.progress.seconds + time.monotonic() - started, 1)
        self.history.append(row)
        self._write_history()
        for callback in self.callbacks:
            callback.on_epoch(row)

    def _validate(self, run: _StageRun, epoch: int) -> dict[str, float]:
        """Returns what validation adds to the epoch's row, and updates the best epoch."""
        model = run.optimization.eval_model
        self.processes.broadcast_buffers(model)
        images = self.data.val if self._batched is None else self._batched[1]
        found = validate(model, run.stage, images, self.recipe.batch_size, self.processes, self.progress)
        value = selection_value(found.metrics, self.recipe.select)
        # Of equally good epochs the later one: it has seen more, and the average has settled.
        if value >= run.best.value:
            improved = epoch if value > run.best.value else run.best.improved
            run.best = Best(epoch, value, improved, _cpu_copy(model), found.calibration)
        return found.row

    def _load_best(self, run: _StageRun, weights: dict[str, Tensor]) -> None:
        """Loads the best weights of a finished stage into the model and marks their epoch in the history."""
        model, final = self.model, run.stage.is_final
        self.last = _cpu_copy(run.optimization.eval_model) if final else None
        model.load_state_dict(weights)
        # Where only the DCG was trained, a calibration that was fitted to the old one no longer holds.
        model.config = model.config.uncalibrated().replace(**run.best.calibration if final else {})
        for row in self.history:
            if row["stage"] == run.stage.name:
                row["best"] = row["epoch"] == run.best.epoch
        self._write_history()

    def _save(self, run: _StageRun) -> None:
        if self.processes.is_main:
            checkpoint = Checkpoint(
                recipe=self.recipe.to_dict(),
                config=self._config(),
                data=self.data.digest,
                world_size=self.processes.rank.world_size,
                history=self.history,
                stage=run.stage.number,
                progress=run.progress,
                best=run.best,
                model=self.model.state_dict(),
                optimization=run.optimization.state_dict(),
            )
            save_checkpoint(checkpoint, self.settings.checkpoint)
            for callback in self.callbacks:
                callback.on_checkpoint(self.settings.checkpoint)
        self._saved_at = time.monotonic()

    def _config(self) -> dict[str, Any]:
        """Returns what a checkpoint's config has to equal; calibration is a result of training."""
        return self.model.config.uncalibrated().to_dict()

    def _write_history(self) -> None:
        if not self.processes.is_main:
            return
        columns = list(dict.fromkeys(key for row in self.history for key in row))
        with (self.settings.output / HISTORY_FILE).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)


def _cpu_copy(model: DiffMICv2) -> dict[str, Tensor]:
    return {name: deepcopy(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}
