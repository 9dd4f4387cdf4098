"""`Run`: both stages from the first batch, or from wherever a checkpoint was written, to the best weights."""

from __future__ import annotations

import csv
import math
import time
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.evaluation.evaluate import collect_scores
from diffmiczoo.inference.probabilities import logits_to_probs, scores_to_probs
from diffmiczoo.metrics.calibration import fit_calibration, fit_temperature
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.checkpoint import save_checkpoint
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.optimization import NotFiniteError, Steps
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import BatchSampler, batches_per_epoch
from diffmiczoo.training.signals import Interruption
from diffmiczoo.training.stages import Stage, create_stages, learning

CHECKPOINT_FILE = "checkpoint.pt"
HISTORY_FILE = "metrics.csv"


@dataclass
class Position:
    """Where a stage is: `epoch` and `batch` are done so far; `loss` is the epoch's sum, `seconds` what it took."""

    epoch: int = 0
    batch: int = 0
    loss: float = 0.0
    seconds: float = 0.0


class Run:
    """A training run and its checkpoint.

    A checkpoint holds the weights, their average, optimiser, schedule, the best weights so far and the position. No
    state of a random generator: every draw depends on the seed and its place in the run alone.

    Args:
        model: trained in place.
        recipe: settings.
        training, validation: images.
        processes: that train together; the first one writes.
        output: a directory that exists.
        data: hash of the images that belong to the run.
        checkpoint_minutes: time between two checkpoints within an epoch, ≥ 0; each epoch ends with one.
        interruption: tells when to stop.
        progress: show bars; by default where the standard error is a terminal.
        log: called with the row of every epoch.

    Attributes:
        history: a row per epoch.
        stage: the number of the stage that the run is in.
        last: weights after the last epoch of the stage that answers; None before.
    """

    def __init__(
        self,
        model: DiffMICv2,
        recipe: Recipe,
        training: ImageDataset,
        validation: ImageDataset,
        processes: Processes,
        *,
        output: Path,
        data: str,
        checkpoint_minutes: float,
        interruption: Interruption,
        progress: bool | None = None,
        log: Any = None,
    ) -> None:
        self.model, self.recipe, self.processes, self.data = model, recipe, processes, data
        self.training, self.validation = training, validation
        self.output, self.checkpoint = output, output / CHECKPOINT_FILE
        self.seconds_between = checkpoint_minutes * 60
        self.interruption, self.log = interruption, log
        self.progress = progress if processes.is_main else False
        self.history: list[dict[str, Any]] = []
        self.stage = 0
        self.last: dict[str, Tensor] | None = None
        self._resumed: dict[str, Any] | None = None
        self._saved = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint.

        Raises:
            ValueError: it belongs to another model, recipe or data.
        """
        again = "choose another output directory, or resume='never' to start again"
        mine = {"recipe": self.recipe.to_dict(), "config": self._config()}
        for what, values in mine.items():
            changed = sorted(key for key in values if state[what].get(key) != values[key])
            if changed:
                raise ValueError(f"{self.checkpoint}: was made with another {what} (fields {changed}); {again}")
        if state["data"] != self.data:
            raise ValueError(f"{self.checkpoint}: was made with other images, labels or splits; {again}")
        if state["processes"] != self.processes.share.processes:
            raise ValueError(
                f"{self.checkpoint}: was made by {state['processes']} processes, now there are "
                f"{self.processes.share.processes}; start as many, or {again}"
            )
        self.history, self.stage = state["history"], state["stage"]
        self.model.load_state_dict(state["model"])
        self._resumed = state

    def train(self) -> None:
        """Trains what is left, and leaves the best weights of each stage in the model.

        Raises:
            ValueError: the loss or a gradient became NaN or infinite.
            KeyboardInterrupt: the run was asked to stop; a checkpoint was written.
        """
        for stage in create_stages(self.recipe, self.model.config)[self.stage :]:
            self.stage = stage.number
            with learning(self.model, stage, self.recipe):
                self._train_stage(stage)

    def _train_stage(self, stage: Stage) -> None:
        batches = batches_per_epoch(len(self.training), self.recipe.batch_size, self.processes.share)
        steps = Steps(self.model, stage, self.recipe, self.training.targets, batches, self.processes)
        position = Position()
        best: dict[str, Any] = {"value": -math.inf, "state": None, "calibration": {}, "epoch": 0, "improved": 0}
        if self._resumed is not None:
            steps.load_state_dict(self._resumed["steps"])
            best, position = self._resumed["best"], Position(**self._resumed["position"])
            self._resumed = None
        while position.epoch < stage.epochs and not self._gave_up(position.epoch, best["improved"]):
            self._train_epoch(stage, steps, position, best, batches)
            best = self._judged(stage, steps, position, best, batches)
            position = Position(epoch=position.epoch + 1)
            self._save(steps, best, position)
        if best["state"] is not None:
            self._keep(stage, steps, best)

    def _gave_up(self, epoch: int, improved: int) -> bool:
        return bool(self.recipe.patience) and epoch - improved >= self.recipe.patience

    def _train_epoch(self, stage: Stage, steps: Steps, position: Position, best: dict[str, Any], batches: int) -> None:
        recipe, epoch = self.recipe, position.epoch
        started = time.monotonic() - position.seconds
        sampler = BatchSampler(
            self.training.targets,
            recipe.batch_size,
            recipe.sampling,
            (recipe.seed, stage.number, epoch),
            position.batch,
            self.processes.share,
        )
        loader = DataLoader(
            self.training,
            batch_sampler=sampler,
            num_workers=recipe.num_workers,
            pin_memory=self.processes.device.type == "cuda",
        )
        hide = None if self.progress is None else not self.progress
        size = recipe.batch_size * self.processes.share.processes
        with tqdm(
            total=batches * size,
            initial=position.batch * size,
            desc=f"{stage.name} {epoch + 1}/{stage.epochs}",
            unit="img",
            disable=hide,
        ) as bar:
            for images, targets in loader:
                try:
                    position.loss += steps.take(images, targets, epoch, position.batch)
                except NotFiniteError as error:
                    raise ValueError(self._not_finite(error, stage, position)) from error
                position.batch += 1
                position.seconds = time.monotonic() - started
                bar.update(size)
                bar.set_postfix(loss=f"{position.loss / position.batch:.4f}")
                self._between_batches(steps, best, position, batches)

    def _between_batches(self, steps: Steps, best: dict[str, Any], position: Position, batches: int) -> None:
        """Saves and stops where it was asked for, and saves where it is time."""
        if not steps.at_step_end(position.batch - 1):
            return
        stop = self.processes.mean(torch.tensor(float(self.interruption.asked), device=self.processes.device))
        if stop > 0:
            self._save(steps, best, position)
            raise KeyboardInterrupt(f"stopped in epoch {position.epoch + 1}, batch {position.batch} of {batches}")
        if position.batch < batches and time.monotonic() - self._saved >= self.seconds_between:
            self._save(steps, best, position)

    def _not_finite(self, error: Exception, stage: Stage, position: Position) -> str:
        kept = f" {self.checkpoint} holds an earlier state." if self.checkpoint.exists() else ""
        return (
            f"{error} in stage {stage.name}, epoch {position.epoch + 1}, batch {position.batch + 1}.{kept} Lower the "
            "learning rate and start again with resume='never'"
        )

    def _judged(
        self, stage: Stage, steps: Steps, position: Position, best: dict[str, Any], batches: int
    ) -> dict[str, Any]:
        """Adds the epoch's row to the history and returns the best epoch so far."""
        started = time.monotonic()
        epoch = position.epoch + 1
        row: dict[str, Any] = {"stage": stage.name, "epoch": epoch, "lr": steps.lr}
        row["train_loss"] = position.loss / batches
        if epoch % self.recipe.validate_every == 0 or epoch == stage.epochs:
            judged = steps.judged
            self.processes.same_everywhere(judged)
            metrics, calibration = self._validate(judged, stage)
            row |= metrics.values | calibration
            value = selection_value(metrics, self.recipe.select)
            # Of equally good epochs the later one: it has seen more, and the average has settled.
            if value >= best["value"]:
                best = {
                    "value": value,
                    "state": _cpu_copy(judged),
                    "calibration": calibration,
                    "epoch": epoch,
                    "improved": epoch if value > best["value"] else best["improved"],
                }
        row["seconds"] = round(position.seconds + time.monotonic() - started, 1)
        self.history.append(row)
        self._write_history()
        if self.log is not None:
            self.log(row)
        return best

    def _validate(self, model: DiffMICv2, stage: Stage) -> tuple[Metrics, dict[str, float]]:
        """Judges a stage on validation data by calibrated probabilities, and returns the config's fields for them.

        Without the calibration, which is fitted on the same data, epochs would be chosen for how timid they are.
        """
        share = Subset(self.validation, self.processes.rows(len(self.validation)))
        loader = DataLoader(share, self.recipe.batch_size)
        scores, targets = collect_scores(model, stage.scores, loader, self.progress)
        scores, targets = self.processes.gathered(scores), self.processes.gathered(targets)
        config = model.config
        probs, calibration = _calibrated(scores, targets, config)
        names, ordinal = config.labels, config.ordinal
        metrics = compute_metrics(probs, targets, task=config.task, class_names=names, ordinal=ordinal, bootstrap=0)
        return metrics, calibration

    def _keep(self, stage: Stage, steps: Steps, best: dict[str, Any]) -> None:
        """Puts the best weights of a finished stage into the model and marks their epoch."""
        model = self.model
        self.last = _cpu_copy(steps.judged) if stage.answers else None
        model.load_state_dict(best["state"])
        # Where only the DCG has learned, what was fitted to the old one is not right any more.
        model.config = model.config.uncalibrated().replace(**best["calibration"] if stage.answers else {})
        for row in self.history:
            if row["stage"] == stage.name:
                row["kept"] = row["epoch"] == best["epoch"]
        self._write_history()

    def _save(self, steps: Steps, best: dict[str, Any], position: Position) -> None:
        if self.processes.is_main:
            state = {
                "recipe": self.recipe.to_dict(),
                "config": self._config(),
                "data": self.data,
                "processes": self.processes.share.processes,
                "history": self.history,
                "stage": self.stage,
                "position": asdict(position),
                "model": self.model.state_dict(),
                "steps": steps.state_dict(),
                "best": best,
            }
            save_checkpoint(state, self.checkpoint)
        self._saved = time.monotonic()

    def _config(self) -> dict[str, Any]:
        """Returns what a checkpoint's config has to equal; calibration is a result of training."""
        return self.model.config.uncalibrated().to_dict()

    def _write_history(self) -> None:
        if not self.processes.is_main:
            return
        columns = list(dict.fromkeys(key for row in self.history for key in row))
        with (self.output / HISTORY_FILE).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)


def selection_value(metrics: Metrics, name: str) -> float:
    """Returns what to maximise; a metric that the validation data do not define counts as the worst.

    Raises:
        ValueError: the task has no such metric.
    """
    if name not in metrics.values:
        raise ValueError(f"select={name!r} is not a metric of this task; it has {', '.join(metrics.values)}")
    return find_metric(name).quality(metrics.values[name])


def _calibrated(scores: Tensor, targets: Tensor, config: DiffMICConfig) -> tuple[Tensor, dict[str, float]]:
    """Returns probabilities of a stage's scores, calibrated on these targets, and the config's fields that say how."""
    if scores.ndim == 2:
        temperature = fit_temperature(scores, targets, task=config.task)
        return logits_to_probs(scores / temperature, config.task), {"temperature": temperature}
    own, dcg_scores = scores.unbind(1)
    fields = fit_calibration(own, dcg_scores, targets, config)
    return scores_to_probs(own, config.replace(**fields), dcg_scores), fields


def _cpu_copy(model: DiffMICv2) -> dict[str, Tensor]:
    return {name: deepcopy(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}
