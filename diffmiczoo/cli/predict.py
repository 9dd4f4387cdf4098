"""`diffmiczoo predict`: classes of files, folders, patterns and tables of files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.columns import column_options, tell
from diffmiczoo.cli.common import (
    PRECISIONS,
    TABLES,
    ShardType,
    batch_size_option,
    device_option,
    format_option,
    model_option,
    precision_option,
    split_option,
    threads_option,
)
from diffmiczoo.cli.output import check_overlays, echo_prediction, note, write_overlays
from diffmiczoo.cli.prediction_file import STREAMED, PredictionFile
from diffmiczoo.cli.ray import ray_options
from diffmiczoo.cli.run_record import RunRecord
from diffmiczoo.cli.shards import Shard
from diffmiczoo.data.medmnist_names import is_medmnist
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import check_file, is_stream
from diffmiczoo.images.remote import is_url

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice
    from diffmiczoo.images.items import Item
    from diffmiczoo.inference.explanation import Explained
    from diffmiczoo.inference.prediction import Prediction
    from diffmiczoo.model import DiffMICv2


@click.command()
@click.argument("images", nargs=-1, required=True)
@model_option()
@split_option
@column_options(labels=False)
@click.option("--steps", type=click.IntRange(1), help="Sampling steps; by default the model's own.")
@click.option("--num-samples", type=click.IntRange(1), help="Sampler runs to average; by default the model's own.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the starting noise.")
@click.option(
    "--tta",
    type=click.Choice(["none", "hflip", "flips", "rotations"]),
    help="Average over mirror images (2 or 4 views) and quarter turns (8): as many times the time; by default the "
    "model's own.",
)
@batch_size_option()
@precision_option(*PRECISIONS, "auto")
@device_option
@threads_option
@format_option("table", *STREAMED, "json", told_by_output=True)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write to a file, not to the screen; - is the screen. Without --format, its name (.csv, .jsonl, .json) tells "
    "the format, which is a table else.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Keep what --output holds already (csv, jsonl) of the same model and settings, and add what is missing.",
)
@click.option(
    "--shard",
    type=ShardType(),
    metavar="I/N",
    help="Predict one of N parts of the images, such as 3/16: for N processes or machines that know nothing of each "
    "other.",
)
@click.option("--overlay", type=click.Path(file_okay=False, path_type=Path), help="Write a PNG per image into DIR.")
@click.option(
    "--explain",
    metavar="METHOD",
    help="Draw another map than the saliency into --overlay: Grad-CAM through the DCG's `global` or `local` stream, or "
    "of the sampler through the `guidance` map, the `raw` or the `roi` encoder of F.",
)
@click.option(
    "--on-foreign",
    type=click.Choice(["flag", "refuse"]),
    default="flag",
    show_default=True,
    help="Pictures that are unlike the training pictures: mark them, or treat them as errors.",
)
@click.option(
    "--defer-error",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Mark the pictures that a person should see so that, with 90 % confidence, at most this share of the others "
    "is predicted wrongly, such as 0.05.",
)
@click.option("--on-error", type=click.Choice(["skip", "raise"]), default="skip", show_default=True)
@ray_options
def predict(
    images: tuple[str, ...],
    name: str,
    split: str | None,
    choice: ColumnChoice,
    device: str,
    style: str | None,
    output: Path | None,
    resume: bool,
    shard: Shard | None,
    overlay: Path | None,
    explain: str | None,
    **options: Any,
) -> None:
    """Classify IMAGES: files, folders, patterns such as 'scans/*.png', a table with a column `file`, or medmnist:NAME.

    What cannot be read is listed on the standard error, and the exit status is then 1. With --output, csv and jsonl are
    written batch by batch to FILE.partial, so that memory does not grow with the number of images; FILE is replaced at
    the end, and FILE.run.json says what made it. --precision auto takes the fastest here that gives eight made
    pictures fp32's labels, timed once and remembered; one of yours may still get another label than in fp32.
    """
    output = None if output == Path("-") else output
    style = style or format_of(output)
    if output is not None:
        check_file(output, "--output")
    grows = output is not None and style in STREAMED and overlay is None
    if resume and (not grows or output is None or is_stream(output)):
        raise InvalidValueError("--resume needs --output FILE with --format csv or jsonl, and no --overlay")
    if explain is not None:
        check_explain(explain, overlay)
    items: Collection[Item] | None = medmnist_items(images, split, overlay)
    if items is None:
        items = checked_items(image_files(images, split, choice), images, output, overlay, streams=grows)
    if shard is not None:
        total, items = len(items), shard.of(items)
        note(f"shard {shard.number}/{shard.count}: {len(items):,} of {total:,} images")
        if not items:
            return
    import diffmiczoo

    model = diffmiczoo.create_model(name, pretrained=True, device=device)
    if output is not None and grows and can_grow(output):
        errors = predict_to_file(model, items, PredictionTarget(output, style, resume, name), options)
    else:
        prediction = model.predict(list(items), **options)
        echo_prediction(prediction, style, output)
        if overlay is not None:
            write_overlays(prediction, overlay, explanation_of(model, prediction, explain))
        errors = prediction.errors
    if model.trust is not None and style in ("csv", "json", "jsonl") and (few := set_note(model)):
        note(f"set: {few}")
    for message in errors.values():
        note(f"skipped {message}")
    if errors:
        sys.exit(1)


def check_explain(method: str, overlay: Path | None) -> None:
    """Refuses a method that is unknown, and one without pictures to draw it into."""
    from diffmiczoo.reporting.gradcam import METHODS

    if overlay is None:
        raise InvalidValueError("--explain draws into the pictures of --overlay DIR; give it as well")
    if method not in METHODS:
        raise InvalidValueError(f"--explain {method!r} must be one of {', '.join(METHODS)}")


def explanation_of(model: DiffMICv2, prediction: Prediction, method: str | None) -> Explained:
    """Returns the maps of a method for the images of a prediction; None for the saliency that it brings."""
    if method is None:
        return None
    from diffmiczoo.reporting.gradcam import explain

    return explain(model, prediction.items, method, [top[0][0] for top in prediction.top(1)])


def set_note(model: DiffMICv2) -> str:
    """Returns which classes are in every set that is written, "" for none."""
    from diffmiczoo.inference.limits import SHOWN_ALPHA, set_note

    return set_note(model.trust, model.config, SHOWN_ALPHA)


def format_of(output: Path | None) -> str:
    """Returns the format that a file's name stands for; a table for any other name, and for the screen."""
    found = "" if output is None else output.suffix[1:].lower()
    return found if found in (*STREAMED, "json") else "table"


@dataclass(frozen=True)
class PredictionTarget:
    """Where predictions of which model go, and whether earlier ones are kept."""

    path: Path
    style: str
    resume: bool
    model_name: str


def can_grow(output: Path) -> bool:
    """Whether a partial file can lie beside a file, or none is needed."""
    return is_stream(output) or os.access(os.path.dirname(os.path.realpath(output)), os.W_OK)


def predict_to_file(
    model: DiffMICv2, items: Collection[Item], target: PredictionTarget, options: dict[str, Any]
) -> dict[str, str]:
    """Writes the predictions of each batch when it is done, and returns what could not be read."""
    from diffmiczoo.images.folder_items import matching
    from diffmiczoo.images.items import ImageError
    from diffmiczoo.inference.predictor import PredictOptions

    errors: dict[str, str] = {}
    predictor = model.predictor(PredictOptions(**options))
    record = RunRecord.of(target.model_name, model, predictor)
    with PredictionFile(target.path, target.style, model.config, record, target.resume) as file:
        left = items
        if file.names:
            left = matching(items, lambda name: name not in file.names)
            tell_kept(items, left, file)
        for prediction, failed in predictor.predict_batches(left):
            errors |= failed
            if prediction is not None:
                file.write(prediction)
        if not file.rows:
            raise ImageError("images", "none could be read: " + "; ".join(errors.values()))
    return errors


def tell_kept(items: Collection[Item], left: Collection[Item], file: PredictionFile) -> None:
    """Says what a file has already of the images, and what does not go together with them."""
    kept = len(items) - len(left)
    note(f"{file.path} has {kept:,} of {len(items):,} images already")
    newer = (item.name for item in items if item.name in file.names and is_newer(item.source, file.made))
    if (first := next(newer, None)) is not None:
        what = f"{1 + sum(1 for _ in newer):,} of them have changed since, first {first}"
        note(f"{what}; their predictions stay as they were: remove these rows, or begin anew")
    if others := len(file.names) - kept:
        note(f"{file.path} also has {others:,} images that are not among these; they stay in it")


def is_newer(source: Any, moment: float) -> bool:
    """Whether an image is a file that was written after a moment."""
    try:
        return isinstance(source, str | os.PathLike) and os.stat(source).st_mtime > moment
    except OSError:
        return False


def checked_items(
    files: list[str], images: tuple[str, ...], output: Path | None, overlay: Path | None, *, streams: bool = False
) -> Collection[Item]:
    """Lists the images, and refuses what would end in nothing or write over them.

    Those of one folder are not held, where the predictions are written one by one: it may have any size.

    Raises:
        ValueError: there are none, or `output` or `overlay` would replace one of them or a table.
    """
    from diffmiczoo.images.folder_items import folder_items
    from diffmiczoo.images.items import ImageError, as_items

    missing = [path for path in files if not os.path.lexists(path) and not is_url(path)]
    if len(missing) == len(files):
        more = f" and {len(missing) - 5:,} more" if len(missing) > 5 else ""
        raise ImageError("images", f"none could be read: no such file: {', '.join(missing[:5])}{more}")
    if missing:
        note(f"{len(missing):,} of {len(files):,} files do not exist, first {missing[0]}")
    one_folder = streams and len(files) == 1 and os.path.isdir(files[0])
    items = folder_items(files[0]) if one_folder else as_items(files)
    if output is not None and output.is_file() and not is_stream(output):
        read = chain(images, (item.name for item in items))
        lost = next((path for path in read if os.path.isfile(path) and os.path.samefile(path, output)), None)
        if lost is not None:
            raise InvalidValueError(f"--output {output} would replace {lost}, which is read; choose another file")
    if overlay is not None:
        check_overlays(overlay, list(items))
    return items


def medmnist_items(images: tuple[str, ...], split: str | None, overlay: Path | None) -> list[Item] | None:
    """Returns the images of a set of MedMNIST, by default of its test split; None where no name of one is given."""
    if not any(map(is_medmnist, images)):
        return None
    if len(images) > 1:
        raise InvalidValueError(f"{', '.join(images)}: a set of MedMNIST is predicted alone")
    from diffmiczoo.data.readers import read_manifest
    from diffmiczoo.data.summary import reading_lines

    manifest = read_manifest(images[0]).split(split or "test")
    tell(reading_lines(manifest))
    items = [record.item() for record in manifest.records]
    if overlay is not None:
        check_overlays(overlay, items)
    return items


def table_files(table: str, split: str | None, choice: ColumnChoice | None) -> list[str]:
    """Returns the files of a table, and tells what was decided and left out while reading it."""
    from diffmiczoo.data.tables import read_files

    reading = read_files(table, split, choice)
    tell(f"{table}: {line}" for line in (*reading.notes, *(f"left out {part}" for part in reading.skipped)))
    return [str(record.path) for record in reading.records]


def image_files(images: tuple[str, ...], split: str | None, choice: ColumnChoice | None = None) -> list[str]:
    """Expands patterns and tables; folders are left to `predict`."""
    files: list[str] = []
    tables = [text for text in images if Path(text).suffix.lower() in TABLES]
    if choice is not None and not tables and (choice.file or choice.split or choice.map_split):
        raise InvalidValueError(
            f"{images[0]}: has no columns; --file-column, --split-column and --map-split need a table"
        )
    for text in images:
        if text in tables:
            files += table_files(text, split, choice)
            continue
        if split is not None:
            raise InvalidValueError(
                f"{text}: --split {split} needs a CSV with a column split, for example {text}/labels.csv"
            )
        pattern = glob.has_magic(text) and not Path(text).exists() and not is_url(text)
        found = sorted(glob.glob(text, recursive=True)) if pattern else [text]
        if not found:
            raise InvalidValueError(f"{text}: no file matches this pattern")
        files += found
    return files
