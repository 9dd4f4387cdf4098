"""`benchmark`: the speed of this machine, side by side."""

from __future__ import annotations

import json
from typing import Any

import click

from diffmiczoo.commands.common import clear_errors


@click.command()
@click.option(
    "--model", "name", default="diffmicv2_resnet18", show_default=True, help="Registered name or local-dir:PATH."
)
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="Images at once; may be repeated.")
@click.option("--steps", type=click.IntRange(2), help="DDIM steps; by default the model's own.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed runs after one to warm up."
)
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--precision", type=click.Choice(["bf16", "fp16"]), default="bf16", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Also time encoders through torch.compile.")
@click.option("--train", "training", is_flag=True, help="Time training steps instead; batch 32 by default.")
@click.option("--json", "json_output", is_flag=True, help="Write JSON, not a table.")
def benchmark(
    name: str,
    batches: tuple[int, ...],
    steps: int | None,
    repeats: int,
    device: str,
    precision: str,
    compiled: bool,
    training: bool,
    json_output: bool,
) -> None:
    """Time the plain order of work and ours side by side on this machine, with random weights and images."""
    import dataclasses

    from diffmiczoo import benchmark as timing
    from diffmiczoo.registry import create_model
    from diffmiczoo.training import benchmark as training_timing

    tables: dict[int, list[Any]]
    with clear_errors():
        model = create_model(name, device=device)
        model.config = model.config.replace(sampling_steps=steps or model.config.sampling_steps)
        where = timing.machine(model.default_noise.device)
        if training:
            ways = training_timing.train_variants(precision)
            tables = {
                batch: training_timing.benchmark_training(model, batch_size=batch, repeats=repeats, rows=ways)
                for batch in batches or (32,)
            }
        else:
            rows = timing.variants(precision, compiled)
            tables = {
                batch: timing.benchmark(model, batch_size=batch, repeats=repeats, rows=rows)
                for batch in batches or (1, 32)
            }
    if json_output:
        as_json = {batch: [dataclasses.asdict(row) for row in table] for batch, table in tables.items()}
        click.echo(json.dumps({"model": name, **where, "batches": as_json}, indent=2))
        return
    click.echo(
        f"{name}, {model.config.sampling_steps} steps; " + ", ".join(f"{key} {value}" for key, value in where.items())
    )
    for batch, table in tables.items():
        shown = training_timing.as_table(table) if training else timing.as_table(table)
        click.echo(f"\nbatch {batch}\n\n{shown}")
