"""Table 6: parameters and multiply-accumulates of each row, counted, and the time of one picture, measured."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from diffmiczoo._version import __version__
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.reproduction.execution import commit, hardware
from diffmiczoo.reporting.reproduction.methods import METHODS, OURS
from diffmiczoo.reporting.reproduction.planning import run_of
from diffmiczoo.reporting.reproduction.records import CostRecord
from diffmiczoo.reporting.reproduction.variants import FULL, Budget, Run, Variant
from diffmiczoo.zoo.architectures import ablation_fields
from diffmiczoo.zoo.complexity import count_macs, count_parameters
from diffmiczoo.zoo.factory import get_config

#: Predictions that are timed, after one that is not.
REPEATS = 5


def cost_rows(rows: list[Variant], budget: Budget) -> list[tuple[Variant, Budget]]:
    """Returns what is counted: a budget's rows, and the paper's DiffMIC where the budget has smaller ones.

    Losses change no cost, so that LDAM and OHEM are left out.
    """
    own = [(variant, budget) for variant in rows if not variant.recipe]
    if not budget.architecture:
        return own
    paper = [METHODS[key] for key in ("gmic", "diffmic_v1", OURS)]
    named = [replace(variant, key=f"{variant.key}-paper", title=f"{variant.title}, paper's size") for variant in paper]
    return [*own, *((variant, FULL) for variant in named)]


def measure_cost(variant: Variant, budget: Budget, device: str = "cpu", timed: bool = True) -> CostRecord:
    """Counts and times a row on one picture of noise with random weights, in float32.

    Args:
        variant: the row.
        budget: of its size.
        device: where it is timed.
        timed: whether it is.
    """
    run = run_of(variant, budget, "", "", 0)
    config = get_config(run.model).replace(**_fields(run))
    median, where = _median_seconds(DiffMICv2(config).eval().to(device)) if timed else (None, "")
    return CostRecord(
        key=variant.key,
        title=variant.title,
        model=run.model,
        image_size=config.image_size,
        parameters=count_parameters(config)["total"],
        macs=count_macs(config),
        steps=config.sampling_steps if config.predictor == "diffusion" else 0,
        seconds=median,
        repeats=REPEATS if timed else 0,
        hardware=where,
        version=__version__,
        commit=commit(),
    )


def _fields(run: Run) -> dict[str, Any]:
    fields = dict(run.config)
    return fields if run.ablation is None else {**ablation_fields(run.ablation), **fields}


@torch.inference_mode()
def _median_seconds(model: DiffMICv2) -> tuple[float, str]:
    device = model.default_noise.device
    images = torch.randn(1, 3, model.config.input_size, model.config.input_size, device=device)
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        model(images).sum().item()  # which waits for a GPU
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]), hardware(device)
