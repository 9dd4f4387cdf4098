"""Tables of model cards, as Markdown."""

from __future__ import annotations

import math
import statistics

from diffmiczoo.metrics.report import Metrics, number_text
from diffmiczoo.metrics.table import class_metrics
from diffmiczoo.runtime.text import markdown_text


def class_table(metrics: Metrics) -> str:
    """Returns a row of metrics for each class."""
    rows = metrics.per_class.values()
    columns = {
        "class": [markdown_text(name) for name in metrics.per_class],
        "images": [f"{row['support']:.0f}" for row in rows],
    }
    for metric in class_metrics():
        if metric.headline:
            columns[metric.label] = [number_text(row.get(metric.name, math.nan)) for row in rows]
    return table(columns)


def table(columns: dict[str, list[str]]) -> str:
    """Returns a table of columns, heading → cells."""
    rows = [list(columns), ["---"] * len(columns), *map(list, zip(*columns.values(), strict=True))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def cell(metrics: Metrics, name: str) -> str:
    """Returns a metric with its interval, where there is one."""
    value = f"{metrics.values[name]:.3f}"
    if name not in metrics.intervals:
        return value
    low, high = metrics.intervals[name]
    return f"{value} [{low:.3f}, {high:.3f}]"


def spread(runs: dict[str, dict[str, float]], name: str) -> str:
    """Returns mean and standard deviation of a metric over runs; a dash for fewer than two."""
    values = [value for run in runs.values() if (value := run.get(name)) is not None]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else "–"
