"""Predictions as a table: the one place that knows its columns and writes it as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from diffmiczoo.config import DiffMICConfig


def table_columns(config: DiffMICConfig) -> list[str]:
    """Returns the columns of a table of predictions: name, label, uncertainty, and prob_<class> per class."""
    return ["name", "label", "uncertainty", *(f"prob_{name}" for name in config.labels)]


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
