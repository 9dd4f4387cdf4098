"""Columns of arrays, as engines hand them on, → pictures; and answers → columns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffmiczoo.engines.pictures import Picture, ReadPicture
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.prediction import Prediction


def pictures_of(batch: Mapping[str, Any]) -> list[Picture]:
    """Returns the pictures of a batch with a column `path` or `bytes`, and perhaps `id`.

    Raises:
        ValueError: there is neither column, or columns differ in length.
    """
    source = next((name for name in ("bytes", "path") if name in batch), None)
    if source is None:
        raise InvalidValueError(f"the batch has the columns {', '.join(batch) or 'of nothing'}; expected path or bytes")
    cells = [_source(cell) for cell in batch[source]]
    names = next((batch[name] for name in ("id", "path") if name in batch), None)
    ids = [f"images[{row}]" for row in range(len(cells))] if names is None else [_text(name) for name in names]
    if len(ids) != len(cells):
        raise InvalidValueError(f"the batch has {len(ids)} ids or paths for {len(cells)} {source}; expected as many")
    return [Picture(name, cell) for name, cell in zip(ids, cells, strict=True)]


def _source(cell: Any) -> str | bytes:
    """Returns a path or content; b"" for an empty cell, which reads as an empty file."""
    if isinstance(cell, bytes | bytearray | memoryview):
        return bytes(cell)
    return _text(cell) if isinstance(cell, str | os.PathLike) else b""


def _text(cell: Any) -> str:
    return os.fsdecode(cell) if isinstance(cell, str | bytes | os.PathLike) else str(cell)


def columns_of(read: Sequence[ReadPicture], prediction: Prediction | None, classes: int) -> dict[str, np.ndarray]:
    """Returns the columns of answers, see `BatchPredictor`.

    Args:
        read: all pictures.
        prediction: of those without an error, in the same order.
        classes: C.
    """
    rows = np.array([row for row, each in enumerate(read) if each.square is not None], dtype=int)
    count = len(read)
    columns = {
        "id": _texts([each.id for each in read]),
        "label": _texts([""] * count),
        "error": _texts([each.error for each in read]),
        "probs": np.full((count, classes), np.nan, np.float32),
        "uncertainty": np.full(count, np.nan, np.float32),
        "spread": np.full((count, classes), np.nan, np.float32),
        "set": _texts([""] * count),
        "ood_score": np.full(count, np.nan, np.float32),
        "in_distribution": np.full(count, -1, np.int8),
        "sha256": _texts([each.sha256 for each in read]),
    }
    if prediction is None:
        return columns
    labels = [label if isinstance(label, str) else "|".join(label) for label in prediction.labels]
    columns["label"][rows] = _texts(labels)
    columns["probs"][rows] = prediction.probs.numpy()
    columns["uncertainty"][rows] = prediction.uncertainty.numpy()
    if prediction.spread is not None:
        columns["spread"][rows] = prediction.spread.numpy()
    if (sets := prediction.shown_sets) is not None:
        columns["set"][rows] = _texts(["|".join(each) for each in sets])
    if prediction.ood_score is not None and prediction.in_distribution is not None:
        columns["ood_score"][rows] = prediction.ood_score.numpy()
        columns["in_distribution"][rows] = prediction.in_distribution.numpy()
    return columns


def _texts(values: Sequence[str]) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
