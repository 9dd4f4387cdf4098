"""A `Prediction` as JSON-ready records, rows of a table, and the small page that notebooks show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.preprocessing import square_to_original_box

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction

#: Images and classes that a notebook shows.
_ROWS, _CLASSES = 20, 3


def original_boxes(prediction: Prediction, row: int) -> Tensor:
    """Returns the ROIs of one image, (K, 4) left, top, right, bottom in pixels of the upright picture.

    Raises:
        ValueError: the sizes of the pictures are not known.
    """
    if not prediction.sizes:
        raise InvalidValueError("the sizes of the pictures are not known; model.predict notes them")
    return square_to_original_box(prediction.rois[row], prediction.sizes[row], prediction.config)


def record_of(prediction: Prediction, row: int, label: Any, limits: dict[str, Any]) -> dict[str, Any]:
    """Returns what `Prediction.to_dict` says of one image."""
    names = prediction.class_names
    attention = prediction.roi_attention[row].tolist()
    boxes = [
        {"box": box, "attention": value} for box, value in zip(prediction.rois[row].tolist(), attention, strict=True)
    ]
    size = None
    if prediction.sizes:
        size = dict(zip(("height", "width"), prediction.sizes[row], strict=True))
        original = original_boxes(prediction, row).tolist()
        boxes = [{**box, "box_original": mapped} for box, mapped in zip(boxes, original, strict=True)]
    return {
        "name": prediction.names[row],
        "label" if prediction.config.task == "multiclass" else "labels": label,
        "uncertainty": prediction.uncertainty[row].item(),
        **limits,
        "probs": dict(zip(names, prediction.probs[row].tolist(), strict=True)),
        "scores": dict(zip(names, prediction.scores[row].tolist(), strict=True)),
        "spread": None if prediction.spread is None else dict(zip(names, prediction.spread[row].tolist(), strict=True)),
        "global_logits": dict(zip(names, prediction.global_logits[row].tolist(), strict=True)),
        "local_logits": dict(zip(names, prediction.local_logits[row].tolist(), strict=True)),
        "feature_logits": dict(zip(names, prediction.feature_logits[row].tolist(), strict=False)),
        "dcg_logits": dict(zip(names, prediction.dcg_logits[row].tolist(), strict=True)),
        "size": size,
        "rois": boxes,
    }


def table_rows(prediction: Prediction, rois: bool = False) -> list[list[Any]]:
    """Returns a row per image in the order of `inference.table.table_columns`; several labels are joined by "|"."""
    labels = [label if isinstance(label, str) else "|".join(label) for label in prediction.labels]
    limits = prediction.limit_rows()
    columns = zip(prediction.names, labels, prediction.uncertainty.tolist(), limits, prediction.probs, strict=True)
    rows = [[name, label, uncertainty, *known, *probs.tolist()] for name, label, uncertainty, known, probs in columns]
    if not rois:
        return rows
    return [[*cells, *_roi_cells(prediction, row)] for row, cells in enumerate(rows)]


def _roi_cells(prediction: Prediction, row: int) -> list[Any]:
    boxes, attention = original_boxes(prediction, row).tolist(), prediction.roi_attention[row].tolist()
    numbers = [number for box, value in zip(boxes, attention, strict=True) for number in (*box, value)]
    return [*prediction.sizes[row], *numbers]


def html_of(prediction: Prediction) -> str:
    """Returns a table of the first images for notebooks: HTML without scripts, styles or anything from elsewhere."""
    several, thresholds = prediction.config.task == "multilabel", prediction.thresholds
    head = ["image", "labels" if several else "prediction", f"most probable {_CLASSES}", "uncertainty"]
    rows = [_html_row(prediction, row, label) for row, label in enumerate(prediction[:_ROWS].labels)]
    notes = [] if prediction.calibrated else ["probabilities are not calibrated"]
    notes += [] if prediction.trained else ["the model is not trained"]
    notes += [f"labels from their thresholds on: {_numbers(thresholds)}"] if thresholds else []
    notes += [f"labels by log probability + {_numbers(offsets)}"] if (offsets := prediction.label_adjustment) else []
    notes += [f"{len(prediction.errors)} images could not be read"] if prediction.errors else []
    more = f", the first {_ROWS} of them" if len(prediction) > _ROWS else ""
    caption = "; ".join([f"{len(prediction)} images{more}", *notes, "not for clinical use"])
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    return (
        f"<table><caption>{_text(caption)}</caption><thead><tr>{cells}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _html_row(prediction: Prediction, row: int, label: str | Sequence[str]) -> str:
    name = prediction.names[row]
    given = [label] if isinstance(label, str) else label
    words = [f"{each} ({prediction.class_labels[each]})" if each in prediction.class_labels else each for each in given]
    shown = ", ".join(words) or "none above its threshold"
    values, order = prediction.probs[row].sort(descending=True, stable=True)
    pairs = zip(order.tolist(), values.tolist(), strict=True)
    ranked = [f"{prediction.class_names[index]} {value:.3f}" for index, value in list(pairs)[:_CLASSES]]
    cells = [shown, ", ".join(ranked), f"{prediction.uncertainty[row].item():.3f}"]
    first = f'<td title="{_text(name)}">{_text(os.path.basename(name) or name)}</td>'
    if prediction.ood_score is not None and prediction.ood_score[row] > 1:
        cells[0] += " (unlike the training pictures)"
    return f"<tr>{first}{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>"


def _numbers(thresholds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in thresholds.items())


def _text(text: str) -> str:
    """Returns text for a page: escaped, and without the signs of names that are not UTF-8."""
    return escape(text.encode("utf-8", "replace").decode("utf-8"))
