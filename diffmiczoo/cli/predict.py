"""`predict`: answers for files, folders, patterns and manifests."""

from __future__ import annotations

import glob
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.common import checked_device, clear_errors
from diffmiczoo.cli.output import as_csv, as_json, as_json_lines, as_table, printable, write_overlays, write_text

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction
    from diffmiczoo.model import DiffMICv2

DEFAULT_MODEL = "diffmicv2_ham10000"


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--model", "name", default=DEFAULT_MODEL, show_default=True, help="Registered name or local-dir:PATH.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Of a CSV manifest: only this split.")
@click.option("--steps", type=click.IntRange(1), help="DDIM steps; by default the model's own.")
@click.option("--num-samples", type=click.IntRange(1), help="Sampler runs to average; by default the model's own.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the starting noise.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option(
    "--format", "style", type=click.Choice(["table", "csv", "json", "jsonl"]), default="table", show_default=True
)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file, not to the screen.")
@click.option("--resume", is_flag=True, help="Keep the answers that --output has (csv, jsonl) and add those missing.")
@click.option("--overlay", type=click.Path(file_okay=False, path_type=Path), help="Write a PNG per image into DIR.")
@click.option("--on-error", type=click.Choice(["skip", "raise"]), default="skip", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16", "int8"]), default="fp32", show_default=True)
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
    with clear_errors():
        if output is not None and not output.parent.is_dir():
            raise ValueError(f"{output.parent} is not a directory; --output needs one that exists")
        streamed = output is not None and style in ("csv", "jsonl") and overlay is None
        if resume and not streamed:
            raise ValueError("--resume needs --output with --format csv or jsonl, and no --overlay")
        files = image_files(images, split)
        from diffmiczoo.zoo.factory import create_model

        model = create_model(name, pretrained=True, device=checked_device(device))
        if output is not None and streamed:
            errors = write_stream(model, files, output, style, resume, options)
        else:
            errors = write_whole(model.predict(files, **options), output, style, overlay)
    for message in errors.values():
        click.echo(f"skipped {message}", err=True)
    if errors:
        sys.exit(1)


def write_whole(prediction: Prediction, output: Path | None, style: str, overlay: Path | None) -> dict[str, str]:
    """Writes all answers at once, and returns what could not be read."""
    text = {"table": as_table, "csv": as_csv, "json": as_json, "jsonl": as_json_lines}[style](prediction)
    if output is None:
        click.echo(printable(text))
    else:
        write_text(output, text + "\n")
    if overlay is not None:
        write_overlays(prediction, overlay)
    return prediction.errors


def write_stream(
    model: DiffMICv2, files: list[str], output: Path, style: str, resume: bool, options: dict[str, Any]
) -> dict[str, str]:
    """Writes the answers of each batch when it is done, and returns what could not be read."""
    from diffmiczoo.cli.streaming import AnswerFile
    from diffmiczoo.images.items import ImageError, as_items
    from diffmiczoo.inference.predictor import PredictOptions

    items = as_items(files)
    errors: dict[str, str] = {}
    with AnswerFile(output, style, model.config, resume) as file:
        left = [item for item in items if item.name not in file.names]
        if len(left) < len(items):
            click.echo(f"{len(items) - len(left):,} of {len(items):,} images are answered in {output}", err=True)
        written = len(items) - len(left)
        for prediction, failed in model.predictor(PredictOptions(**options)).predict_batches(left):
            errors |= failed
            if prediction is not None:
                file.write(prediction)
                written += len(prediction)
    if not written:
        output.unlink()
        raise ImageError("images", "none could be read: " + "; ".join(errors.values()))
    return errors


def image_files(images: tuple[str, ...], split: str | None) -> list[str]:
    """Expands patterns and manifests; folders are left to `predict`."""
    files: list[str] = []
    for text in images:
        if Path(text).suffix.lower() in (".csv", ".tsv", ".parquet"):
            from diffmiczoo.data.tables import read_files

            files += [str(path) for path in read_files(text, split)]
            continue
        if split is not None:
            raise ValueError(f"{text}: --split {split} needs a CSV with a column split, for example {text}/labels.csv")
        found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and not Path(text).exists() else [text]
        if not found:
            raise ValueError(f"{text}: no file matches this pattern")
        files += found
    return files
