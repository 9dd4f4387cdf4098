"""From image files to predictions: how fast decoding is alone, the model alone, and both together."""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.benchmark.timing import markdown_table, now, peak_mib
from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.loading import read_squares
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2


@dataclass(frozen=True)
class FolderTiming:
    """What one part of `predict` takes.

    Attributes:
        part: "decode alone", "model alone" or "together".
        images_per_second: the number of images / seconds.
        busy: processor time of all processes / (seconds · processors): 1 where none waited.
        peak_mib: of the largest process so far.
    """

    part: str
    images_per_second: float
    busy: float
    peak_mib: float


def benchmark_folder(
    model: DiffMICv2,
    folder: str | Path,
    *,
    batch_size: int = 32,
    precision: str = "fp32",
    progress: bool | None = None,
) -> list[FolderTiming]:
    """Times what `predict` does with a folder: reading and resizing its files, predicting, and both at once.

    Args:
        model: on its device.
        folder: with images; files that cannot be read are passed over.
        batch_size: images computed at once, ≥ 1.
        precision: as `DiffMICv2.predict` takes it.
        progress: show bars; by default where the standard error is a terminal.

    Raises:
        ImageError: the folder has no images.
    """
    items = as_items(folder)
    options = PredictOptions(batch_size=batch_size, precision=precision, on_error="skip", progress=progress)
    few = [square for square in read_squares(items[:batch_size], model.config) if isinstance(square, Tensor)]
    if not few:
        raise ImageError(str(folder), f"holds nothing that can be read among its first {batch_size} images")
    squares = [few[index % len(few)] for index in range(len(items))]
    device = model.default_noise.device

    def predictions_of(images: Any) -> Iterable[object]:
        return model.predictor(options).predict_batches(as_items(images))

    parts: tuple[tuple[str, Callable[[], Iterable[object]]], ...] = (
        ("decode alone", lambda: read_squares(items, model.config)),
        ("model alone", lambda: predictions_of(squares)),
        ("together", lambda: predictions_of(items)),
    )
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        deque(predictions_of(few), maxlen=0)  # folded copies are made once
        for name, run in parts:
            started, worked = now(device), _processor_seconds()
            deque(run(), maxlen=0)
            seconds = now(device) - started
            busy = (_processor_seconds() - worked) / (seconds * (os.cpu_count() or 1))
            rows.append(FolderTiming(name, len(items) / seconds, busy, peak_mib(torch.device("cpu"))))
    return rows


def _processor_seconds() -> float:
    """Returns what this process and those that it started and that have ended worked so far."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def folder_table(rows: list[FolderTiming]) -> str:
    """Returns timings as a Markdown table."""
    cells = ([row.part, f"{row.images_per_second:.1f}", f"{row.busy:.0%}", f"{row.peak_mib:.0f}"] for row in rows)
    return markdown_table(("", "images/s", "processors busy", "peak memory, MiB"), cells)
