"""`diffmiczoo predict`: classes of files, folders, patterns and tables of files."""

from __future__ import annotations

import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.common import (
    OUTPUT_FILE,
    PRECISIONS,
    TABLES,
    batch_size_option,
    device_option,
    format_option,
    model_option,
    precision_option,
    split_option,
)
from diffmiczoo.cli.output import STREAMED, PredictionFile, echo_prediction, write_overlays
from diffmiczoo.errors import InvalidValueError

if TYPE_CHECKING:
    from diffmiczoo.model import DiffMICv2


@click.command()
@click.argument("images", nargs=-1, required=True)
@model_option()
@split_option
@click.option("--steps", type=click.IntRange(1), help="Sampling steps; by default the model's own.")
@click.option("--num-samples", type=click.IntRange(1), help="Sampler runs to average; by default the model's own.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the starting noise.")
@batch_size_option()
@precision_option(*PRECISIONS)
@device_option
@format_option("table", *STREAMED, "json")
@click.option("--output", type=OUTPUT_FILE, help="Write to a file, not to the screen.")
@click.option("--resume", is_flag=True, help="Keep what --output holds already (csv, jsonl) and add what is missing.")
@click.option("--overlay", type=click.Path(file_okay=False, path_type=Path), help="Write a PNG per image into DIR.")
@click.option("--on-error", type=click.Choice(["skip", "raise"]), default="skip", show_default=True)
def predict(
    images: tuple[str, ...],
    name: str,
    split: str | None,
    device: str,
    style: str,
    output: Path | None,
    resume: bool,
    overlay: Path | None,
    **options: Any,
) -> None:
    """Classify IMAGES: files, folders, patterns such as 'scans/*.png', or a table with a column `file`.

    What cannot be read is listed on the standard error, and the exit status is then 1. With --output, csv and jsonl are
    written batch by batch, so that memory does not grow with the number of images.
    """
    if output is not None and not output.parent.is_dir():
        raise InvalidValueError(f"{output.parent} is not a directory; --output needs one that exists")
    streamed = output is not None and style in STREAMED and overlay is None
    if resume and not streamed:
        raise InvalidValueError("--resume needs --output with --format csv or jsonl, and no --overlay")
    files = image_files(images, split)
    import diffmiczoo

    model = diffmiczoo.create_model(name, pretrained=True, device=device)
    if output is not None and streamed:
        errors = predict_to_file(model, files, output, style, resume, options)
    else:
        prediction = model.predict(files, **options)
        echo_prediction(prediction, style, output)
        if overlay is not None:
            write_overlays(prediction, overlay)
        errors = prediction.errors
    for message in errors.values():
        click.echo(f"skipped {message}", err=True)
    if errors:
        sys.exit(1)


def predict_to_file(
    model: DiffMICv2, files: list[str], output: Path, style: str, resume: bool, options: dict[str, Any]
) -> dict[str, str]:
    """Writes the predictions of each batch when it is done, and returns what could not be read."""
    from diffmiczoo.images.items import ImageError, as_items
    from diffmiczoo.inference.predictor import PredictOptions

    items = as_items(files)
    errors: dict[str, str] = {}
    with PredictionFile(output, style, model.config, resume) as file:
        left = [item for item in items if item.name not in file.names]
        if len(left) < len(items):
            click.echo(f"{output} has {len(items) - len(left):,} of {len(items):,} images already", err=True)
        written = len(items) - len(left)
        for prediction, failed in model.predictor(PredictOptions(**options)).predict_batches(left):
            errors |= failed
            if prediction is not None:
                file.write(prediction)
                written += len(prediction)
    if not written:
        if output.is_file():
            output.unlink()
        raise ImageError("images", "none could be read: " + "; ".join(errors.values()))
    return errors


def table_files(table: str, split: str | None) -> list[str]:
    """Returns the files of a table, and tells what was decided and left out while reading it."""
    from diffmiczoo.data.tables import read_files

    reading = read_files(table, split)
    for line in (*reading.notes, *(f"left out {part}" for part in reading.skipped)):
        click.echo(f"{table}: {line}".encode("utf-8", "replace").decode("utf-8"), err=True)
    return [str(record.path) for record in reading.records]


def image_files(images: tuple[str, ...], split: str | None) -> list[str]:
    """Expands patterns and tables; folders are left to `predict`."""
    files: list[str] = []
    for text in images:
        if Path(text).suffix.lower() in TABLES:
            files += table_files(text, split)
            continue
        if split is not None:
            raise InvalidValueError(
                f"{text}: --split {split} needs a CSV with a column split, for example {text}/labels.csv"
            )
        found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and not Path(text).exists() else [text]
        if not found:
            raise InvalidValueError(f"{text}: no file matches this pattern")
        files += found
    return files
