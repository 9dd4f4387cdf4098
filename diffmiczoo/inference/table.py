"""Predictions as a table: the one place that knows its columns and writes it as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from diffmiczoo.config import DiffMICConfig


def table_columns(config: DiffMICConfig, rois: bool = False, limits: Sequence[str] = ()) -> list[str]:
    """Returns the columns of a table of predictions: name, label, uncertainty, limits, and prob_<class> per class.

    Args:
        config: the model's.
        rois: add height and width of the picture, and its ROIs: roi1_left, roi1_top, …, roi1_attention, roi2_left, ….
        limits: those of `inference.limits.LIMIT_COLUMNS` that there are.
    """
    columns = ["name", "label", "uncertainty", *limits, *(f"prob_{name}" for name in config.labels)]
    if not rois:
        return columns
    parts = ("left", "top", "right", "bottom", "attention")
    return [*columns, "height", "width", *(f"roi{n + 1}_{part}" for n in range(config.num_rois) for part in parts)]


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[str | float]], *, header: bool) -> str:
    """Returns rows as CSV text, numbers with 6 decimals.

    Args:
        columns: their names.
        rows: in the order of the columns.
        header: begin with the names of the columns.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow(columns)
    for row in rows:
        writer.writerow([f"{value:.6f}" if isinstance(value, float) else value for value in row])
    return buffer.getvalue()
