"""`Steps`: what one optimisation step of a stage does, and all that a checkpoint has to hold of it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torchvision.transforms import v2

from diffmiczoo.diffusion.losses import Balance, label_vectors, sample_training_noise
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.compiled import CompiledModules
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.modes import seeded_generator
from diffmiczoo.runtime.settings import training_runtime, using
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import seed_of
from diffmiczoo.training.stages import Stage, StageLoss, parameter_groups, set_training


class NotFiniteError(ValueError):
    """A loss or a gradient became NaN or infinite."""


class Steps:
    """Optimiser, schedule and average of one stage; a step's random numbers depend on nothing but its place in the run.

    Args:
        model: trained in place.
        stage: what is trained.
        recipe: settings.
        targets: of all training images.
        batches: per epoch and process.
        processes: that train together.

    Attributes:
        judged: the model to validate: the average of the weights where there is one.
    """

    def __init__(
        self,
        model: DiffMICv2,
        stage: Stage,
        recipe: Recipe,
        targets: Tensor,
        batches: int,
        processes: Processes,
    ) -> None:
        self.model, self.stage, self.recipe, self.processes = model, stage, recipe, processes
        self.device = processes.device
        # Fused kernels compute the same update several times faster; Apple's have none.
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(parameter_groups(model, stage, recipe), lr=stage.lr, fused=fused)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        steps = math.ceil(batches / recipe.accumulate)
        schedule = cosine_with_warmup(
            steps * max(stage.epochs, 1), int(recipe.warmup_epochs * steps), recipe.min_lr_ratio
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.average = ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
        self.taken = 0
        self.balance = Balance(targets, model.config) if recipe.class_weights == "balanced" else None
        self.mixup = v2.MixUp(alpha=recipe.mixup) if recipe.mixup else None
        self.batches = batches
        self.compiled = CompiledModules(_parts(model)) if recipe.compile else None
        self.loss = processes.together(StageLoss(model, stage))

    @property
    def judged(self) -> DiffMICv2:
        """The model to validate: the average of the weights where there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def lr(self) -> float:
        """Learning rate of what is no encoder."""
        return float(self.scheduler.get_last_lr()[-1])

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, besides the weights of the model."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "taken": self.taken,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.taken = state["taken"]

    def take(self, images: Tensor, targets: Tensor, epoch: int, batch: int) -> float:
        """Learns from one batch; the optimiser steps where `accumulate` batches, or the epoch's last one, are done.

        Args:
            images: (B, 3, S, S) float.
            targets: (B,) or (B, C).
            epoch: from 0.
            batch: of the epoch, from 0.

        Returns:
            The loss, mean over all processes.

        Raises:
            NotFiniteError: the loss or the gradient is NaN or infinite; the weights are those before the step.
        """
        recipe = self.recipe
        set_training(self.model, recipe)
        first, last = self._accumulated(batch)
        seeds = (recipe.seed, self.stage.number, epoch, batch)
        torch.manual_seed(seed_of(*seeds, self.processes.share.rank))
        if batch == first:
            self.optimizer.zero_grad(set_to_none=True)
        with nullcontext() if batch == last else self.processes.alone(self.loss):
            loss = self._loss(images, targets, seeds)
            self.scaler.scale(loss / (last - first + 1)).backward()
        value = float(self.processes.mean(loss.detach()))
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss became {value}")
        if batch == last:
            self._step()
        return value

    def at_step_end(self, batch: int) -> bool:
        """Whether no gradient waits for more batches after this one; only then a checkpoint holds everything."""
        return batch == self._accumulated(batch)[1]

    def _accumulated(self, batch: int) -> tuple[int, int]:
        """Returns the first and the last batch of the step that a batch belongs to."""
        first = batch - batch % self.recipe.accumulate
        return first, min(first + self.recipe.accumulate, self.batches) - 1

    def _loss(self, images: Tensor, targets: Tensor, seeds: tuple[int, ...]) -> Tensor:
        images = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last)
        labels = label_vectors(targets.to(self.device, non_blocking=True), self.model.config)
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)
        weights = None if self.balance is None else self.balance(labels)
        # For all processes at once: two draw what one would with the doubled batch.
        share, count = self.processes.share, len(images)
        generator = seeded_generator(seed_of(*seeds))
        drawn = sample_training_noise(self.model.config, count * share.processes, generator)
        drawn = drawn.slice(*share.of(count), self.device)
        with self._fast_forwards(), using(training_runtime(self.recipe.precision), self.device):
            loss: Tensor = self.loss(images, labels, weights, drawn)
        return loss

    def _fast_forwards(self) -> AbstractContextManager[None]:
        if self.compiled is not None:
            return self.compiled.active()
        mixed_on_cpu = self.recipe.precision == "bf16" and self.device.type == "cpu"
        return fast_depthwise(self.model) if mixed_on_cpu else nullcontext()

    def _step(self) -> None:
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_grad or math.inf)
        # With a scaler single infinite gradients are usual: it leaves out the step and scales less.
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise NotFiniteError(f"the gradient became {float(norm)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.taken += 1
        if self.average is not None:
            self.average.update(self.model, step=self.taken)


def _parts(model: DiffMICv2) -> list[nn.Module]:
    """Returns what is worth compiling: all that has many operations and no choices that depend on the data."""
    return [*model.encoders(), *(child for name, child in model.named_children() if name == "unet")]


def cosine_with_warmup(steps: int, warmup: int, floor: float) -> Any:
    """Returns step → factor on the learning rate: linear up to 1 in `warmup` steps, then cosine down to `floor`."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor
