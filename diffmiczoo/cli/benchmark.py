"""`diffmiczoo benchmark`: the speed of this machine, the plain order of work and ours side by side."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.common import (
    batch_sizes_option,
    device_option,
    format_option,
    model_option,
    precision_option,
    threads_option,
)
from diffmiczoo.cli.output import echo_json

if TYPE_CHECKING:
    from diffmiczoo.benchmark.roofline import Roofline
    from diffmiczoo.export.formats import Answers
    from diffmiczoo.model import DiffMICv2


@dataclass(frozen=True)
class Timed:
    """The rows of one batch size; where they are of `predict`, the parts that ours consists of, and other models."""

    rows: list[Any]
    parts: list[Any]
    text: str
    against: list[Any] = field(default_factory=list)


@click.command()
@model_option(default="diffmicv2_resnet18")
@batch_sizes_option()
@click.option("--steps", type=click.IntRange(2), help="Sampling steps; by default the model's own.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed runs after one to warm up."
)
@device_option
@threads_option
@precision_option("bf16", "fp16")
@click.option("--compile", "compiled", is_flag=True, help="Also time encoders through torch.compile.")
@click.option("--train", "training", is_flag=True, help="Time training steps instead.")
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False),
    help="Time predict on this folder instead: decoding, the model, both.",
)
@click.option(
    "--against",
    "opponents",
    multiple=True,
    metavar="NAME",
    help="Also time this model beside it, such as timm/resnet18, at the same image size; may be repeated.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(("onnx", "openvino")),
    help="Time the exported file in this program beside predict instead; may be repeated.",
)
@format_option("table", "json")
def benchmark(
    name: str,
    batch_sizes: tuple[int, ...],
    steps: int | None,
    repeats: int,
    device: str,
    precision: str,
    compiled: bool,
    training: bool,
    images: str | None,
    opponents: tuple[str, ...],
    engines: tuple[str, ...],
    style: str,
) -> None:
    """Time the plain order of work and ours side by side on this machine, with random weights and images.

    Without --batch-size these are batches of 1 and of 32; of 32 alone with --train or --images.
    """
    _check_together(engines, opponents, training, compiled, images)
    import diffmiczoo
    from diffmiczoo.benchmark.roofline import measure_roofline
    from diffmiczoo.benchmark.timing import machine

    model = diffmiczoo.create_model(name, device=device)
    model.config = model.config.replace(sampling_steps=steps or model.config.sampling_steps)
    place = model.default_noise.device
    size = model.config.image_size
    others = {each: diffmiczoo.create_model(each, device=device, image_size=size) for each in opponents}
    where, roofline = machine(place), measure_roofline(place, ("fp32", precision))
    running = _exported(model, engines)
    timed: dict[int, Timed] = {}
    for batch_size in batch_sizes or ((32,) if training or images else (1, 32)):
        if engines:
            timed[batch_size] = _engines(model, running, batch_size, repeats)
        elif images is not None:
            timed[batch_size] = _folder(model, images, batch_size, precision)
        elif training:
            timed[batch_size] = _training(model, batch_size, repeats, precision)
        else:
            found = _inference(model, batch_size, repeats, precision, compiled, roofline)
            timed[batch_size] = _beside(found, {name: model, **others}, batch_size, repeats, precision)
    if style == "json":
        report = {"model": name, **where, "limits": dataclasses.asdict(roofline)}
        report["batches"] = {size: [dataclasses.asdict(row) for row in each.rows] for size, each in timed.items()}
        if opponents:
            report["against"] = {
                size: [dataclasses.asdict(row) for row in each.against] for size, each in timed.items()
            }
        report["parts"] = {size: [dataclasses.asdict(row) for row in each.parts] for size, each in timed.items()}
        echo_json(report)
        return
    words = ", ".join(f"{key} {value}" for key, value in where.items())
    click.echo(f"{name}, {model.config.sampling_steps} steps; {words}; {roofline}")
    for batch_size, each in timed.items():
        click.echo(f"\nbatch {batch_size}\n\n{each.text}")


def _check_together(
    engines: tuple[str, ...], opponents: tuple[str, ...], training: bool, compiled: bool, images: str | None
) -> None:
    """Refuses options of different benchmarks."""
    if images is not None and training:
        raise click.UsageError("--images and --train are different benchmarks; give one of them")
    if opponents and (training or images is not None):
        raise click.UsageError("--against is for predictions from memory; leave --train and --images out")
    if engines and (opponents or training or compiled or images is not None):
        raise click.UsageError(
            "--engine is a benchmark of its own; leave --against, --compile, --train and --images out"
        )


def _exported(model: DiffMICv2, engines: tuple[str, ...]) -> dict[str, Answers]:
    if not engines:
        return {}
    from diffmiczoo.benchmark.engines import exported_engines

    return exported_engines(model, engines)


def _engines(model: DiffMICv2, running: dict[str, Answers], batch_size: int, repeats: int) -> Timed:
    from diffmiczoo.benchmark.engines import compare_engines, engines_table

    rows = compare_engines(model, running, batch_size=batch_size, repeats=repeats)
    return Timed(rows, [], engines_table(rows))


def _inference(
    model: DiffMICv2, batch_size: int, repeats: int, precision: str, compiled: bool, roofline: Roofline
) -> Timed:
    from diffmiczoo.benchmark import inference, parts
    from diffmiczoo.runtime.cuda_graph import RECORDERS
    from diffmiczoo.runtime.quantized import can_quantize

    device = model.default_noise.device.type
    integers = device == "cpu" and precision == "bf16" and can_quantize()
    ways = inference.variants(precision, compiled, integers, graphs=device in RECORDERS)
    rows = inference.benchmark(model, batch_size=batch_size, repeats=repeats, rows=ways)
    shares = parts.benchmark_parts(model, batch_size=batch_size, repeats=repeats, precision=precision)
    table, by_part = inference.inference_table(rows, roofline), parts.parts_table(shares, roofline, precision)
    how = f"{precision}, without CUDA graphs" if device in RECORDERS else precision
    return Timed(rows, shares, f"{table}\n\nours, {how}, by part\n\n{by_part}")


def _beside(timed: Timed, models: dict[str, DiffMICv2], batch_size: int, repeats: int, precision: str) -> Timed:
    """Returns the same with a table of all models, where there are others."""
    from diffmiczoo.benchmark import against

    if len(models) == 1:
        return timed
    rows = against.compare_cost(models, batch_size=batch_size, repeats=repeats, precision=precision)
    text = f"{timed.text}\n\nbeside other models\n\n{against.against_table(rows)}"
    return dataclasses.replace(timed, text=text, against=rows)


def _training(model: DiffMICv2, batch_size: int, repeats: int, precision: str) -> Timed:
    from diffmiczoo.benchmark import training

    ways = training.train_variants(precision)
    rows = training.benchmark_training(model, batch_size=batch_size, repeats=repeats, rows=ways)
    return Timed(rows, [], training.training_table(rows))


def _folder(model: DiffMICv2, images: str, batch_size: int, precision: str) -> Timed:
    from diffmiczoo.benchmark import folder

    rows = folder.benchmark_folder(model, images, batch_size=batch_size, precision=precision)
    return Timed(rows, [], folder.folder_table(rows))
