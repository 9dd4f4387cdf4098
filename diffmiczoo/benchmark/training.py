"""Speed of training steps on this machine: the straightforward step and ours, each optimisation also switched off."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffmiczoo.benchmark.roofline import now
from diffmiczoo.diffusion.losses import draw
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn import unet
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.malloc import kept_memory
from diffmiczoo.runtime.modes import kept_modes, seeded_generator
from diffmiczoo.runtime.precision import autocast
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import Stage, create_stages, learning, parameter_groups


@dataclass(frozen=True)
class TrainVariant:
    """One way to do the same step.

    Attributes:
        name: for the table.
        channels_last: memory layout of the convolutions.
        fused: the optimiser updates all weights in one kernel.
        precision: of matrix products and convolutions.
        fast_depthwise: depthwise convolutions with `nn.depthwise`'s gradients.
        matrix_products: the U-Net's 1 × 1 convolutions as matrix products.
        kept_memory: freed memory stays in the process.
    """

    name: str
    channels_last: bool = True
    fused: bool = True
    precision: str = "fp32"
    fast_depthwise: bool = True
    matrix_products: bool = True
    kept_memory: bool = True


PLAIN = TrainVariant(
    "straightforward, fp32", channels_last=False, fused=False, matrix_products=False, kept_memory=False
)
OURS = TrainVariant("ours, fp32")


def train_variants(half: str = "bf16") -> list[TrainVariant]:
    """Returns the rows of the table: straightforward, ours, and ours with each optimisation switched off alone."""
    best = replace(OURS, name=f"ours, {half}", precision=half)
    return [
        PLAIN,
        OURS,
        best,
        replace(best, name=f"ours, {half}, without: channels last", channels_last=False),
        replace(best, name=f"ours, {half}, without: fused optimiser", fused=False),
        replace(best, name=f"ours, {half}, without: fast depthwise gradients", fast_depthwise=False),
        replace(best, name=f"ours, {half}, without: matrix products", matrix_products=False),
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
    """Times forward, backward and optimiser of both stages on random images; the model is left as it is.

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
        raise ValueError(f"batch_size={batch_size} must be at least 2: BatchNorm needs several images")
    rows = rows or train_variants()
    stages = create_stages(Recipe(), model.config)
    timings: list[TrainTiming] = []
    hide = None if progress is None else not progress
    with tqdm(total=len(stages) * len(rows) * (repeats + 1), desc="benchmark", unit="step", disable=hide) as bar:
        for stage in stages:
            first = 0.0
            for variant in rows:
                seconds, loss = _timed(deepcopy(model), stage, variant, batch_size, repeats, bar.update)
                median = statistics.median(seconds)
                first = first or median
                ends = min(seconds), max(seconds)
                timings.append(
                    TrainTiming(stage.name, variant.name, median, *ends, batch_size / median, first / median, loss)
                )
    return timings


def _timed(
    model: DiffMICv2,
    stage: Stage,
    variant: TrainVariant,
    batch_size: int,
    repeats: int,
    tick: Callable[[], object],
) -> tuple[list[float], float]:
    device, size = model.default_noise.device, model.config.image_size
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    model.to(memory_format=layout)
    images = torch.randn(batch_size, 3, size, size, generator=seeded_generator(0)).to(device)
    labels = torch.eye(model.config.num_classes, device=device)[torch.arange(batch_size) % model.config.num_classes]
    seconds = []
    loss = torch.zeros(())
    memory = kept_memory() if variant.kept_memory else nullcontext()
    products = nullcontext() if variant.matrix_products else _plain_convolutions()
    with learning(model, stage, Recipe()), kept_modes(model), memory, products:
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
    half_on_cpu = variant.precision == "bf16" and images.device.type == "cpu" and variant.fast_depthwise

    def step(number: int) -> Tensor:
        model.train()
        draws = draw(model.config, len(images), seeded_generator(number)).share(0, len(images), images.device)
        optimizer.zero_grad(set_to_none=True)
        grouped = fast_depthwise(model) if half_on_cpu else nullcontext()
        with grouped, autocast(variant.precision, images.device):
            loss = stage.loss(model, images, labels, None, draws)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


@contextmanager
def _plain_convolutions() -> Iterator[None]:
    """Lets the U-Net convolve where it would multiply matrices."""
    ours = unet.convolve
    unet.convolve = lambda conv, x: conv(x)
    try:
        yield
    finally:
        unet.convolve = ours


def as_table(timings: list[TrainTiming]) -> str:
    """Returns timings as a Markdown table."""
    lines = [
        "| stage | way to train | images/s | × | ms/image | loss after the last step |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.stage} | {row.variant} | {row.images_per_second:.2f} | {row.ratio:.2f} | "
        f"{1000 / row.images_per_second:.1f} | {row.loss:.4f} |"
        for row in timings
    ]
    return "\n".join(lines)
