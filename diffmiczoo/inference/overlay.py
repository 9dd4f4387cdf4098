"""The figure of one prediction: the image as the model saw it, where it looked, and how probable the classes are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

#: How many classes get a bar.
BARS = 7

_INK, _FAINT, _ACCENT, _GREY = "#1b2733", "#6b7785", "#0f7b8a", "#c3ccd4"
# Skin, fundus and tissue are warm and other images grey: cyan stands out on all, and one hue leaves their texture.
_HEAT_COLOUR, _HEAT_ALPHA = "#00d8ff", 0.55


@dataclass(frozen=True, eq=False)
class Overlay:
    """What is drawn of one image.

    Attributes:
        name: written below the image.
        square: (S, S, 3), uint8 or float in [0, 1]: the image as the model saw it.
        saliency: (h, w) of any range, drawn from its smallest to its largest value; None for no heat map.
        rois: (K, 4) left, top, right, bottom in pixels of the square; right and bottom are exclusive.
        roi_attention: (K,) in [0, 1]; the more, the bolder the box.
        ranking: (class name, probability) of all classes, the most probable first.
        labels: the classes that are predicted, the most probable first; none for "multilabel" where no label applies.
        uncertainty: in [0, 1].
        notes: what limits the prediction, a few words each.
    """

    name: str
    square: Tensor
    saliency: Tensor | None
    rois: Tensor
    roi_attention: Tensor
    ranking: list[tuple[str, float]]
    labels: list[str]
    uncertainty: float
    notes: list[str]


def draw_overlay(overlay: Overlay) -> Figure:
    """Draws a figure of 900×450 pixels: the image with heat map and boxes to the left, the classes to the right."""
    # pyplot would keep the figure in a global list and may look for a display.
    figure = Figure(figsize=(9, 4.5), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    _draw_image(figure.add_axes((0.015, 0.075, 0.445, 0.89)), overlay)
    _draw_bars(figure.add_axes((0.64, 0.13, 0.285, 0.62)), overlay)
    _write_title(figure, overlay)
    return figure


# ---------------------------------------------------------------------- where the model looked


def _draw_image(axes: Axes, overlay: Overlay) -> None:
    size = len(overlay.square)
    # Pixels are drawn as areas, so that a box's exclusive edge falls on the line between two pixels.
    extent = (0, size, size, 0)
    axes.imshow(overlay.square.numpy(), extent=extent)
    if overlay.saliency is not None:
        axes.imshow(_heat(overlay.saliency, size).numpy(), extent=extent)
    _draw_boxes(axes, overlay)
    axes.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    name = _shortened(overlay.name[::-1], 56)[::-1]
    axes.set_xlabel(name, fontsize=8, color=_FAINT, parse_math=False)


def _heat(saliency: Tensor, size: int) -> Tensor:
    """Returns the saliency (h, w) as (size, size, 4) colours, the more opaque the more salient."""
    low, high = saliency.min(), saliency.max()
    relative = (saliency - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    smooth = F.interpolate(relative[None, None], size=(size, size), mode="bicubic").clamp(0, 1)[0, 0]
    colour = torch.tensor(to_rgb(_HEAT_COLOUR)).expand(size, size, 3)
    return torch.cat([colour, _HEAT_ALPHA * smooth[..., None]], dim=-1)


def _draw_boxes(axes: Axes, overlay: Overlay) -> None:
    attention = overlay.roi_attention
    relative = (attention / attention.max().clamp(min=torch.finfo(torch.float32).tiny)).tolist()
    order = attention.argsort(descending=True, stable=True).tolist()
    for rank, roi in reversed(list(enumerate(order, start=1))):
        left, top, right, bottom = overlay.rois[roi].tolist()
        width, alpha = 1 + 2 * relative[roi], 0.45 + 0.55 * relative[roi]
        outline = [withStroke(linewidth=width + 1.5, foreground="black", alpha=0.5 * alpha)]
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=width)
        box.set(alpha=alpha, path_effects=outline)
        axes.add_patch(box)
        text = axes.annotate(
            str(rank), (left, top), (4, -4), textcoords="offset points", ha="left", va="top", fontsize=9, weight="bold"
        )
        text.set(color="white", alpha=alpha, path_effects=[withStroke(linewidth=2.5, foreground="black", alpha=0.7)])


# ---------------------------------------------------------------------- what it predicts


def _draw_bars(axes: Axes, overlay: Overlay) -> None:
    pairs = overlay.ranking[:BARS]
    places, values = range(len(pairs)), [value for _, value in pairs]
    axes.barh(places, values, color=[_ACCENT if name in overlay.labels else _GREY for name, _ in pairs], height=0.64)
    for place, value in zip(places, values, strict=True):
        axes.text(value + 0.02, place, _percent(value), va="center", fontsize=9, color=_INK)
    axes.set_yticks(places, [_shortened(name, 20) for name, _ in pairs], fontsize=10, color=_INK, parse_math=False)
    axes.set_xticks((0, 0.5, 1), ("0 %", "50 %", "100 %"), fontsize=8, color=_FAINT)
    axes.set(xlim=(0, 1), ylim=(BARS - 0.5, -0.5), facecolor="none")
    axes.tick_params(length=0)
    axes.axvline(0.5, color=_GREY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(_GREY)


def _write_title(figure: Figure, overlay: Overlay) -> None:
    labels, probability = overlay.labels, overlay.ranking[0][1]
    rest = f" + {len(labels) - 1}" if len(labels) > 1 else ""
    headline = _shortened(labels[0], 28) + rest if labels else "no label reaches 50 %"
    best = "probability" if len(labels) == 1 else "highest probability"
    below = f"{best} {_percent(probability)}  ·  uncertainty {overlay.uncertainty:.2f}"
    figure.text(0.5, 0.895, headline, fontsize=17, weight="bold", color=_INK, parse_math=False)
    figure.text(0.5, 0.83, below, fontsize=11, color=_INK)
    hidden = len(overlay.ranking) - BARS
    notes = [*overlay.notes, f"{hidden} more classes"] if hidden > 0 else overlay.notes
    figure.text(0.5, 0.03, "  ·  ".join(notes), fontsize=8, color=_FAINT)


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
