"""`diffmiczoo export`: a model as a file for other programs, with the proof that it answers the same."""

from __future__ import annotations

from pathlib import Path

import click

from diffmiczoo.cli.common import OUTPUT_FILE, format_option, precision_option
from diffmiczoo.cli.output import note
from diffmiczoo.inference.certificate import FORMATS, TOLERANCES, certificate_path


@click.command()
@click.argument("name")
@click.argument("file", type=OUTPUT_FILE)
@format_option(*FORMATS)
@precision_option(*TOLERANCES)
@click.option("--steps", type=click.IntRange(1), help="Sampling steps; by default the model's own.")
@click.option("--num-samples", type=click.IntRange(1), help="Runs of the sampler; by default the model's own.")
@click.option("--defer-error", type=float, help="Adds the output deferred, see predict --defer-error.")
@click.option(
    "--verify",
    type=click.Path(exists=True),
    help="Picture or folder to compare the file with predict on; by default pictures made from a seed.",
)
@click.option("--with-runner", is_flag=True, help="Also write runner.py, which runs FILE without this package.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option(
    "--allow-labels",
    type=click.IntRange(0),
    default=0,
    help="How many pictures of --verify may get another label in fp16 or int8; by default none.",
)
def export(
    name: str,
    file: Path,
    style: str,
    precision: str,
    steps: int | None,
    num_samples: int | None,
    defer_error: float | None,
    verify: str | None,
    with_runner: bool,
    force: bool,
    allow_labels: int,
) -> None:
    """Write the model NAME as FILE, after comparing what FILE answers with what predict does.

    FILE takes pictures as bytes and gives calibrated probabilities, labels, uncertainty, ROIs, saliency, prediction
    sets and the out-of-distribution score, as far as the model has them. FILE.certificate.json holds the comparison;
    where FILE answers otherwise, nothing is written. In fp16 are the U-Net and F's encoders, in int8 the U-Net's hidden
    layers; the DCG stays in fp32. Needs the extra onnx, or openvino for its format.
    """
    import diffmiczoo

    model = diffmiczoo.create_model(name, pretrained=True)
    certificate = model.export(
        file,
        style,
        precision=precision,
        steps=steps,
        num_samples=num_samples,
        defer_error=defer_error,
        verify=verify,
        with_runner=with_runner,
        force=force,
        allow_labels=allow_labels,
    )
    click.echo(certificate.summary())
    for sentence in certificate.notes:
        note(sentence)
    note(f"the comparison is in {certificate_path(file)}")
