"""`fit`: trains both stages, keeps the best epoch on validation data, calibrates, saves; resumes where it stopped."""

from __future__ import annotations

import csv
import math
import os
import time
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffmiczoo.data.augmentation import create_augmentation
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.manifest import Manifest, read_manifest
from diffmiczoo.evaluation.evaluate import Loader
from diffmiczoo.evaluation.metrics import Metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.modes import kept_modes
from diffmiczoo.precision import autocast, grouped_convolutions_in_fp32
from diffmiczoo.training.checkpoint import load_checkpoint, save_checkpoint
from diffmiczoo.training.presets import preset_recipe
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import Stage, create_stages, parameter_groups, validate


@dataclass(frozen=True)
class TrainingResult:
    """What `fit` leaves: `model` (the best on validation data), `history` (a row per epoch) and `output`."""

    model: DiffMICv2
    history: list[dict[str, Any]]
    output: Path


def fit(
    model: DiffMICv2,
    train: str | os.PathLike[str] | Manifest,
    val: str | os.PathLike[str] | Manifest | None = None,
    recipe: Recipe | None = None,
    *,
    output: str | os.PathLike[str],
    resume: str = "auto",
    progress: bool | None = None,
) -> TrainingResult:
    """Trains the DCG, then the diffusion with the DCG frozen; keeps the best epoch of each on validation data.

    Leaves in `output`: `recipe.json`, `metrics.csv` (a row per epoch), `checkpoint.pt`, and `best/` (weights and
    config, with a temperature fitted on the validation data) for `create_model("local-dir:OUTPUT/best",
    pretrained=True)`. The global random state is left as found.

    Args:
        model: trained in place; its device is used.
        train: a CSV manifest, a folder (see `diffmiczoo.data.manifest.read_manifest`), or a `Manifest`.
        val: the same; by default the images of `train` whose split is "val".
        recipe: settings; by default the preset for the model, see `diffmiczoo.training.presets`.
        output: a directory, made if need be.
        resume: "auto" continues from `output/checkpoint.pt` if there is one, "never" starts again.
        progress: show bars; by default where the standard error is a terminal.

    Raises:
        ValueError: the classes are not the model's, there are no validation images, the loss became NaN or infinite,
            or the checkpoint belongs to another model or recipe.
        ImageError: an image cannot be read.
    """
    recipe = recipe or preset_recipe(model.config)
    if resume not in ("auto", "never"):
        raise ValueError(f"resume={resume!r} must be 'auto' or 'never'")
    train_manifest, val_manifest = _manifests(model, train, val)
    _check_plan(recipe, model.config.task, train_manifest)
    model.config = model.config.replace(class_names=train_manifest.class_names)
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    data = train_manifest.digest() + val_manifest.digest()
    run = _Run(model, recipe, output, data, progress)
    if resume == "auto" and run.checkpoint.exists():
        run.restore(load_checkpoint(run.checkpoint))
    recipe.save(output / "recipe.json")
    loaders = _loaders(model, recipe, train_manifest, val_manifest, progress)
    model.to(memory_format=torch.channels_last)
    with torch.random.fork_rng(), kept_modes(model):
        for stage in create_stages(recipe, model.config)[run.stage_index :]:
            run.train_stage(stage, *loaders)
    answering = next(stage for stage in create_stages(recipe, model.config) if stage.answers)
    model.trained = answering.epochs > 0 or model.trained
    model.save_pretrained(output / "best")
    return TrainingResult(model, run.history, output)


def _manifests(model: DiffMICv2, train: Any, val: Any) -> tuple[Manifest, Manifest]:
    config = model.config
    names, task = config.class_names or None, config.task
    given = train if isinstance(train, Manifest) else read_manifest(train, class_names=names, task=task)
    _check_fits(given, model, config.class_names)
    if val is None:
        if not given.has_splits:
            raise ValueError(f"{given.name}: no validation images; add a column split (train, val, test) or pass val=")
        return given.split("train"), given.split("val")
    other = val if isinstance(val, Manifest) else read_manifest(val, class_names=given.class_names, task=task)
    _check_fits(other, model, given.class_names)
    training = given.split("train") if given.has_splits else given
    validation = other.split("val") if other.has_splits else other
    both = {record.path.resolve() for record in training.records} & {r.path.resolve() for r in validation.records}
    if both:
        raise ValueError(
            f"{len(both)} images are in the training and in the validation data, first {sorted(both)[0]}; a model has "
            "to be judged on images that it was not trained on"
        )
    return training, validation


def _check_fits(manifest: Manifest, model: DiffMICv2, class_names: tuple[str, ...]) -> None:
    config = model.config
    if manifest.task != config.task:
        raise ValueError(
            f"{manifest.name} is {manifest.task}, the model {config.task}; create it with task={manifest.task!r}"
        )
    if manifest.class_names != class_names and (class_names or len(manifest.class_names) != config.num_classes):
        raise ValueError(
            f"{manifest.name} has the classes {list(manifest.class_names)}, the model "
            f"{list(class_names or config.labels)}; call model.reset_classifier(num_classes, class_names) first"
        )


def _check_plan(recipe: Recipe, task: str, train: Manifest) -> None:
    """Refuses, before an image is read, what would fail in the middle."""
    if len(train) < recipe.batch_size:
        raise ValueError(
            f"{train.name}: {len(train)} training images do not fill one batch of {recipe.batch_size}; set batch_size "
            f"to at most {len(train)}"
        )
    if task == "multilabel" and recipe.select == "balanced_accuracy":
        raise ValueError("select='balanced_accuracy' is not a metric of a multi-label model; take macro_f1 or auroc")


def _loaders(
    model: DiffMICv2, recipe: Recipe, train: Manifest, val: Manifest, progress: bool | None
) -> tuple[Loader, Loader]:
    augmentation = create_augmentation(
        model.config.image_size,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        rotation=recipe.rotation,
        min_scale=recipe.min_scale,
        color_jitter=recipe.color_jitter,
    )
    training = DataLoader(
        ImageDataset(train, model.config, augmentation, progress),
        recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=recipe.num_workers,
    )
    return training, DataLoader(ImageDataset(val, model.config, progress=progress), recipe.batch_size)


class _Run:
    """State of a run between epochs, and what one epoch does to it."""

    def __init__(self, model: DiffMICv2, recipe: Recipe, output: Path, data: str, progress: bool | None) -> None:
        self.model, self.recipe, self.output, self.data = model, recipe, output, data
        self.checkpoint = output / "checkpoint.pt"
        self.progress = progress
        self.device = model.default_noise.device
        self.stage_index = 0
        self.history: list[dict[str, Any]] = []
        self.resumed: dict[str, Any] | None = None

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over a checkpoint.

        Raises:
            ValueError: it belongs to another model or recipe.
        """
        mine = {"recipe": self.recipe.to_dict(), "config": self.model.config.replace(temperature=None).to_dict()}
        for what, values in mine.items():
            changed = sorted(key for key in values if state[what].get(key) != values[key])
            if changed:
                raise ValueError(
                    f"{self.checkpoint}: was made with another {what} (fields {changed}); choose another output "
                    "directory, or resume='never' to start again"
                )
        if state["data"] != self.data:
            raise ValueError(
                f"{self.checkpoint}: was made with other images, labels or splits; choose another output directory, or "
                "resume='never' to start again"
            )
        self.history, self.stage_index = state["history"], state["stage_index"]
        self.model.load_state_dict(state["model"])
        self.resumed = state

    def train_stage(self, stage: Stage, training: Loader, validation: Loader) -> None:
        """Trains one stage to its end and leaves its best weights in the model."""
        model, recipe = self.model, self.recipe
        optimizer = torch.optim.AdamW(parameter_groups(model, stage, recipe), lr=stage.lr)
        steps = len(training) * max(stage.epochs, 1)
        schedule = _cosine_with_warmup(steps, int(recipe.warmup_epochs * len(training)), recipe.min_lr_ratio)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        average = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
        best: dict[str, Any] = {"value": -math.inf, "state": None, "temperature": None, "epoch": 0}
        first_epoch = 0
        if self.resumed is not None:
            optimizer.load_state_dict(self.resumed["optimizer"])
            scheduler.load_state_dict(self.resumed["scheduler"])
            if average is not None:
                average.module.load_state_dict(self.resumed["average"])
            best, first_epoch, self.resumed = self.resumed["best"], self.resumed["epoch"], None
        for epoch in range(first_epoch, stage.epochs):
            started = time.monotonic()
            torch.manual_seed((recipe.seed * 2 + self.stage_index) * 100_003 + epoch)
            row: dict[str, Any] = {"stage": stage.name, "epoch": epoch + 1, "lr": scheduler.get_last_lr()[-1]}
            row["train_loss"] = self._train_epoch(stage, training, optimizer, scheduler, average, epoch)
            if (epoch + 1) % recipe.validate_every == 0 or epoch + 1 == stage.epochs:
                judged = model if average is None else average.module
                metrics, temperature = validate(judged, stage, validation, self.progress)
                row |= metrics.values
                value = _selection_value(metrics, recipe.select)
                # Of equally good epochs the later one: it has seen more, and the average has settled.
                if value >= best["value"]:
                    best = {"value": value, "state": _cpu_copy(judged), "temperature": temperature, "epoch": epoch + 1}
            row["seconds"] = round(time.monotonic() - started, 1)
            self.history.append(row)
            self._write_history()
            self._save(optimizer, scheduler, average, best, epoch + 1)
        if best["state"] is not None:
            model.load_state_dict(best["state"])
            for row in self.history:
                if row["stage"] == stage.name:
                    row["kept"] = row["epoch"] == best["epoch"]
            self._write_history()
        if best["temperature"] is not None:
            model.config = model.config.replace(temperature=best["temperature"])
        self.stage_index += 1

    def _train_epoch(
        self, stage: Stage, training: Loader, optimizer: Any, scheduler: Any, average: ModelEmaV3 | None, epoch: int
    ) -> float:
        model, total = self.model, 0.0
        model.train()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        hide = None if self.progress is None else not self.progress
        bar = tqdm(training, desc=f"{stage.name} {epoch + 1}/{stage.epochs}", unit="batch", disable=hide)
        mixed_on_cpu = self.recipe.precision == "bf16" and self.device.type == "cpu"
        with grouped_convolutions_in_fp32(model) if mixed_on_cpu else nullcontext():
            for count, (images, targets) in enumerate(bar, start=1):
                images, targets = images.to(self.device), targets.to(self.device)
                images = images.to(memory_format=torch.channels_last)
                with autocast(self.recipe.precision, self.device):
                    loss = stage.loss(model, images, targets)
                value = loss.item()
                if not math.isfinite(value):
                    kept = f" {self.checkpoint} holds the epoch before it." if self.checkpoint.exists() else ""
                    raise ValueError(
                        f"the loss became {value} in stage {stage.name}, epoch {epoch + 1}, batch {count}.{kept} Lower "
                        "the learning rate and start again with resume='never'"
                    )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                if self.recipe.clip_grad:
                    torch.nn.utils.clip_grad_norm_(parameters, self.recipe.clip_grad)
                optimizer.step()
                scheduler.step()
                if average is not None:
                    average.update(model)
                total += value
                bar.set_postfix(loss=f"{total / count:.4f}")
        return total / len(training)

    def _save(self, optimizer: Any, scheduler: Any, average: ModelEmaV3 | None, best: Any, epoch: int) -> None:
        state = {
            "recipe": self.recipe.to_dict(),
            "config": self.model.config.replace(temperature=None).to_dict(),
            "data": self.data,
            "history": self.history,
            "stage_index": self.stage_index,
            "epoch": epoch,
            "model": self.model.state_dict(),
            "average": None if average is None else average.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "best": best,
        }
        save_checkpoint(state, self.checkpoint)

    def _write_history(self) -> None:
        columns = list(dict.fromkeys(key for row in self.history for key in row))
        with (self.output / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)


def _selection_value(metrics: Metrics, name: str) -> float:
    """Returns what to maximise; a metric that the validation data do not define counts as the worst.

    Raises:
        ValueError: the task has no such metric.
    """
    if name not in metrics.values:
        raise ValueError(f"select={name!r} is not a metric of this task; it has {', '.join(metrics.values)}")
    value = metrics.values[name]
    if math.isnan(value):
        return -math.inf
    return -value if name == "nll" else value


def _cpu_copy(model: DiffMICv2) -> dict[str, Tensor]:
    return {name: deepcopy(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}


def _cosine_with_warmup(steps: int, warmup: int, floor: float) -> Any:
    """Returns step → factor on the learning rate: linear up to 1 in `warmup` steps, then cosine down to `floor`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor
