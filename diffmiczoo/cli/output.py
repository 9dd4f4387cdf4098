"""What the commands write: predictions as a table, CSV or JSON, to the screen or a file, and as pictures."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import write_text

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction

#: Formats of predictions whose lines stand for themselves, so that a file can grow batch by batch.
STREAMED = ("csv", "jsonl")


def echo_json(values: dict[str, Any]) -> None:
    """Writes JSON to the screen."""
    click.echo(json.dumps(values, indent=2))


def echo_prediction(prediction: Prediction, style: str, output: Path | None) -> None:
    """Writes a prediction to the screen, or to a file that is replaced as a whole.

    Args:
        prediction: of any number of images.
        style: "table", "csv", "json" or "jsonl".
        output: the file; None for the screen.
    """
    if style == "csv":
        text = prediction.to_csv()
    elif style == "json":
        text = json.dumps(prediction.to_dict(), indent=2) + "\n"
    else:
        text = _json_lines(prediction) if style == "jsonl" else _table(prediction)
    if output is not None:
        write_text(output, text)
    else:
        # A name that is not UTF-8 has signs that no screen takes.
        click.echo(text.encode("utf-8", "replace").decode("utf-8"), nl=False)


def _table(prediction: Prediction) -> str:
    width = max(len("image"), *(len(_short(name)) for name in prediction.names))
    lines = [f"{'image':<{width}}  {'uncertainty':>11}  prediction"]
    for row, name in enumerate(prediction.names):
        classes = "  ".join(f"{label} {probability:.3f}" for label, probability in prediction[row].top(3)[0])
        lines.append(f"{_short(name):<{width}}  {float(prediction.uncertainty[row]):>11.3f}  {classes}")
    return "\n".join(lines) + "\n"


def _short(name: str) -> str:
    name = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)
    return name if len(name) <= 60 else "…" + name[-59:]


def _json_lines(prediction: Prediction) -> str:
    return "".join(json.dumps(record) + "\n" for record in prediction.to_dict()["images"])


class PredictionFile:
    """A CSV or JSON Lines file that grows by whole lines; each batch is on the disk before the next is computed.

    Args:
        path: of the file.
        style: "csv" or "jsonl".
        config: of the model, for its classes.
        resume: keep the whole lines that the file has; otherwise it begins anew.

    Attributes:
        names: of the images that the file had predictions for.

    Raises:
        ValueError: the file that is to go on has other classes, or is no such file.
    """

    def __init__(self, path: Path, style: str, config: DiffMICConfig, resume: bool) -> None:
        self.path, self.style, self.config = path, style, config
        whole = self._whole_lines() if resume and path.exists() else b""
        self.names = set(self._names(whole)) if whole else set()
        self._begun = bool(whole)
        self._file: BinaryIO = path.open("r+b" if whole else "wb")
        if whole:
            self._file.truncate(len(whole))
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, prediction: Prediction) -> None:
        """Adds the predictions of a batch."""
        text = _json_lines(prediction) if self.style == "jsonl" else prediction.to_csv(header=not self._begun)
        self._file.write(text.encode("utf-8", "surrogateescape"))
        self._file.flush()
        if self.path.is_file():  # a pipe has no disk to wait for
            os.fsync(self._file.fileno())
        self._begun = True

    def _whole_lines(self) -> bytes:
        content = self.path.read_bytes()
        return content[: content.rfind(b"\n") + 1]

    def _names(self, content: bytes) -> Iterable[str]:
        from diffmiczoo.inference.table import table_columns

        text = content.decode("utf-8", "surrogateescape")
        if self.style == "csv":
            rows = csv.reader(io.StringIO(text))
            header = next(rows)
            if header != table_columns(self.config):
                raise InvalidValueError(f"{self.path}: holds no predictions of this model, its columns are {header}")
            return [row[0] for row in rows if row]
        try:
            return [json.loads(line)["name"] for line in text.splitlines()]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidValueError(f"{self.path}: holds no predictions in JSON Lines ({error})") from error


def write_overlays(prediction: Prediction, directory: Path) -> None:
    """Writes a PNG per image into a directory, made if need be; equal names get a number."""
    from diffmiczoo.runtime.progress import progress_bar

    directory.mkdir(parents=True, exist_ok=True)
    used: set[str] = set()
    with progress_bar(len(prediction), "overlay", "img", None) as bar:
        for row, name in enumerate(prediction.names):
            stem = Path(name).stem
            unique = next(text for text in (stem, *(f"{stem}-{n}" for n in range(2, row + 3))) if text not in used)
            used.add(unique)
            prediction.save_overlay(directory / f"{unique}.png", row)
            bar.update()
