"""The pictures of an overlay: the clean one, the marked one, and the legend of the marks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from torch import Tensor

from diffmiczoo.inference.overlay_words import shortened

#: Saliency at which a line is drawn, and its width in points.
CONTOURS = {0.5: 1.1, 0.9: 2.2}

# Where the pictures are, in pixels from the left and the top of the figure; the legend is below them.
_LEFT, _TOP, _WIDTH, _HEIGHT = 20, 108, 770, 340
_GAP, _CAPTION = 16, 22

# Points across the square at which the saliency is drawn.
_FINE = 96

_INK, _FAINT = "#1b2733", "#5b6773"
# Skin, fundus and tissue are warm and other images grey: cyan stands out on all. The wash stays so thin that what lies
# under it keeps its texture and nearly its colour; the lines carry the values.
_COLOUR, _ALPHA, _VEIL = "#00c8f0", 0.16, 0.72


@dataclass(frozen=True, eq=False)
class Marks:
    """What is drawn on a picture; places are in pixels of the picture.

    Attributes:
        saliency: (h, w) in [0, 1], of the square that the model saw; None for none.
        saliency_of: the class whose saliency it is.
        saliency_kind: what it is called in the legend.
        square: left, top, right, bottom of the square that the model saw; beyond the picture where it had a border.
        cropped: whether anything of the picture lies outside of the square.
        rois: (K, 4) left, top, right, bottom; right and bottom are exclusive.
        roi_attention: (K,) in [0, 1]; the more, the bolder the box.
    """

    saliency: Tensor | None
    saliency_of: str
    saliency_kind: str
    square: tuple[float, float, float, float]
    cropped: bool
    rois: Tensor
    roi_attention: Tensor


def draw_pictures(figure: Figure, page: Axes, picture: Tensor, caption: str, marks: Marks) -> None:
    """Draws the clean and the marked picture beside or above each other, whichever is larger, and the legend."""
    height, width = picture.shape[:2]
    corners, size = panels(width, height)
    shown = _fitted(picture, size)
    for corner, text in zip(corners, (caption, "where the model looked"), strict=True):
        page.text(corner[0], corner[1] - 6, text, fontsize=9, color=_FAINT)
        axes = _axes(figure, *corner, *size)
        # Pixels are drawn as areas, so that a box's exclusive edge falls on the line between two pixels.
        axes.imshow(shown, extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
        axes.axis("off")
    _draw_marks(axes, marks, (width, height))
    draw_legend(page, corners[1][1] + size[1] + 16, marks)


def draw_marked(picture: Tensor, marks: Marks, side: int) -> Figure:
    """Draws the marked picture alone, without a word.

    Args:
        picture: (H, W, 3), uint8 or float in [0, 1].
        marks: what is drawn on it.
        side: length of the figure's longer side, pixels.
    """
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(_fitted(picture, size), extent=(0, width, height, 0), aspect="auto", interpolation="nearest")
    axes.axis("off")
    _draw_marks(axes, marks, (width, height))
    return figure


def _draw_marks(axes: Axes, marks: Marks, extent: tuple[int, int]) -> None:
    _veil(axes, marks.square, extent)
    if marks.saliency is not None:
        _draw_saliency(axes, marks.saliency, marks.square)
    _draw_boxes(axes, marks)
    axes.set(xlim=(0, extent[0]), ylim=(extent[1], 0))


def pictures_end(width: int, height: int) -> int:
    """Returns how many pixels from the top of the figure pictures and legend of a picture of this size need."""
    corners, size = panels(width, height)
    return corners[1][1] + size[1] + 16 + 82


def panels(width: int, height: int) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Returns where the two panels begin (left, top), and their width and height, all in pixels of the figure."""
    beside = min((_WIDTH - _GAP) / 2 / width, _HEIGHT / height)
    above = min(_WIDTH / width, (_HEIGHT - _CAPTION - _GAP) / 2 / height)
    scale = max(beside, above)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if beside >= above:
        return [(_LEFT, _TOP), (_LEFT + (_WIDTH + _GAP) // 2, _TOP)], size
    return [(_LEFT, _TOP), (_LEFT, _TOP + size[1] + _CAPTION + _GAP)], size


def _fitted(picture: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Returns the picture (H, W, 3) at the panel's size: matplotlib would take longer; small pictures show pixels."""
    width, height = size
    values = picture.float() / 255 if picture.dtype == torch.uint8 else picture.float()
    planes = values.permute(2, 0, 1)[None]
    if 3 * picture.shape[1] <= height and 3 * picture.shape[0] <= height:
        planes = F.interpolate(planes, (height, width), mode="nearest-exact")
    else:
        planes = F.interpolate(planes, (height, width), mode="bilinear", align_corners=False, antialias=True)
    array: np.ndarray = (planes[0].permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    return array


def _axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Adds axes at pixels from the left and the top of the figure."""
    across, down = figure.get_size_inches() * figure.dpi
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), facecolor="none")


# ---------------------------------------------------------------------- marks


def _veil(axes: Axes, square: tuple[float, float, float, float], extent: tuple[int, int]) -> None:
    """Veils what lies outside of the square that the model saw."""
    left, top, right, bottom = square
    width, height = extent
    for x0, y0, x1, y1 in (
        (0, 0, width, top),
        (0, bottom, width, height),
        (0, top, left, bottom),
        (right, top, width, bottom),
    ):
        if x1 - x0 >= 0.5 and y1 - y0 >= 0.5:
            strip = Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="white", alpha=_VEIL, linewidth=0, gid="veil")
            axes.add_patch(strip)


def _draw_saliency(axes: Axes, saliency: Tensor, square: tuple[float, float, float, float]) -> None:
    """Draws a thin wash, as opaque as the saliency is high, and lines where it crosses the `CONTOURS`."""
    left, top, right, bottom = square
    # Between the middles of the cells, so nothing is drawn that is higher or lower than the model's own values.
    smooth = F.interpolate(saliency.float()[None, None], size=(_FINE, _FINE), mode="bilinear", align_corners=False)[
        0, 0
    ]
    values = smooth.clamp(0, 1).numpy()
    wash = np.empty((*values.shape, 4))
    wash[..., :3], wash[..., 3] = to_rgb(_COLOUR), _ALPHA * values
    axes.imshow(wash, extent=(left, right, bottom, top), aspect="auto", interpolation="bilinear")
    x = left + (np.arange(_FINE) + 0.5) * (right - left) / _FINE
    y = top + (np.arange(_FINE) + 0.5) * (bottom - top) / _FINE
    levels = [level for level in CONTOURS if values.min() < level < values.max()]
    if levels:
        lines = axes.contour(x, y, values, levels, colors=_COLOUR, linewidths=[CONTOURS[level] for level in levels])
        lines.set(path_effects=_outline(1.4))


def _draw_boxes(axes: Axes, marks: Marks) -> None:
    attention = marks.roi_attention
    relative = (attention / attention.max().clamp(min=torch.finfo(torch.float32).tiny)).tolist()
    for rank, roi in reversed(list(enumerate(_by_attention(marks), start=1))):
        left, top, right, bottom = marks.rois[roi].tolist()
        if right <= left or bottom <= top:
            continue  # all of it lies in the border around the picture
        width = 0.8 + 1.7 * relative[roi]
        box = Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor="white", linewidth=width)
        box.set(path_effects=_outline(width))
        axes.add_patch(box)
        text = axes.annotate(
            str(rank), (left, top), (3, -3), textcoords="offset points", ha="left", va="top", fontsize=9, weight="bold"
        )
        text.set(color="white", path_effects=[withStroke(linewidth=2.2, foreground="black", alpha=0.8)])


def _by_attention(marks: Marks) -> list[int]:
    order: list[int] = marks.roi_attention.argsort(descending=True, stable=True).tolist()
    return order


# ---------------------------------------------------------------------- legend


def draw_legend(page: Axes, top: float, marks: Marks) -> None:
    """Draws what the marks mean, on a page whose units are pixels from the left and the top."""
    row = top + 14
    if marks.saliency is not None:
        _draw_scale(page, row)
        what = f"{marks.saliency_kind} of {shortened(marks.saliency_of, 44)}, lines at 0.5 and 0.9"
        page.text(_LEFT + 214, row, what, fontsize=9, color=_INK)
        row += 40
    page.add_patch(Rectangle((_LEFT, row - 11), 24, 13, fill=False, edgecolor=_INK, linewidth=1.4))
    page.text(_LEFT + 34, row, roi_words(marks), fontsize=9, color=_INK)
    if not marks.cropped:
        return
    row += 24
    page.add_patch(Rectangle((_LEFT, row - 11), 24, 13, facecolor="#e3e6e8", edgecolor=_FAINT, linewidth=0.6))
    page.text(_LEFT + 34, row, "pale: cropped away, the model did not see it", fontsize=9, color=_INK)


def roi_words(marks: Marks) -> str:
    """Says what the regions are: read closely with a share each, or, without a local stream, only found."""
    if len(marks.roi_attention) > 1 and bool((marks.roi_attention == marks.roi_attention[0]).all()):
        return "regions (ROIs) where the saliency is strongest; the model does not read them by themselves"
    order = enumerate(_by_attention(marks), start=1)
    shares = [f"{rank}: {100 * float(marks.roi_attention[roi]):.0f} %" for rank, roi in order]
    shown = "   ".join(shares[:8]) + ("  …" if len(shares) > 8 else "")
    return f"regions (ROIs) read closely, by their share of attention:  {shown}"


def _draw_scale(page: Axes, row: float) -> None:
    """Draws the scale of the saliency: the wash as it looks on grey, and the lines at their values."""
    width, grey, colour = 190, np.array([0.62] * 3), np.array(to_rgb(_COLOUR))
    alpha = _ALPHA * np.linspace(0, 1, width)[None, :, None]
    extent = (_LEFT, _LEFT + width, row + 2, row - 11)
    page.imshow((1 - alpha) * grey + alpha * colour, extent=extent, aspect="auto")
    for level, line in CONTOURS.items():
        place = _LEFT + level * width
        page.plot([place, place], [row - 11, row + 2], color=_COLOUR, linewidth=line, path_effects=_outline(line))
    for level, text in ((0, "0"), (0.5, "0.5"), (0.9, "0.9"), (1, " 1")):
        place = _LEFT + level * width
        page.text(place, row + 14, text, fontsize=8, color=_FAINT, ha="left" if level in (0, 1) else "center")


def _outline(width: float) -> list[withStroke]:
    return [withStroke(linewidth=width + 1.6, foreground="black", alpha=0.5)]
