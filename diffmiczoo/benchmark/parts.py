"""Where the time of a prediction goes: parameters, work and time of each part, beside the machine's limit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from tqdm.auto import trange

from diffmiczoo.benchmark.inference import random_images, same_start, share_of_points
from diffmiczoo.benchmark.roofline import Limits, now
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.dcg import dcg_forward
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.settings import FAST, using
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
    runtime = replace(FAST, precision=precision)
    with same_start(model), eval_mode(model), torch.inference_mode(), keep_memory(), using(runtime, images.device):
        runs = [_clocked(model, images) for _ in trange(repeats + 1, desc="by part", disable=hide)][1:]
    medians = [statistics.median(column) / batch_size for column in zip(*runs, strict=True)]
    rows = [PartTiming(*work, taken) for work, taken in zip(_work(model), medians, strict=True)]
    total = PartTiming(
        "total", sum(row.parameters for row in rows), sum(row.gmac for row in rows), sum(row.seconds for row in rows)
    )
    return [*rows, total]


def _clocked(model: DiffMICv2, images: Tensor) -> list[float]:
    device = images.device
    times = [now(device)]
    priors = dcg_forward(model.dcg, images, model.config, batch_invariant=True)
    times.append(now(device))
    condition = model.condition_from_priors(images, priors).to(images.dtype)
    times.append(now(device))
    model.sample(condition)
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
