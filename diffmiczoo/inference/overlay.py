"""The figure of one prediction: the picture, the same picture with where the model looked, and how probable what is.

Nothing is stretched to look good: pictures keep their aspect, the saliency has one scale from 0 to 1 for all pictures,
and what the model did not see is pale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from diffmiczoo._version import __version__
from diffmiczoo.images.preprocessing import square_extent, square_to_original_box
from diffmiczoo.images.reading import read_image
from diffmiczoo.inference.overlay_pictures import Marks, draw_pictures, pictures_end
from diffmiczoo.inference.overlay_words import Answer, Bar, answer_end, draw_answer, named
from diffmiczoo.inference.saliency import class_saliency
from diffmiczoo.runtime.text import drawn_as_written, plain_text

if TYPE_CHECKING:
    from diffmiczoo.inference.explanation import Explanation
    from diffmiczoo.inference.prediction import Prediction

#: Width of the figure in pixels; its height follows what is drawn.
WIDTH = 1200

#: JPEGs are decoded no larger than the panels need, which no shorter side of a picture exceeds.
_PANEL = 400

_FAINT, _WARNING = "#5b6773", "#a3341f"


@dataclass(frozen=True, eq=False)
class Overlay:
    """What is drawn of one image.

    Attributes:
        name: of the image.
        picture: (H, W, 3), uint8 or float in [0, 1]: upright and in its own aspect, perhaps smaller than it is.
        caption: what stands above it.
        marks: what is drawn on it.
        answer: what the model says.
        model: what the model is called.
    """

    name: str
    picture: Tensor
    caption: str
    marks: Marks
    answer: Answer
    model: str


def overlay_of(
    prediction: Prediction, row: int, item: Any, show_saliency: bool, explanation: Explanation | None = None
) -> Overlay:
    """Collects what is drawn of one image of a prediction.

    Args:
        prediction: of any number of images.
        row: place of the image.
        item: where its picture comes from.
        show_saliency: draw the saliency of the first class.
        explanation: whose map is drawn instead.

    Raises:
        ImageError: the picture cannot be read.
        ValueError: the explanation does not hold the image.
    """
    picture, config = read_image(item, min_side=_PANEL), prediction.config
    size = (picture.shape[-2], picture.shape[-1])
    answer, square = _answer(prediction, row), square_extent(size, config)
    kind, of_class = "saliency", answer.bars[0].name
    saliency = class_saliency(prediction, row, of_class) if show_saliency else None
    if explanation is not None:
        place = explanation.row_of(prediction.names, row)
        kind, of_class, saliency = explanation.title, explanation.classes[place], explanation.maps[place]
    marks = Marks(
        saliency=saliency,
        saliency_of=named(of_class, prediction.class_labels),
        saliency_kind=kind,
        square=square,
        cropped=max(square[:2]) >= 0.5,
        rois=square_to_original_box(prediction.rois[row], size, config),
        roi_attention=prediction.roi_attention[row],
    )
    caption = "picture"
    if prediction.sizes and item is prediction.items[row]:
        caption += f", {prediction.sizes[row][1]:,} × {prediction.sizes[row][0]:,} pixels"
    return Overlay(prediction.names[row], picture.permute(1, 2, 0), caption, marks, answer, prediction.model_name)


def _answer(prediction: Prediction, row: int) -> Answer:
    one = prediction[row]
    label, limits = one.labels[0], one.thresholds
    labels = [label] if isinstance(label, str) else label
    bars = [
        Bar(name, named(name, one.class_labels), value, name in labels, None if limits is None else limits[name])
        for name, value in one.top(len(one.class_names))[0]
    ]
    far, sets, deferred = one.ood_score, one.shown_sets, one.deferred
    return Answer(
        bars,
        one.uncertainty.item(),
        one.calibrated,
        one.trained,
        ood_score=None if far is None else far.item(),
        possible=() if sets is None else tuple(sets[0]),
        deferred=deferred is not None and bool(deferred),
    )


def draw_overlay(overlay: Overlay) -> Figure:
    """Draws a figure `WIDTH` pixels wide: the picture, the marked one and their legend, the classes to the right."""
    rows, columns = overlay.picture.shape[:2]
    height = max(pictures_end(columns, rows), answer_end(overlay.answer)) + 44
    with drawn_as_written():
        # pyplot would keep the figure in a global list and may look for a display.
        figure = Figure(figsize=(WIDTH / 100, height / 100), dpi=100, facecolor="white")
        FigureCanvasAgg(figure)
        page = figure.add_axes((0, 0, 1, 1), facecolor="none")
        page.axis("off")
        draw_pictures(figure, page, overlay.picture, overlay.caption, overlay.marks)
        draw_answer(page, overlay.answer)
        _write_frame(page, height, overlay)
        page.set(xlim=(0, WIDTH), ylim=(height, 0))
    return figure


def _write_frame(page: Axes, height: int, overlay: Overlay) -> None:
    """Writes which picture it is, who says so, and what it is not for."""
    page.text(20, 62, plain_text(overlay.name[::-1], 110)[::-1], fontsize=9, color=_FAINT)
    by = plain_text(overlay.model[::-1], 70)[::-1]
    said = f"{by}  ·  diffmiczoo {__version__}" if by else f"diffmiczoo {__version__}"
    page.text(20, height - 16, said, fontsize=9, color=_FAINT)
    warning = "Research only. Not for clinical use."
    page.text(WIDTH - 20, height - 16, warning, ha="right", fontsize=10, weight="bold", color=_WARNING)
