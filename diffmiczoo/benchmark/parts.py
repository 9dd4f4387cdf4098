"""Where the time of a prediction goes: parameters, work and time of each part, beside the machine's limit."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import trange

from diffmiczoo.benchmark.inference import random_images, same_start, share_of_points
from diffmiczoo.benchmark.roofline import Limits, now
from diffmiczoo.diffusion import sampling
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.priors import exact_priors
from diffmiczoo.runtime.malloc import kept_memory
from diffmiczoo.runtime.modes import evaluation_mode
from diffmiczoo.runtime.precision import PRECISIONS, autocast
from diffmiczoo.zoo.complexity import count_macs, count_parameters

# It computes in full precision whatever the other parts do.
_DCG = "DCG"


@dataclass(frozen=True)
class PartTiming:
    """What one part of a prediction takes.

    Attributes:
        part: "DCG", "feature prior", "U-Net, S steps" or "total".
        parameters: their number.
        gmac: multiply-accumulates for one image, in 10⁹, as computed: equal points once.
        seconds: median for one image of a batch.
    """

    part: str
    parameters: int
    gmac: float
    seconds: float


def benchmark_parts(
    model: DiffMICv2,
    *,
    batch_size: int = 32,
    repeats: int = 5,
    precision: str = "bf16",
    progress: bool | None = None,
) -> list[PartTiming]:
    """Times the parts of a prediction from random images, one after the other as `benchmark` times them together.

    Args:
        model: with a diffusion, on its device; its own sampling steps.
        batch_size: images computed at once, ≥ 1.
        repeats: timed runs after one to warm up, ≥ 1.
        precision: "fp32", "bf16", "fp16" or "int8".
        progress: show a bar; by default where the standard error is a terminal.
    """
    hide = None if progress is None else not progress
    images = random_images(model, batch_size).to(memory_format=torch.channels_last)
    model.to(memory_format=torch.channels_last)
    with same_start(model), evaluation_mode(model), torch.inference_mode(), kept_memory():
        runs = [_clocked(model, images, precision) for _ in trange(repeats + 1, desc="by part", disable=hide)][1:]
    medians = [statistics.median(column) / batch_size for column in zip(*runs, strict=True)]
    rows = [PartTiming(*work, taken) for work, taken in zip(_work(model), medians, strict=True)]
    total = PartTiming(
        "total", sum(row.parameters for row in rows), sum(row.gmac for row in rows), sum(row.seconds for row in rows)
    )
    return [*rows, total]


def _clocked(model: DiffMICv2, images: Tensor, precision: str) -> list[float]:
    steps, device = model.config.sampling_steps, images.device
    start = model.draw_noise(steps, 1).start
    found: dict[str, Any] = {}

    def priors() -> None:
        found["priors"] = exact_priors(model.dcg, model.config, images)

    def condition() -> None:
        found["condition"] = model.complete(images, found["priors"]).to(images.dtype)

    def sample() -> None:
        y_T = sampling.start_from(model.config, found["condition"], start)
        sampling.denoise(model, found["condition"], steps, y_T, None, True, True, PRECISIONS[precision])

    times = [now(device)]
    parts: tuple[Callable[[], None], ...] = (priors, condition, sample)
    for part in parts:
        with autocast(precision, device):
            part()
        times.append(now(device))
    return [after - before for before, after in pairwise(times)]


def _work(model: DiffMICv2) -> list[tuple[str, int, float]]:
    config = model.config
    macs, parameters = count_macs(config.replace(num_samples=1)), count_parameters(config)
    macs_of_sampling = macs["unet"] * share_of_points(config) * config.sampling_steps
    return [
        (_DCG, parameters["dcg"], macs["dcg"] / 1e9),
        ("feature prior", parameters["feature_prior"], macs["feature_prior"] / 1e9),
        (f"U-Net, {config.sampling_steps} steps", parameters["unet"], macs_of_sampling / 1e9),
    ]


def as_table(rows: list[PartTiming], limits: Limits, precision: str) -> str:
    """Returns timings as a Markdown table."""
    lines = ["| part | parameters, 10⁶ | GMAC/image | ms/image | of the limit |", "|---|---|---|---|---|"]
    lines += [
        f"| {row.part} | {row.parameters / 1e6:.1f} | {row.gmac:.2f} | {1000 * row.seconds:.2f} | "
        f"{limits.share(row.gmac, 1 / row.seconds, 'fp32' if row.part == _DCG else precision):.0%} |"
        for row in rows
    ]
    return "\n".join(lines)
