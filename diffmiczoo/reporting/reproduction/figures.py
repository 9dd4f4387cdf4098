"""Figures 3 to 6: maps, sweeps as curves, features in the plane, convergence."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffmiczoo.data.manifest import Manifest
from diffmiczoo.files import replaced
from diffmiczoo.images.reading import DRAWN
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.maps import plot_maps
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.planning import points_of
from diffmiczoo.reporting.reproduction.records import RunRecord, SplitRecord
from diffmiczoo.reporting.reproduction.summary import finished, value_of
from diffmiczoo.reporting.reproduction.variants import Budget, Run
from diffmiczoo.reporting.trajectories import new_figure, plot_embedding, trace
from diffmiczoo.runtime.text import drawn_as_written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _COLOURS = "#1b2733", ("#0f7b8a", "#c2571a")

#: Test pictures whose maps are drawn, one of each class; and those whose features are.
_MAPS, _POINTS = 4, 300

Picture = tuple[str, str]


def draw_maps(model: DiffMICv2, test: Manifest, output: Path, name: str) -> list[Picture]:
    """Draws where what speaks for its own class lies, for the first test picture of each of some classes (figure 3).

    Returns:
        File names in `output`, and what they show.

    Raises:
        ImportError: matplotlib is not installed.
    """
    found: list[Picture] = []
    for label in test.class_names[:_MAPS]:
        record = next((each for each in test.records if label in each.labels), None)
        if record is None:
            continue
        with drawn_as_written():
            figure = plot_maps(model, [record.item()], class_name=label)
            file = f"{name}-{len(found) + 1}.png"
            _save(figure, output / file)
        found.append((file, f"a test picture of {label}, and what speaks for {label}"))
    return found


def draw_embedding(model: DiffMICv2, test: Manifest, output: Path, name: str, steps: int = 5) -> list[Picture]:
    """Draws the test pictures' features of every denoising step in the plane (figure 5).

    t-SNE where scikit-learn is installed and there are 30 pictures or more, else principal components.
    """
    order = {name: place for place, name in enumerate(test.class_names)}
    # By class, so that the legend has their order.
    records = sorted(test.records[:_POINTS], key=lambda record: [order[label] for label in record.labels])
    trajectory = trace(model, [record.item() for record in records], steps=steps, progress=False)
    classes = [" + ".join(record.labels) or "none" for record in records]
    found = []
    for method, words in (("pca", "principal components"), ("tsne", "t-SNE")):
        if method == "tsne" and (len(records) < 30 or not _has_sklearn()):
            continue
        with drawn_as_written():
            _save(plot_embedding(trajectory, classes, method), output / f"{name}-{method}.png")
        found.append((f"{name}-{method}.png", f"features of {len(records)} test pictures at each step, {words}"))
    return found


def _has_sklearn() -> bool:
    from importlib.util import find_spec

    return find_spec("sklearn") is not None


def draw_sweeps(budget: Budget, runs: Sequence[Run], ledger: Ledger, output: Path, name: str) -> list[Picture]:
    """Draws accuracy and macro F1 (several labels: AUROC) over K, Np and H, with the standard deviation (figure 4)."""
    found, points = finished(ledger, runs), points_of(budget)
    split = _first_split(runs, ledger)
    if split is None or not any(found.values()):
        return []
    metrics = ("auroc",) if split.task == "multilabel" else ("accuracy", "macro_f1")
    axes_names = list(dict.fromkeys(point.axis for point in points))
    with drawn_as_written():
        figure = new_figure(3.2 * len(axes_names), 3.0)
        first: Axes | None = None
        for place, axis in enumerate(axes_names, start=1):
            axes = figure.add_subplot(1, len(axes_names), place, sharey=first)
            first = first or axes
            named = [(point.value, found.get((split.dataset, split.protocol, point.variant.key), []))
                     for point in points if point.axis == axis]  # fmt: skip
            for metric, colour in zip(metrics, _COLOURS, strict=False):
                _draw_values(axes, named, metric, colour)
            axes.set_xlabel(axis, fontsize=10, color=_INK)
            _tidy(axes)
            values = [value for value, _ in named]
            if axis == "H":
                axes.set_xscale("log", base=2)
            axes.set_xticks(values, [str(value) for value in values])
            axes.minorticks_off()
            axes.margins(x=0.08)
        assert first is not None
        figure.legend(*first.get_legend_handles_labels(), loc="upper center", ncols=2, fontsize=9, frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 0.92))
        _save(figure, output / f"{name}.png")
    return [(f"{name}.png", f"K, Np and H on {split.dataset}: mean and standard deviation over the seeds")]


def _draw_values(axes: Axes, named: Sequence[tuple[int, list[RunRecord]]], metric: str, colour: str) -> None:
    values = [(x, value) for x, records in named if (value := value_of(records, metric)) is not None]
    if values:
        axes.errorbar(
            [x for x, _ in values],
            [value.mean for _, value in values],
            yerr=[value.sd or 0.0 for _, value in values],
            marker="o",
            markersize=4,
            capsize=3,
            linewidth=1.6,
            color=colour,
            label=find_metric(metric).short_label,
        )


def draw_convergence(
    runs: Sequence[Run], ledger: Ledger, titles: dict[str, str], output: Path, name: str
) -> list[Picture]:
    """Draws the validation metric after each epoch of the diffusion, mean over the seeds and their range (figure 6).

    Args:
        runs: of the rows that are drawn.
        ledger: with the finished ones.
        titles: key of a row → its title.
        output: directory.
        name: of the file without its ending.
    """
    found = finished(ledger, runs)
    split = _first_split(runs, ledger)
    rows = [] if split is None else [
        (key, records) for (dataset, protocol, key), records in found.items()
        if records and (dataset, protocol) == (split.dataset, split.protocol)
    ]  # fmt: skip
    if not rows or split is None:
        return []
    with drawn_as_written():
        figure = new_figure(5.6, 3.6)
        axes = figure.add_subplot()
        for (key, records), colour in zip(rows, _COLOURS, strict=False):
            _draw_curve(axes, records, titles[key], colour)
        metric = rows[0][1][0].select
        axes.set_xlabel("epoch of the diffusion stage", fontsize=10, color=_INK)
        axes.set_ylabel(f"{find_metric(metric).short_label}, validation", fontsize=10, color=_INK)
        axes.legend(fontsize=9, frameon=False, loc="lower right")
        last = max(len(record.curves.get("diffusion", [])) for _, records in rows for record in records)
        axes.set_xlim(0.5, last + 0.5)
        axes.locator_params(axis="x", nbins=min(last, 8), integer=True)
        _tidy(axes)
        figure.tight_layout()
        _save(figure, output / f"{name}.png")
    return [(f"{name}.png", f"validation {metric} on {split.dataset} after each epoch; band: range of the seeds")]


def _draw_curve(axes: Axes, records: Sequence[RunRecord], title: str, colour: str) -> None:
    values: dict[float, list[float]] = {}
    for record in records:
        for epoch, _, metric in record.curves.get("diffusion", []):
            if epoch is not None and metric is not None:
                values.setdefault(epoch, []).append(metric)
    epochs = sorted(values)
    axes.plot(
        epochs, [statistics.mean(values[e]) for e in epochs], color=colour, marker=".", linewidth=1.8, label=title
    )
    low, high = [min(values[e]) for e in epochs], [max(values[e]) for e in epochs]
    axes.fill_between(epochs, low, high, color=colour, alpha=0.18, linewidth=0)


def _first_split(runs: Sequence[Run], ledger: Ledger) -> SplitRecord | None:
    return next((ledger.splits[key] for run in runs if (key := (run.dataset, run.protocol)) in ledger.splits), None)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#d9dee3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    with replaced(path) as file:
        figure.savefig(file, format="png", dpi=130, metadata=DRAWN)
