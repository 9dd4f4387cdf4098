"""What the method costs beside what one would otherwise take: whole models, each in the ways that one would run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from diffmiczoo.benchmark.inference import random_images, scores_encoding_once
from diffmiczoo.benchmark.timing import Spread, markdown_table, now
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.malloc import keep_memory
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import PLAIN, PREDICT, Runtime, using
from diffmiczoo.zoo.complexity import count_macs, count_parameters


@dataclass(frozen=True)
class Cost:
    """What one model takes, computed in one way.

    Attributes:
        model: its name.
        way: "predict, PRECISION", with the model's own steps, runs and views; of a plain classifier also "timm,
            PRECISION": the logits alone, as timm's own code computes them.
        parameters: their number.
        gmac: multiply-accumulates for one image, in 10⁹.
        seconds: median for one batch; `fastest` and `slowest` of all runs.
        images_per_second: batch / seconds.
        ratio: time of the first way of the first opponent / this time: below 1 for what is slower.
    """

    model: str
    way: str
    parameters: int
    gmac: float
    seconds: float
    fastest: float
    slowest: float
    images_per_second: float
    ratio: float


Ways = dict[tuple[str, str], Callable[[], Tensor]]


def compare_cost(
    models: Mapping[str, DiffMICv2],
    *,
    batch_size: int = 32,
    repeats: int = 5,
    precision: str = "bf16",
    progress: bool | None = None,
) -> list[Cost]:
    """Times whole predictions of several models, which take turns.

    Args:
        models: name → model, on one device; the first is compared with the others. Each sees random images of its own
            size.
        batch_size: images computed at once, ≥ 1.
        repeats: timed runs of each way after one to warm up, ≥ 1.
        precision: the second one beside "fp32".
        progress: show a bar; by default where the standard error is a terminal.
    """
    ways: Ways = {}
    for name, model in models.items():
        ways |= {(name, way): run for way, run in _ways(model, batch_size, precision).items()}
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in ways}
    device = next(iter(models.values())).default_noise.device
    runs = len(ways) * (repeats + 1)
    with torch.inference_mode(), keep_memory(), progress_bar(runs, "against", "run", progress) as bar:
        for repeat in range(repeats + 1):
            for key, run in ways.items():
                started = now(device)
                run()
                taken = now(device) - started
                bar.update()
                seconds[key] += [taken] if repeat else []
    opponent = next((key for key in ways if key[0] != next(iter(models))), next(iter(ways)))
    first = Spread.of(seconds[opponent]).median
    return [_cost(key, models[key[0]], Spread.of(times), batch_size, first) for key, times in seconds.items()]


def _ways(model: DiffMICv2, batch_size: int, precision: str) -> dict[str, Callable[[], Tensor]]:
    images, found = random_images(model, batch_size), dict[str, Callable[[], Tensor]]()
    if model.config.predictor == "classifier":
        for each in ("fp32", precision):
            found[f"timm, {each}"] = partial(_run, model, images, replace(PLAIN, precision=each), _logits)
    pictures = images.to(memory_format=torch.channels_last)
    for each in ("fp32", precision):
        runtime = replace(PREDICT, precision=each)
        found[f"predict, {each}"] = partial(_run, model, pictures, runtime, scores_encoding_once)
    return found


def _run(model: DiffMICv2, images: Tensor, runtime: Runtime, compute: Callable[[DiffMICv2, Tensor], Tensor]) -> Tensor:
    with eval_mode(model), using(runtime, images.device):
        return compute(model, images)


def _logits(model: DiffMICv2, images: Tensor) -> Tensor:
    return model.dcg.training_priors(images, model.config).global_prior


def _cost(key: tuple[str, str], model: DiffMICv2, spread: Spread, batch_size: int, first: float) -> Cost:
    return Cost(
        model=key[0],
        way=key[1],
        parameters=count_parameters(model.config)["total"],
        gmac=count_macs(model.config)["total"] / 1e9,
        seconds=spread.median,
        fastest=spread.fastest,
        slowest=spread.slowest,
        images_per_second=batch_size / spread.median,
        ratio=first / spread.median,
    )


def against_table(costs: list[Cost]) -> str:
    """Returns costs as a Markdown table."""
    columns = ("model", "way", "parameters", "GMAC/image", "images/s", "ms/image", "×")
    return markdown_table(columns, (_cells(row) for row in costs))


def _cells(row: Cost) -> list[str]:
    return [
        row.model,
        row.way,
        f"{row.parameters / 1e6:.1f} M",
        f"{row.gmac:.2f}",
        f"{row.images_per_second:.1f}",
        f"{1000 / row.images_per_second:.1f}",
        f"{row.ratio:.2f}",
    ]
