"""Tables of model cards, as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from diffmiczoo.metrics.report import Metrics, number_text
from diffmiczoo.metrics.robustness import Robustness
from diffmiczoo.metrics.subgroups import SubgroupTable
from diffmiczoo.metrics.table import class_metrics
from diffmiczoo.metrics.trust import TrustReport, percent
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
    value = number_text(metrics.values.get(name, math.nan))
    if name not in metrics.intervals or value == number_text(math.nan):
        return value
    low, high = metrics.intervals[name]
    return f"{value} [{low:.3f}, {high:.3f}]"


def difference_cell(values: Sequence[float] | None) -> str:
    """Returns a difference with its interval; a dash where it is not known."""
    if values is None or any(math.isnan(value) for value in values):
        return number_text(math.nan)
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*values)


def spread(runs: dict[str, dict[str, float]], name: str) -> str:
    """Returns mean and standard deviation of a metric over runs; a dash for fewer than two."""
    values = [value for run in runs.values() if (value := run.get(name)) is not None and not math.isnan(value)]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else "–"


def known_limits(report: TrustReport) -> str:
    """Returns what the weights know about their limits, and how that holds on the test split."""
    sets = "There are no prediction sets: too few validation pictures."
    if report.sets:
        overall, by_class = report.coverage(0.1, False), report.coverage(0.1, True)
        sets = (
            f"Prediction sets at the level 0.1 have the true class of {percent(overall.coverage)} of the test pictures "
            f"with {overall.size:.2f} classes; by class, so that no class is missed more often, "
            f"{percent(by_class.coverage)} with {by_class.size:.2f} classes."
        )
    risks = {f"{10 * (place + 1)} %": [percent(risk)] for place, risk in enumerate(report.risks)}
    curve = f"Area under the risk-coverage curve: {report.aurc:.4f}. Errors among the surest test pictures:"
    parts = [_foreign(report), sets, _promise(report), curve, table({"surest": ["wrong"], **risks})]
    return "\n\n".join(["## What the weights know about their limits", *parts])


def subgroup_tables(tables: Sequence[SubgroupTable]) -> str:
    """Returns the metrics on parts of the test images, a table for each column."""
    if not tables:
        return ""
    parts = ["### Subgroups", "Test images divided by columns of their table, with 95 % intervals."]
    for each in tables:
        (column, names), *numbers = each.columns().items()
        parts += [table({markdown_text(column): list(map(markdown_text, names)), **dict(numbers)}), each.notes()]
    return "\n\n".join(parts)


def robustness_table(found: Robustness) -> str:
    """Returns what a model reaches on pictures as they are, with each corruption at its worst, and on average."""
    worst = found.worst()
    rows = (found.clean, *worst, found.mean)
    names = {row.corruption: f"{row.corruption.replace('_', ' ')}, severity {row.severity}" for row in worst}
    columns = {"images": [names.get(row.corruption, row.corruption) for row in rows]}
    cells = zip(*map(found.cells, rows), strict=True)
    columns |= {heading: list(texts) for heading, texts in zip(found.columns().values(), cells, strict=True)}
    return "\n\n".join(
        [
            "### Robustness",
            "The same test images, corrupted as it happens in a clinic, at the highest of three severities; *mean* is "
            f"over all {len(found.rows)} corrupted versions.",
            table(columns),
        ]
    )


def _foreign(report: TrustReport) -> str:
    if report.kept is None or report.kept_band is None:
        return "There were too few validation pictures to tell pictures that are unlike the training pictures."
    low, high = report.kept_band
    shares = (f"{percent(share)} of {count} from {name}" for name, (share, count) in report.flagged.items())
    own = f"{percent(1 - report.kept)} of the test pictures ({percent(1 - high)} to {percent(1 - low)} expected)"
    return f"Pictures unlike the training pictures are flagged: {', '.join([own, *shares])}."


def _promise(report: TrustReport) -> str:
    said = [
        f"for at most {percent(each.error)} errors a person sees {percent(each.seen)} of the test pictures, and "
        f"{percent(each.found)} of the other {each.others} are wrong"
        for each in report.deferral
        if each.seen is not None and each.found is not None
    ]
    if not said:
        return "No share of errors can be promised for pictures that no person sees: too few validation pictures."
    return f"Deferral, with 90 % confidence: {'; '.join(said)}."
