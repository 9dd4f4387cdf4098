"""`Optimization`: one training step, and all that a checkpoint has to hold for the next one."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.data.augmentation import create_mixing
from diffmiczoo.diffusion.class_losses import create_class_loss
from diffmiczoo.diffusion.losses import Balance, label_vectors, sample_training_noise
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.compiled import CompiledModules
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.modes import seeded_generator
from diffmiczoo.runtime.module_walk import is_as_written
from diffmiczoo.runtime.settings import training_runtime, using
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.graphed import Batch, GraphedStep, can_be_graphed
from diffmiczoo.training.progressive import seen_small, start_size
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import seed_of
from diffmiczoo.training.soft_labels import SoftLabels
from diffmiczoo.training.stages import Stage, StageLoss, parameter_groups, set_training
from diffmiczoo.training.teachers import Teachers
from diffmiczoo.training.weight_average import WeightAverage


class NotFiniteError(InvalidValueError):
    """A loss or a gradient became NaN or infinite."""


class Optimization:
    """Optimiser, learning rates, loss scale and weight average of one stage.

    Args:
        model: trained in place.
        stage: what is trained.
        recipe: settings.
        targets: of all training images.
        batches: per epoch and process.
        processes: that train together.
        teachers: whose answers the DCG learns beside the labels; None where there are none.
    """

    def __init__(
        self,
        model: DiffMICv2,
        stage: Stage,
        recipe: Recipe,
        targets: Tensor,
        batches: int,
        processes: Processes,
        teachers: Teachers | None = None,
    ) -> None:
        self.model, self.stage, self.recipe, self.processes = model, stage, recipe, processes
        self.device, self.batches = processes.device, batches
        # Fused kernels compute the same update several times faster; Apple's have none.
        fused = self.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(parameter_groups(model, stage, recipe), lr=stage.lr, fused=fused)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        steps = math.ceil(batches / recipe.accumulate)
        factor = cosine_with_warmup(
            steps * max(stage.epochs, 1), int(recipe.warmup_epochs * steps), recipe.min_lr_ratio
        )
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.precision == "fp16")
        self.average = WeightAverage(model, recipe.ema_decay) if recipe.ema_decay else None
        self.updates = 0
        self.balance = Balance(targets, model.config) if recipe.class_weights == "balanced" else None
        self.mixing = create_mixing(recipe.mixup, recipe.cutmix)
        self.soft_labels = SoftLabels(recipe, model.config, teachers) if stage.name != "diffusion" else None
        self.fast_kernels = _fast_kernels(model, recipe, self.device)
        class_loss = create_class_loss(recipe.dcg_loss, recipe.hard_share, targets, model.config)
        self.loss = processes.prepare(StageLoss(model, stage, class_loss))
        graphed = can_be_graphed(recipe, self.device, processes.distributed) and is_as_written(model)
        self.graphed = GraphedStep(model, self._new_gradient) if graphed else None

    @property
    def eval_model(self) -> DiffMICv2:
        """The model to validate: the average of the weights where there is one."""
        return self.model if self.average is None else self.average.module

    @property
    def lr(self) -> float:
        """Learning rate of everything but the encoders."""
        return float(self.scheduler.get_last_lr()[-1])

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, besides the weights of the model."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Loads what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.module.load_state_dict(dict(state["average"]))
        self.updates = state["updates"]

    def training_step(self, images: Tensor, targets: Tensor, epoch: int, batch: int) -> float:
        """Trains on one batch; the weights change after `accumulate` batches, or the epoch's last one.

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
        set_training(self.model, self.recipe)
        # Random numbers depend on the seed and the batch's place in the run alone: a resumed run has the same ones.
        seeds = (self.recipe.seed, self.stage.number, epoch, batch)
        seed = seed_of(*seeds, self.processes.rank.rank)
        torch.manual_seed(seed)
        prepared = self._prepared(images, targets, seeds)

        # Loss (of the diffusion: Algorithm 1, `losses.diffusion_loss`) and its gradient, added up over the batches
        # of an update; processes exchange it once, at the last.
        first, last = self._accumulated(batch)
        size = start_size(self.recipe, self.stage, epoch)
        loss = None if self.graphed is None else self.graphed(size, prepared, seed)
        if loss is None:
            if batch == first:
                self.optimizer.zero_grad(set_to_none=True)
            with nullcontext() if batch == last else self.processes.no_sync(self.loss):
                loss = self._gradient(last - first + 1, size, *prepared)
        value = float(self.processes.mean(loss))
        if not math.isfinite(value):
            raise NotFiniteError(f"the loss became {value}")

        # Update of the weights, and of their average
        if batch == last:
            self._update()
        return value

    def _prepared(self, images: Tensor, targets: Tensor, seeds: tuple[int, ...]) -> Batch:
        """Returns images, labels and their weights, and for the diffusion stage t and ε of each noise point."""
        images = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last)
        labels = label_vectors(targets.to(self.device, non_blocking=True), self.model.config)
        if self.mixing is not None:
            images, labels = self.mixing(images, labels)
        weights = None if self.balance is None else self.balance(labels)
        if self.soft_labels is not None:
            labels = self.soft_labels(labels, images)
        # For all processes at once: two have the numbers that one has with the doubled batch.
        rank, count, generator = self.processes.rank, len(images), seeded_generator(seed_of(*seeds))
        noise = sample_training_noise(self.model.config, count * rank.world_size, generator)
        return images, labels, weights, noise.slice(*rank.slice(count), self.device)

    def _gradient(self, batches: int, size: int | None, *batch: Any) -> Tensor:
        """Adds the gradient of a batch's loss, one of some whose mean is minimised, and returns the loss."""
        small = nullcontext() if size is None else seen_small(self.model, size)
        with small, self.fast_kernels(), using(training_runtime(self.recipe.precision), self.device):
            loss: Tensor = self.loss(*batch)
        self.scaler.scale(loss / batches).backward()
        return loss.detach()

    def _new_gradient(self, size: int | None, *batch: Any) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        return self._gradient(1, size, *batch)

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_grad or math.inf)
        # With a scaler single infinite gradients are usual: it skips the step and lowers the scale.
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise NotFiniteError(f"the gradient became {float(norm)}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        self.updates += 1
        if self.average is not None:
            self.average.update(self.model, step=self.updates)

    def is_update(self, batch: int) -> bool:
        """Whether the weights change after this batch; only then no gradient is pending that a checkpoint lacks."""
        return batch == self._accumulated(batch)[1]

    def _accumulated(self, batch: int) -> tuple[int, int]:
        """Returns the first and the last batch of the update that a batch belongs to."""
        first = batch - batch % self.recipe.accumulate
        return first, min(first + self.recipe.accumulate, self.batches) - 1


def _fast_kernels(model: DiffMICv2, recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Returns what makes contexts for forward passes: compiled modules, fast gradients in bf16 on CPUs, or nothing."""
    if recipe.compile:
        # What has many operations and no choices that depend on the data.
        unet = [child for name, child in model.named_children() if name == "unet"]
        return CompiledModules([*model.encoders(), *unet]).active
    if recipe.precision == "bf16" and device.type == "cpu":
        return partial(fast_depthwise, model)
    return nullcontext


def cosine_with_warmup(steps: int, warmup: int, floor: float) -> Callable[[int], float]:
    """Returns step → factor on the learning rate: linear up to 1 in `warmup` steps, then cosine down to `floor`.

    Not timm's CosineLRScheduler or torch's CosineAnnealingLR: their lowest rate is one absolute number for all
    parameter groups, while here each group, encoders too, falls to the same share of its own rate.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    return factor
