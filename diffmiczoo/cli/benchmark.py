"""`benchmark`: the speed of this machine, side by side."""

from __future__ import annotations

import json
from typing import Any

import click

from diffmiczoo.cli.common import clear_errors


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
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False),
    help="Time predict on this folder instead: decoding, the model, both; in batches of 32 by default.",
)
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
    images: str | None,
    json_output: bool,
) -> None:
    """Time the plain order of work and ours side by side on this machine, with random weights and images."""
    if images is not None and training:
        raise click.UsageError("--images and --train are different benchmarks; give one of them")
    import dataclasses

    from diffmiczoo.benchmark import folder, parts
    from diffmiczoo.benchmark import inference as timing
    from diffmiczoo.benchmark import training as training_timing
    from diffmiczoo.benchmark.roofline import measure_roofline
    from diffmiczoo.benchmark.timing import machine
    from diffmiczoo.runtime.quantized import can_quantize
    from diffmiczoo.zoo.factory import create_model

    with clear_errors():
        model = create_model(name, device=device)
        model.config = model.config.replace(sampling_steps=steps or model.config.sampling_steps)
        place = model.default_noise.device
        where, limits = machine(place), measure_roofline(place, ("fp32", precision))
        tables: dict[int, list[Any]] = {}
        shares: dict[int, list[Any]] = {}
        for batch in batches or ((32,) if training or images else (1, 32)):
            if images is not None:
                tables[batch] = folder.benchmark_folder(model, images, batch_size=batch, precision=precision)
                continue
            if training:
                ways = training_timing.train_variants(precision)
                tables[batch] = training_timing.benchmark_training(model, batch_size=batch, repeats=repeats, rows=ways)
                continue
            integers = place.type == "cpu" and precision == "bf16" and can_quantize()
            rows = timing.variants(precision, compiled, integers)
            tables[batch] = timing.benchmark(model, batch_size=batch, repeats=repeats, rows=rows)
            shares[batch] = parts.benchmark_parts(model, batch_size=batch, repeats=repeats, precision=precision)
    if json_output:
        report = {"model": name, **where, "limits": dataclasses.asdict(limits)}
        for key, found in (("batches", tables), ("parts", shares)):
            report[key] = {batch: [dataclasses.asdict(row) for row in table] for batch, table in found.items()}
        click.echo(json.dumps(report, indent=2))
        return
    words = ", ".join(f"{key} {value}" for key, value in where.items())
    click.echo(f"{name}, {model.config.sampling_steps} steps; {words}; {limits}")
    for batch, table in tables.items():
        if images is not None:
            shown = folder.folder_table(table)
        else:
            shown = training_timing.training_table(table) if training else timing.inference_table(table, limits)
        click.echo(f"\nbatch {batch}\n\n{shown}")
        if batch in shares:
            click.echo(f"\nours, {precision}, by part\n\n{parts.parts_table(shares[batch], limits, precision)}")
