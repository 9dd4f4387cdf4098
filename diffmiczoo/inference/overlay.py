"""The figure of one answer: the picture as the model saw it, where it looked, and how probable the classes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction

#: How many classes get a bar.
BARS = 7

_INK, _FAINT, _ACCENT, _GREY = "#1b2733", "#6b7785", "#0f7b8a", "#c3ccd4"
# Skin, fundus and tissue are warm and other pictures grey: cyan stands out on all, and one hue leaves their texture.
_HEAT_COLOUR, _HEAT_ALPHA = "#00d8ff", 0.55


def draw(answer: Prediction, picture: Tensor, show_saliency: bool) -> Figure:
    """Does what `Prediction.plot` describes.

    Args:
        answer: of one image.
        picture: (S, S, 3), uint8 or float in [0, 1].
        show_saliency: draw the heat map.
    """
    # pyplot would keep the figure in a global list and may look for a display.
    figure = Figure(figsize=(9, 4.5), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    _draw_picture(figure.add_axes((0.015, 0.075, 0.445, 0.89)), answer, picture, show_saliency)
    bars = figure.add_axes((0.64, 0.13, 0.285, 0.62))
    _draw_bars(bars, answer)
    _write_title(figure, answer)
    return figure


# ---------------------------------------------------------------------- where it looked


def _draw_picture(axes: Axes, answer: Prediction, picture: Tensor, show_saliency: bool) -> None:
    size = answer.config.image_size
    # Pixels are drawn as areas, so that a box's exclusive edge falls on the line between two pixels.
    extent = (0, size, size, 0)
    axes.imshow(picture.numpy(), extent=extent)
    if show_saliency:
        axes.imshow(_heat(answer).numpy(), extent=extent)
    _draw_boxes(axes, answer)
    axes.set(xlim=(0, size), ylim=(size, 0), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    name = _shortened(answer.names[0][::-1], 56)[::-1]
    axes.set_xlabel(name, fontsize=8, color=_FAINT, parse_math=False)


def _heat(answer: Prediction) -> Tensor:
    """Returns the saliency of the most probable class as (S, S, 4) colours, the more opaque the more salient."""
    size = answer.config.image_size
    saliency = answer.saliency[:, answer.probs[0].argmax()]
    low, high = saliency.min(), saliency.max()
    relative = (saliency - low) / (high - low).clamp(min=torch.finfo(torch.float32).tiny)
    smooth = F.interpolate(relative[None], size=(size, size), mode="bicubic").clamp(0, 1)[0, 0]
    colour = torch.tensor(to_rgb(_HEAT_COLOUR)).expand(size, size, 3)
    return torch.cat([colour, _HEAT_ALPHA * smooth[..., None]], dim=-1)


def _draw_boxes(axes: Axes, answer: Prediction) -> None:
    attention = answer.roi_attention[0]
    relative = (attention / attention.max().clamp(min=torch.finfo(torch.float32).tiny)).tolist()
    order = attention.argsort(descending=True, stable=True).tolist()
    for rank, roi in reversed(list(enumerate(order, start=1))):
        left, top, right, bottom = answer.rois[0, roi].tolist()
        width, alpha = 1 + 2 * relative[roi], 0.45 + 0.55 * relative[roi]
        outline = [withStroke(linewidth=width + 1.5, foreground="black", alpha=0.5 * alpha)]
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=width)
        box.set(alpha=alpha, path_effects=outline)
        axes.add_patch(box)
        text = axes.annotate(
            str(rank), (left, top), (4, -4), textcoords="offset points", ha="left", va="top", fontsize=9, weight="bold"
        )
        text.set(color="white", alpha=alpha, path_effects=[withStroke(linewidth=2.5, foreground="black", alpha=0.7)])


# ---------------------------------------------------------------------- what it answers


def _draw_bars(axes: Axes, answer: Prediction) -> None:
    pairs, chosen = answer.top(BARS)[0], _chosen(answer)
    places, values = range(len(pairs)), [value for _, value in pairs]
    axes.barh(places, values, color=[_ACCENT if name in chosen else _GREY for name, _ in pairs], height=0.64)
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


def _write_title(figure: Figure, answer: Prediction) -> None:
    chosen = _chosen(answer)
    rest = f" + {len(chosen) - 1}" if len(chosen) > 1 else ""
    headline = _shortened(chosen[0], 28) + rest if chosen else "no label reaches 50 %"
    probability, uncertain = answer.top(1)[0][0][1], answer.uncertainty.item()
    best = "probability" if len(chosen) == 1 else "highest probability"
    figure.text(0.5, 0.895, headline, fontsize=17, weight="bold", color=_INK, parse_math=False)
    figure.text(0.5, 0.83, f"{best} {_percent(probability)}  ·  uncertainty {uncertain:.2f}", fontsize=11, color=_INK)
    notes = [text for text, applies in _notes(answer).items() if applies]
    figure.text(0.5, 0.03, "  ·  ".join(notes), fontsize=8, color=_FAINT)


def _notes(answer: Prediction) -> dict[str, bool]:
    return {
        "the model is not trained": not answer.trained,
        "probabilities are not calibrated": not answer.calibrated,
        f"{len(answer.class_names) - BARS} more classes": len(answer.class_names) > BARS,
    }


def _chosen(answer: Prediction) -> list[str]:
    """Returns the labels that the model gives, the most probable first."""
    label = answer.labels[0]
    labels = [label] if isinstance(label, str) else label
    return [name for name, _ in answer.top(len(answer.class_names))[0] if name in labels]


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
