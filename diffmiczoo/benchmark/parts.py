"""Where the time of a prediction goes: parameters, work and time of each part, beside the machine's limit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from diffmiczoo.benchmark.inference import computed_fraction_of_points, random_images, same_start
from diffmiczoo.benchmark.roofline import Roofline
from diffmiczoo.benchmark.timing import markdown_table, now
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import FAST, using
from diffmiczoo.zoo.complexity import count_macs, count_parameters

# It computes in full precision whatever the other parts do.
_DCG, _PLAIN = "DCG", "classifier"


@dataclass(frozen=True)
class PartTiming:
    """What one part of a prediction takes.

    Attributes:
        part: "DCG" or "classifier", "feature prior", "U-Net, S steps" or "total".
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
        model: on its device; its own sampling steps.
        batch_size: images computed at once, ≥ 1.
        repeats: timed runs after one to warm up, ≥ 1.
        precision: "fp32", "bf16", "fp16" or "int8".
        progress: show a bar; by default where the standard error is a terminal.
    """
    images = random_images(model, batch_size).to(memory_format=torch.channels_last)
    runtime = replace(FAST, precision=precision)
    with same_start(model), eval_mode(model), torch.inference_mode(), keep_memory(), using(runtime, images.device):
        bar = progress_bar(repeats + 1, "by part", "run", progress)
        runs = []
        for _ in range(repeats + 1):
            runs.append(_clocked(model, images))
            bar.update()
        bar.close()
    medians = [statistics.median(column) / batch_size for column in zip(*runs[1:], strict=True)]
    rows = [PartTiming(*work, taken) for work, taken in zip(_work(model), medians, strict=True)]
    total = PartTiming(
        "total", sum(row.parameters for row in rows), sum(row.gmac for row in rows), sum(row.seconds for row in rows)
    )
    return [*rows, total]


def _clocked(model: DiffMICv2, images: Tensor) -> list[float]:
    device = images.device
    times = [now(device)]
    priors = model.dcg(images, model.config, batch_invariant=True)
    times.append(now(device))
    if model.config.predictor != "diffusion":
        return [times[1] - times[0]]
    condition = model.condition_from_priors(images, priors).to(images.dtype)
    times.append(now(device))
    model.sample(condition)
    times.append(now(device))
    return [after - before for before, after in pairwise(times)]


def _work(model: DiffMICv2) -> list[tuple[str, int, float]]:
    config = model.config
    macs, parameters = count_macs(config.replace(num_samples=1)), count_parameters(config)
    macs_of_sampling = macs["unet"] * computed_fraction_of_points(config) * config.sampling_steps
    rows = [
        (_PLAIN if config.predictor == "classifier" else _DCG, parameters["dcg"], macs["dcg"] / 1e9),
        ("feature prior", parameters["feature_prior"], macs["feature_prior"] / 1e9),
        (f"U-Net, {config.sampling_steps} steps", parameters["unet"], macs_of_sampling / 1e9),
    ]
    return rows if config.predictor == "diffusion" else rows[:1]


def parts_table(rows: list[PartTiming], roofline: Roofline, precision: str) -> str:
    """Returns timings as a Markdown table."""
    columns = ("part", "parameters, 10⁶", "GMAC/image", "ms/image", "of the limit")
    return markdown_table(columns, (_cells(row, roofline, precision) for row in rows))


def _cells(row: PartTiming, roofline: Roofline, precision: str) -> list[str]:
    fraction = roofline.fraction(row.gmac, 1 / row.seconds, "fp32" if row.part in (_DCG, _PLAIN) else precision)
    parameters = f"{row.parameters / 1e6:.1f}"
    return [row.part, parameters, f"{row.gmac:.2f}", f"{1000 * row.seconds:.2f}", f"{fraction:.0%}"]
