"""Pictures of a run: learning curves and confusion matrix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from diffmiczoo.images.reading import DRAWN
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.runtime.text import drawn_as_written, plain_text

#: Longest class name beside the confusion matrix.
_LONGEST = 24

#: Largest side of the confusion matrix in inches; with hundreds of classes the cells shrink.
_LARGEST = 30.0

_INK, _FAINT, _ACCENT, _SECOND = "#1b2733", "#6b7785", "#0f7b8a", "#c2571a"


def draw_curves(history: list[dict[str, Any]], select: str, path: Path) -> None:
    """Draws the training loss and the selection metric over the epochs of each stage, and marks the best epochs.

    Args:
        history: rows of `Trainer.history`.
        select: name of the metric that selects the best epoch.
        path: of the PNG.
    """
    stages = list(dict.fromkeys(row["stage"] for row in history))
    with drawn_as_written():
        figure = _figure(5.2 * len(stages), 3.6)
        for place, stage in enumerate(stages, start=1):
            axes = figure.add_subplot(1, len(stages), place)
            _draw_stage(axes, [row for row in history if row["stage"] == stage], select, stage)
        figure.tight_layout()
        figure.savefig(path, format="png", dpi=120, metadata=DRAWN)


def _draw_stage(axes: Axes, rows: list[dict[str, Any]], select: str, stage: str) -> None:
    axes.plot([row["epoch"] for row in rows], [row["train_loss"] for row in rows], color=_ACCENT, marker=".")
    axes.set_title(f"stage {stage}", color=_INK, fontsize=10, loc="left")
    axes.set_xlabel("epoch", color=_FAINT)
    axes.set_ylabel("training loss", color=_ACCENT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    validated = [row for row in rows if not math.isnan(row.get(select, math.nan))]
    other = axes.twinx()
    other.plot([row["epoch"] for row in validated], [row[select] for row in validated], color=_SECOND, marker=".")
    other.set_ylabel(f"{select} on validation", color=_SECOND)
    for best in (row for row in validated if row.get("best")):
        other.plot(best["epoch"], best[select], "o", markersize=9, markerfacecolor="none", color=_SECOND)
        other.annotate(
            f"best {best[select]:.3f}",
            (best["epoch"], best[select]),
            xytext=(0, 9 if find_metric(select).higher_is_better else -16),
            textcoords="offset points",
            ha="right" if best["epoch"] > rows[-1]["epoch"] / 2 else "left",
            fontsize=8,
            color=_SECOND,
        )
    other.margins(y=0.18)
    for axis in (axes, other):
        axis.spines["top"].set_visible(False)


def draw_confusion(decisions: Tensor, targets: Tensor, class_names: tuple[str, ...], path: Path) -> None:
    """Draws the confusion matrix: how often images of each class were predicted as each class.

    Args:
        decisions: (N, C), 1 for the class that each image was given.
        targets: (N,) class numbers.
        class_names: C names.
        path: of the PNG.
    """
    count = len(class_names)
    confusion = torch.zeros(count, count, dtype=torch.long)
    confusion.index_put_((targets, decisions.int().argmax(1)), torch.tensor(1), accumulate=True)
    share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    with drawn_as_written():
        figure = confusion_figure(confusion, share, [plain_text(name, _LONGEST) for name in class_names])
        figure.tight_layout()
        figure.savefig(path, format="png", dpi=120, metadata=DRAWN)


def confusion_figure(confusion: Tensor, share: Tensor, names: list[str]) -> Figure:
    """Returns the figure of counts and shares (C, C) of C classes; see `draw_confusion`."""
    count = len(names)
    side = 1.8 + min(0.55, _LARGEST / count) * count
    figure = _figure(side + 0.9, side)
    axes = figure.add_subplot()
    axes.imshow(share.numpy(), cmap="GnBu", vmin=0, vmax=1)
    axes.set_xticks(range(count), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(count), names, fontsize=8)
    axes.set_xlabel("predicted", color=_FAINT)
    axes.set_ylabel("true", color=_FAINT)
    if count <= 20:
        for row in range(count):
            for column in range(count):
                colour = "white" if share[row, column] > 0.6 else _INK
                text = str(int(confusion[row, column]))
                axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    axes.set_title(f"{int(confusion.sum()):,} validation images", color=_INK, fontsize=10, loc="left")
    return figure


def _figure(width: float, height: float) -> Figure:
    # pyplot would keep the figure in a global list and may look for a display.
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure
