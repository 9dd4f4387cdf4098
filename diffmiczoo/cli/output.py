"""What the commands write: predictions as a table, CSV or JSON, to the screen or a file, and as pictures."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.errors import InvalidValueError, MissingExtraError, UnusableFileError
from diffmiczoo.files import check_directory, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from diffmiczoo.images.items import Item
    from diffmiczoo.inference.explanation import Explained
    from diffmiczoo.inference.prediction import Prediction


def echo_json(values: dict[str, Any]) -> None:
    """Writes JSON to the screen."""
    click.echo(json.dumps(values, indent=2))


def note(text: str) -> None:
    """Writes a line to the standard error; that nobody reads it must not end what is being computed."""
    with suppress(OSError):
        click.echo(text, err=True)


def echo_prediction(prediction: Prediction, style: str, output: Path | None) -> None:
    """Writes a prediction to the screen, or to a file that is replaced as a whole.

    Args:
        prediction: of any number of images.
        style: "table", "csv", "json" or "jsonl".
        output: the file; None for the screen.

    Raises:
        OSError: the file cannot be written; the message says where the prediction is instead.
    """
    if style == "csv":
        text = prediction.to_csv()
    elif style == "json":
        text = json.dumps(prediction.to_dict(), indent=2) + "\n"
    else:
        text = json_lines(prediction) if style == "jsonl" else _table(prediction)
    if output is not None:
        _write(output, text)
    elif style == "table" or sys.stdout is None or sys.stdout.isatty():
        click.echo(text, nl=False)
    else:  # for another program or a file: the same bytes as --output writes, whatever the screen can show
        click.echo(text.encode("utf-8", "surrogateescape"), nl=False)


def _write(output: Path, text: str) -> None:
    try:
        write_text(output, text)
    except OSError as error:
        instead = Path(tempfile.mkdtemp(prefix="diffmiczoo-"), output.name)
        write_text(instead, text)
        raise UnusableFileError(f"{output}: {error.strerror}; the prediction is in {instead} instead") from error


def _table(prediction: Prediction) -> str:
    width = max(len("image"), *(len(_short(name)) for name in prediction.names))
    lines = [f"{'image':<{width}}  {'uncertainty':>11}  prediction"]
    if prediction.thresholds is not None:
        limits = (f"{label} {value:.3f}" for label, value in prediction.thresholds.items())
        lines[0] += f" (labels by their thresholds: {', '.join(limits)})"
    if prediction.label_adjustment is not None:
        offsets = (f"{label} {value:.2f}" for label, value in prediction.label_adjustment.items())
        lines[0] += f" (first by log probability + {', '.join(offsets)})"
    inside, deferred = prediction.in_distribution, prediction.deferred
    for row, name in enumerate(prediction.names):
        uncertainty = float(prediction.uncertainty[row])
        said = prediction.summary(row) + _limits(inside, deferred, row)
        lines.append(f"{_short(name):<{width}}  {uncertainty:>11.3f}  {said}")
    return "\n".join(lines) + "\n"


def _limits(inside: Tensor | None, deferred: Tensor | None, row: int) -> str:
    said = ["unlike the training pictures"] if inside is not None and not inside[row] else []
    said += ["a person should see it"] if deferred is not None and deferred[row] else []
    return f"  [{', '.join(said)}]" if said else ""


def _short(name: str) -> str:
    name = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)
    return name if len(name) <= 60 else "…" + name[-59:]


def json_lines(prediction: Prediction) -> str:
    """Returns a line of JSON per image; with the thresholds of its labels where it has any."""
    limits = {} if prediction.thresholds is None else {"thresholds": prediction.thresholds}
    return "".join(json.dumps(record | limits) + "\n" for record in prediction.to_dict()["images"])


# ---------------------------------------------------------------------- pictures


def check_overlays(directory: Path, items: Sequence[Item]) -> None:
    """Refuses a directory of overlays that cannot be written, or whose pictures would replace those that are read.

    Raises:
        ValueError: the message names the directory, and the picture.
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError('--overlay needs matplotlib: pip install "diffmiczoo[plot]"') from error
    check_directory(directory)
    names = overlay_names([item.name for item in items])
    there = {path.name: path for path in directory.iterdir()} if directory.is_dir() else {}
    targets = [there[name] for name in names if name in there]
    own = {Path(item.name).resolve() for item in items} if targets else set()
    lost = next((path for path in targets if path.resolve() in own), None)
    if lost is not None:
        raise InvalidValueError(f"--overlay {directory} would replace {lost}, one of the images; choose another one")


def overlay_names(names: Sequence[str]) -> list[str]:
    """Returns the file name of each image's overlay; equal ones get a number."""
    found: dict[str, None] = {}
    repeats: Counter[str] = Counter()
    for name in names:
        stem = free = Path(name).stem
        while f"{free}.png" in found:
            repeats[stem] += 1
            free = f"{stem}-{repeats[stem] + 1}"
        found[f"{free}.png"] = None
    return list(found)


def write_overlays(prediction: Prediction, directory: Path, explanation: Explained = None) -> None:
    """Writes a PNG per image into a directory, made if need be; equal names get a number.

    Args:
        prediction: of the images.
        directory: where to.
        explanation: of the same images, whose maps are drawn instead of the saliency.
    """
    from diffmiczoo.runtime.progress import progress_bar

    directory.mkdir(parents=True, exist_ok=True)
    with progress_bar(len(prediction), "overlay", "img", None) as bar:
        for row, name in enumerate(overlay_names(prediction.names)):
            prediction.save_overlay(directory / name, row, explanation)
            bar.update()
