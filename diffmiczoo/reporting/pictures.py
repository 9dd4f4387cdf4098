"""Pictures of a report: which ones are worth a look, and each as two small JPEGs, as it is and with where to look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.preprocessing import square_extent, square_to_original_box
from diffmiczoo.images.reading import read_image
from diffmiczoo.inference.explanation import Explanation
from diffmiczoo.inference.saliency import class_saliency
from diffmiczoo.reporting.measure import Measured
from diffmiczoo.reporting.results import Gallery, Shown
from diffmiczoo.runtime.progress import progress_bar

#: (images, a class of each) → where what speaks for the class lies.
Explain = Callable[[list[Item], list[str]], Explanation]

#: Longest side of a picture on the page in pixels, and the quality of its JPEG: two dozen take about a megabyte.
SIDE, QUALITY = 320, 80

#: Probabilities that are listed beside a picture.
_TOP = 3

# Skin, fundus and tissue are warm and other pictures grey: cyan stands out on all.
_COLOUR, _WASH, _VEIL = (0, 200, 240), 0.35, 0.72
_LEVEL = 0.5


def gallery(measured: Measured, most: int, explain: Explain | None = None, progress: bool | None = None) -> Gallery:
    """Chooses and draws the pictures that the model was wrong and sure about, and those it was least sure about.

    Args:
        measured: predictions of labelled images.
        most: of each kind.
        explain: computes what is drawn instead of the saliency.
        progress: show a bar; by default where the standard error is a terminal.
    """
    wrong, confidence = measured.wrong, _confidence(measured)
    errors = [row for row in np.argsort(-confidence, kind="stable").tolist() if wrong[row]][:most]
    order = torch.argsort(measured.prediction.uncertainty, descending=True, stable=True).tolist()
    uncertain = [row for row in order if row not in set(errors)][:most]
    chosen = [_described(measured, row, float(confidence[row])) for row in (*errors, *uncertain)]
    maps, title = _maps(measured, chosen, explain)
    found = []
    with progress_bar(len(chosen), "pictures", "img", progress) as bar:
        for shown, saliency in zip(chosen, maps, strict=True):
            found.append(_drawn(measured, shown, saliency))
            bar.update()
    return Gallery(int(wrong.sum()), tuple(found[: len(errors)]), tuple(found[len(errors) :]), title)


def _maps(measured: Measured, chosen: list[Shown], explain: Explain | None) -> tuple[Sequence[Tensor], str]:
    """Returns what is drawn on each picture, and what it is called."""
    if explain is None or not chosen:
        return [class_saliency(measured.prediction, shown.row, shown.looked_for) for shown in chosen], "saliency"
    items = [measured.prediction.items[shown.row] for shown in chosen]
    found = explain(items, [shown.looked_for for shown in chosen])
    return list(found.maps), found.title


def _confidence(measured: Measured) -> np.ndarray:
    """Returns how sure the model was of its most confident wrong statement, (N,); of the prediction where all is right.

    One label: the probability of the label that it gives. Several: the largest |p - truth| of a label that is decided
    wrongly.
    """
    scored = measured.scored
    if scored.task == "multiclass":
        found: np.ndarray = (scored.probs * scored.decisions).sum(1)
        return found
    gaps = np.abs(scored.probs - scored.truth)
    mistakes = np.where(scored.decisions != scored.truth, gaps, 0).max(1)
    return np.where(mistakes > 0, mistakes, 1 - gaps.max(1))


def _described(measured: Measured, row: int, confidence: float) -> Shown:
    prediction, names = measured.prediction, measured.labelled.class_names
    predicted = tuple(name for name, given in zip(names, measured.scored.decisions[row], strict=True) if given)
    top = tuple(prediction[row].top(_TOP)[0])
    far, sets = prediction.ood_score, prediction[row].shown_sets
    return Shown(
        row=row,
        name=measured.names[row],
        truth=measured.labelled.labels[row],
        predicted=predicted,
        top=top,
        confidence=confidence,
        uncertainty=float(prediction.uncertainty[row]),
        ood_score=None if far is None else float(far[row]),
        possible=() if sets is None else tuple(sets[0]),
        looked_for=top[0][0],
    )


def _drawn(measured: Measured, shown: Shown, saliency: Tensor) -> Shown:
    """Adds the JPEGs; a picture that cannot be read any more stays without them."""
    prediction, row = measured.prediction, shown.row
    try:
        picture = read_image(prediction.items[row], min_side=SIDE)
    except ImageError:
        return shown
    height, width = picture.shape[-2:]
    scale = min(1.0, SIDE / max(height, width))
    small = _small(picture, (max(1, round(width * scale)), max(1, round(height * scale))))
    square = [side * scale for side in square_extent((height, width), prediction.config)]
    boxes = square_to_original_box(prediction.rois[row], (height, width), prediction.config)
    attention = prediction.roi_attention[row]
    marked = _marked(small, saliency, square)
    _draw_boxes(marked, boxes * scale, attention)
    size = prediction.sizes[row] if prediction.sizes else (height, width)
    own = square_to_original_box(prediction.rois[row], size, prediction.config)
    rois = tuple(tuple(round(side, 1) for side in box) for box in own.tolist())
    shares = tuple(round(share, 4) for share in attention.tolist())
    return replace(shown, rois=rois, roi_attention=shares, drawn=_jpeg(small), marked=_jpeg(marked))


def small_jpeg(item: Item, side: int) -> bytes:
    """Returns a picture as a JPEG whose longer side has at most so many pixels; b"" for one that cannot be read."""
    try:
        picture = read_image(item, min_side=side)
    except ImageError:
        return b""
    height, width = picture.shape[-2:]
    scale = min(1.0, side / max(height, width))
    return _jpeg(_small(picture, (max(1, round(width * scale)), max(1, round(height * scale)))))


def _small(picture: Tensor, size: tuple[int, int]) -> Image.Image:
    values = picture if picture.dtype == torch.uint8 else (picture.clamp(0, 1) * 255).round().byte()
    return Image.fromarray(values.permute(1, 2, 0).numpy()).resize(size, Image.Resampling.LANCZOS)


def _marked(small: Image.Image, saliency: Tensor, square: list[float]) -> Image.Image:
    """Returns a picture with a wash where the saliency is high, a line at `_LEVEL`, and pale where nobody looked."""
    left, top, right, bottom = (round(side) for side in square)
    across, down = max(1, right - left), max(1, bottom - top)
    smooth = F.interpolate(saliency.float()[None, None], size=(down, across), mode="bilinear", align_corners=False)
    values, seen = np.zeros((small.height, small.width)), np.zeros((small.height, small.width), dtype=bool)
    rows, columns = slice(max(0, top), min(small.height, bottom)), slice(max(0, left), min(small.width, right))
    inside = smooth[0, 0].clamp(0, 1).numpy()
    values[rows, columns] = inside[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    seen[rows, columns] = True
    pixels = np.asarray(small).astype(np.float64)
    pixels = _mixed(pixels, _COLOUR, (_WASH * values)[..., None])
    pixels = np.where(seen[..., None], pixels, _mixed(pixels, (255, 255, 255), np.array(_VEIL)))
    pixels[_edge(values >= _LEVEL)] = _COLOUR
    return Image.fromarray(pixels.round().astype(np.uint8))


def _mixed(pixels: np.ndarray, colour: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = pixels * (1 - share) + np.array(colour) * share
    return mixed


def _edge(inside: np.ndarray) -> np.ndarray:
    """Returns the pixels of a region that touch its outside; the picture's own edge is none."""
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: np.ndarray = inside & ~core
    return edge


def _draw_boxes(picture: Image.Image, boxes: Tensor, attention: Tensor) -> None:
    """Draws the ROIs, numbered by attention."""
    draw = ImageDraw.Draw(picture)
    order = attention.argsort(descending=True, stable=True).tolist()
    for rank, roi in reversed(list(enumerate(order, start=1))):
        left, top, right, bottom = (round(side) for side in boxes[roi].tolist())
        if right <= left or bottom <= top:
            continue  # all of it lies in the border around the picture
        box = (left, top, max(left, right - 1), max(top, bottom - 1))
        draw.rectangle(box, outline="black", width=3)
        draw.rectangle(box, outline="white", width=1)
        draw.text((left + 4, top + 3), str(rank), fill="white", stroke_width=2, stroke_fill="black", font_size=14)


def _jpeg(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
