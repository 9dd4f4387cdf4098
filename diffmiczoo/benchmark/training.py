"""Speed of training steps on this machine: the straightforward step and ours, each optimisation also switched off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffmiczoo.benchmark.timing import Spread, markdown_table, now
from diffmiczoo.diffusion.losses import sample_training_noise
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import preserve_modes, seeded_generator
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import PLAIN, Runtime, training_runtime, using
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import Stage, StageLoss, create_stages, parameter_groups, trainable


@dataclass(frozen=True)
class TrainVariant:
    """One way to do the same step.

    Attributes:
        name: for the table.
        runtime: which optimisations are on.
        channels_last: memory layout of the convolutions.
        fused: the optimiser updates all weights in one kernel.
        fast_depthwise: depthwise convolutions with the gradients of `runtime.depthwise`.
    """

    name: str
    runtime: Runtime
    channels_last: bool = True
    fused: bool = True
    fast_depthwise: bool = True


def train_variants(half: str = "bf16") -> list[TrainVariant]:
    """Returns the rows of the table: straightforward, ours, and ours with each optimisation switched off alone."""
    fp32, mixed = (replace(training_runtime(precision), keep_memory=True) for precision in ("fp32", half))
    best = TrainVariant(f"ours, {half}", mixed)
    convolving = replace(mixed, pointwise_as_linear=False)
    return [
        TrainVariant("straightforward, fp32", PLAIN, channels_last=False, fused=False),
        TrainVariant("ours, fp32", fp32),
        best,
        replace(best, name=f"{best.name}, without: channels last", channels_last=False),
        replace(best, name=f"{best.name}, without: fused optimiser", fused=False),
        replace(best, name=f"{best.name}, without: fast depthwise gradients", fast_depthwise=False),
        replace(best, name=f"{best.name}, without: matrix products", runtime=convolving),
    ]


@dataclass(frozen=True)
class TrainTiming:
    """What one variant took.

    Attributes:
        stage: "dcg" or "diffusion".
        variant: its name.
        seconds: median of a step; `fastest` and `slowest` of all.
        images_per_second: batch / seconds.
        ratio: to the first variant of the stage.
        loss: after the last step, from the same weights, images and noise for all variants.
    """

    stage: str
    variant: str
    seconds: float
    fastest: float
    slowest: float
    images_per_second: float
    ratio: float
    loss: float


def benchmark_training(
    model: DiffMICv2,
    *,
    batch_size: int = 32,
    repeats: int = 5,
    rows: list[TrainVariant] | None = None,
    progress: bool | None = None,
) -> list[TrainTiming]:
    """Times forward, backward and optimiser of both stages on random images; the model is left as it is. The
    streams of the DCG learn at once here.

    Args:
        model: on its device.
        batch_size: images of a step, ≥ 2.
        repeats: timed steps of each variant after one to warm up, ≥ 1.
        rows: the first is what the others are compared with; `train_variants()` by default.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: the batch is too small for BatchNorm.
    """
    if batch_size < 2:
        raise InvalidValueError(f"batch_size={batch_size} must be at least 2: BatchNorm needs several images")
    rows = rows or train_variants()
    stages = create_stages(Recipe(), model.config)
    timings: list[TrainTiming] = []
    with progress_bar(len(stages) * len(rows) * (repeats + 1), "benchmark", "step", progress) as bar:
        for stage in stages:
            first = 0.0
            for variant in rows:
                seconds, loss = _timed(deepcopy(model), stage, variant, batch_size, repeats, bar.update)
                spread = Spread.of(seconds)
                first = first or spread.median
                rate, ratio = batch_size / spread.median, first / spread.median
                ends = spread.median, spread.fastest, spread.slowest
                timings.append(TrainTiming(stage.name, variant.name, *ends, rate, ratio, loss))
    return timings


def _timed(
    model: DiffMICv2,
    stage: Stage,
    variant: TrainVariant,
    batch_size: int,
    repeats: int,
    tick: Callable[[], object],
) -> tuple[list[float], float]:
    device, size = model.default_noise.device, model.config.input_size
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    images = torch.randn(batch_size, 3, size, size, generator=seeded_generator(0)).to(device)
    labels = torch.eye(model.config.num_classes, device=device)[torch.arange(batch_size) % model.config.num_classes]
    seconds = []
    loss = torch.zeros(())
    memory = keep_memory() if variant.runtime.keep_memory else nullcontext()
    with trainable(model, stage, Recipe()), preserve_modes(model), memory:
        step = _step(model, stage, variant, images.to(memory_format=layout), labels)
        for repeat in range(repeats + 1):
            started = now(device)
            loss = step(repeat)
            taken = now(device) - started
            if repeat:
                seconds.append(taken)
            tick()
    return seconds, float(loss)


def _step(
    model: DiffMICv2, stage: Stage, variant: TrainVariant, images: Tensor, labels: Tensor
) -> Callable[[int], Tensor]:
    groups = parameter_groups(model, stage, Recipe())
    optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=variant.fused, foreach=False)
    stage_loss = StageLoss(model, stage)
    half_on_cpu = variant.runtime.precision == "bf16" and images.device.type == "cpu" and variant.fast_depthwise

    def step(number: int) -> Tensor:
        model.train()
        drawn = sample_training_noise(model.config, len(images), seeded_generator(number))
        optimizer.zero_grad(set_to_none=True)
        grouped = fast_depthwise(model) if half_on_cpu else nullcontext()
        with grouped, using(variant.runtime, images.device):
            loss: Tensor = stage_loss(images, labels, None, drawn.slice(0, len(images), images.device))
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def training_table(timings: list[TrainTiming]) -> str:
    """Returns timings as a Markdown table."""
    columns = ("stage", "way to train", "images/s", "×", "ms/image", "loss after the last step")
    return markdown_table(columns, (_cells(row) for row in timings))


def _cells(row: TrainTiming) -> list[str]:
    rate = row.images_per_second
    return [row.stage, row.variant, f"{rate:.2f}", f"{row.ratio:.2f}", f"{1000 / rate:.1f}", f"{row.loss:.4f}"]
