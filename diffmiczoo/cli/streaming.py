"""Answers written to a file as they come: memory does not grow with the folder, and an interrupted file goes on."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from diffmiczoo.cli.output import as_csv, as_json_lines
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.prediction import Prediction

#: Formats whose lines stand for themselves.
STREAMED = ("csv", "jsonl")


class AnswerFile:
    """A CSV or JSON Lines file that grows by whole lines; each batch is on the disk before the next is computed.

    Args:
        path: of the file.
        style: "csv" or "jsonl".
        config: of the model, for its classes.
        resume: keep the whole lines that the file has; otherwise it begins anew.

    Attributes:
        names: of the images that the file had answers for.

    Raises:
        ValueError: the file that is to go on has other classes, or is no such file.
    """

    def __init__(self, path: Path, style: str, config: DiffMICConfig, resume: bool) -> None:
        self.path, self.style, self.config = path, style, config
        self.names: set[str] = set()
        whole = self._whole_lines() if resume and path.exists() else b""
        if whole:
            self.names = set(self._names(whole))
        self._file: BinaryIO = path.open("r+b" if whole else "wb")
        self._file.truncate(len(whole))
        self._file.seek(0, os.SEEK_END)
        if not whole and style == "csv":
            self._file.write((self._header() + "\n").encode())

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, prediction: Prediction) -> None:
        """Adds the answers of a batch."""
        lines = as_csv(prediction).split("\n", 1)[1] if self.style == "csv" else as_json_lines(prediction)
        self._file.write((lines + "\n").encode("utf-8", "surrogateescape"))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _header(self) -> str:
        return ",".join(["name", "label", "uncertainty", *(_quoted(f"prob_{name}") for name in self.config.labels)])

    def _whole_lines(self) -> bytes:
        content = self.path.read_bytes()
        return content[: content.rfind(b"\n") + 1]

    def _names(self, content: bytes) -> Iterable[str]:
        text = content.decode("utf-8", "surrogateescape")
        if self.style == "csv":
            rows = csv.reader(io.StringIO(text))
            header = next(rows)
            if header != next(csv.reader([self._header()])):
                raise ValueError(f"{self.path}: is no file of answers of this model, its columns are {header}")
            return [row[0] for row in rows if row]
        try:
            return [json.loads(line)["name"] for line in text.splitlines()]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path}: is no file of answers in JSON Lines ({error})") from error


def _quoted(text: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow([text])
    return buffer.getvalue()
