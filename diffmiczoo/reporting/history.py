"""The curves of a training run, from the files that it left."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import read_json_object
from diffmiczoo.hub.card_facts import RECIPE_FILE
from diffmiczoo.metrics.table import selection_names
from diffmiczoo.reporting.results import StageCurves, Training
from diffmiczoo.training.trainer import HISTORY_FILE


def run_of(loaded_from: Path | None) -> Path | None:
    """Returns the directory of the training run that weights lie in, or None: `RUN/best` is of the run `RUN`."""
    if loaded_from is None:
        return None
    near = (loaded_from, loaded_from.resolve().parent)
    return next((directory for directory in near if (directory / HISTORY_FILE).is_file()), None)


def training_curves(run: Path | None) -> Training | None:
    """Returns the curves of a run; None where there is none, or its file holds nothing.

    Raises:
        ValueError: the file is not what a run writes.
    """
    path = None if run is None else run / HISTORY_FILE
    if run is None or path is None or not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return None
    try:
        metric = _metric(run, rows[0])
        stages = list(dict.fromkeys(row["stage"] for row in rows))
        return Training({name: _stage([row for row in rows if row["stage"] == name], metric) for name in stages})
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidValueError(f"{path}: not the history of a training run ({error!r})") from error


def _metric(run: Path, row: Mapping[str, str]) -> str:
    """Returns what the epochs were selected by, where the recipe says so, else the first metric that is there."""
    for recipe in (run / RECIPE_FILE, run / "best" / RECIPE_FILE):
        if recipe.is_file() and (chosen := read_json_object(recipe).get("select")) in row:
            return str(chosen)
    return next(name for name in (*selection_names(), "train_loss") if name in row)


def _stage(rows: list[dict[str, str]], metric: str) -> StageCurves:
    best = [int(row["epoch"]) for row in rows if row.get("best") == "True"]
    return StageCurves(
        tuple(int(row["epoch"]) for row in rows),
        tuple(_number(row["train_loss"]) for row in rows),
        metric,
        tuple(_number(row.get(metric)) for row in rows),
        best[-1] if best else None,
    )


def _number(cell: str | None) -> float:
    return float(cell) if cell else math.nan
