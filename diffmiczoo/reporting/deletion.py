"""Deletion and insertion: does a map lie where the model looks? Take away what it marks, and see what is left.

Petsiuk, Das, Saenko: *RISE*, BMVC 2018, section 4.2. Deletion replaces pixels by the image's mean colour, the highest
of the map first, and insertion puts them back onto a blurred image. The area under the curve of the class's probability
over the share of pixels is low for deletion and high for insertion where the map is right. A map drawn at random is
what any other has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images.items import as_items
from diffmiczoo.images.preprocessing import read_square
from diffmiczoo.inference.explanation import Explanation
from diffmiczoo.metrics.bootstrap import Resampling
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.gradcam import METHODS, explain, methods_of
from diffmiczoo.runtime.progress import progress_bar

RANDOM = "random"

#: Sides of the cells of a random map, as many as the saliency map of a small model has.
_CELLS = 6

#: Blur of what insertion begins with, as a share of the side.
_BLUR = 1 / 16

#: Resamples of the intervals.
_RESAMPLES = 1000


@dataclass(frozen=True)
class MapScore:
    """How well the maps of a method tell where a model looks, as means over images.

    Attributes:
        method: a name of `METHODS`, or "random".
        title: what it is called in a table.
        deletion: area under the curve, in [0, 1]; lower is better.
        insertion: the same; higher is better.
        gain: insertion - deletion, less that of the random maps.
        interval: 95 % interval of the gain over the images.
    """

    method: str
    title: str
    deletion: float
    insertion: float
    gain: float
    interval: tuple[float, float]


def compare_maps(
    model: DiffMICv2,
    images: Any,
    methods: Sequence[str] | None = None,
    classes: str | Sequence[str] | None = None,
    *,
    steps: int = 16,
    seed: int = 0,
    progress: bool | None = None,
) -> tuple[MapScore, ...]:
    """Scores methods by deletion and insertion, random maps first.

    Args:
        model: whose answers are explained.
        images: as `DiffMICv2.predict` takes them.
        methods: names of `METHODS`; by default those that the model has the networks for.
        classes: as for `explain`.
        steps: parts in which pixels are taken away or put back.
        seed: of the random maps.
        progress: show bars; by default where the standard error is a terminal.

    Raises:
        ValueError, TypeError, ImageError: as `explain` does.
    """
    items = as_items(images)
    if isinstance(methods, str):
        raise InvalidTypeError(f"methods={methods!r} is one text; expected a list of names")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InvalidValueError(f"steps={steps!r} must be a whole number of at least 1")
    squares = torch.stack([_as_bytes(read_square(item, model.config)) for item in items])
    chosen = methods_of(model) if methods is None else tuple(methods)
    found = [explain(model, items, method, classes, progress=progress) for method in chosen]
    maps = {RANDOM: random_maps(len(items), model.config.input_size, seed)} | {each.method: each.maps for each in found}
    named = found[0].classes if found else explain(model, items, "saliency", classes, progress=progress).classes
    numbers = [model.config.labels.index(name) for name in named]
    areas = {}
    with progress_bar(len(maps) * len(items), "delete and insert", "img", progress) as bar:
        for method, each in maps.items():
            rows = []
            for row, number in enumerate(numbers):
                rows.append(areas_of(model, squares[row], each[row], number, steps))
                bar.update(1)
            areas[method] = np.array(rows)
    gaps = {method: each[:, 1] - each[:, 0] for method, each in areas.items()}
    return tuple(_score(method, each, gaps[method] - gaps[RANDOM], seed) for method, each in areas.items())


def areas_of(model: DiffMICv2, square: Tensor, saliency: Tensor, number: int, steps: int) -> tuple[float, float]:
    """Returns the areas under the deletion and the insertion curve of one image.

    Args:
        model: predicts the probability of the class.
        square: (3, S, S) uint8, as the model sees it.
        saliency: (S, S); pixels with higher values go first, equal ones in the order of the rows.
        number: of the class.
        steps: parts in which pixels are taken away or put back.
    """
    deleted, inserted = masked_versions(square, saliency, steps)
    versions = [each.permute(1, 2, 0).numpy() for each in (*deleted, *inserted)]
    probs = model.predict(versions, batch_size=len(versions), progress=False).probs[:, number].double()
    areas = torch.trapezoid(probs.unflatten(0, (2, -1)), dx=1 / steps)
    return float(areas[0]), float(areas[1])


def masked_versions(square: Tensor, saliency: Tensor, steps: int) -> tuple[list[Tensor], list[Tensor]]:
    """Returns an image with ever more pixels taken away, and one with ever more put back, `steps` + 1 of each.

    Args:
        square: (3, S, S) uint8.
        saliency: (S, S).
        steps: parts.
    """
    side = square.shape[-1]
    order = saliency.flatten().argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    mean = square.float().mean((1, 2), keepdim=True).round().to(torch.uint8).expand_as(square)
    sigma = max(side * _BLUR, 0.5)
    blurred = TF.gaussian_blur(square, [2 * round(2 * sigma) + 1] * 2, [sigma])
    deleted, inserted = [], []
    for step in range(steps + 1):
        first = (rank < round(step * len(order) / steps)).view(side, side)
        deleted.append(torch.where(first, mean, square))
        inserted.append(torch.where(first, square, blurred))
    return deleted, inserted


def random_maps(count: int, size: int, seed: int) -> Tensor:
    """Returns maps (count, S, S) in [0, 1] as smooth as those of an encoder, of numbers drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    cells = torch.rand(count, 1, _CELLS, _CELLS, generator=generator)
    return torch.nn.functional.interpolate(cells, (size, size), mode="bilinear", align_corners=False)[:, 0]


def pointing_accuracy(explanation: Explanation, boxes: Tensor) -> float:
    """Returns the share of images whose map is highest within a box (Zhang et al., *Top-down Neural Attention*, 2016).

    Args:
        explanation: of B images; a map that is the same everywhere points nowhere and counts as a miss.
        boxes: (B, 4) left, top, right, bottom in pixels of the square; right and bottom are exclusive.

    Raises:
        ValueError: there is not one box for each image.
    """
    boxes = torch.as_tensor(boxes)
    if boxes.shape != (len(explanation.maps), 4):
        raise InvalidValueError(f"boxes has shape {tuple(boxes.shape)}; expected ({len(explanation.maps)}, 4)")
    maps = explanation.maps.flatten(1)
    rows, columns = (part(maps.argmax(1), explanation.maps.shape[-1]) for part in (torch.div, torch.remainder))
    rows = rows.floor()
    left, top, right, bottom = boxes.unbind(1)
    hit = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom) & (maps.amax(1) > maps.amin(1))
    return float(hit.float().mean())


def _as_bytes(square: Tensor) -> Tensor:
    return square if square.dtype == torch.uint8 else (square * 255).round().to(torch.uint8)


def _score(method: str, areas: np.ndarray, gains: np.ndarray, seed: int) -> MapScore:
    resampling = Resampling(np.arange(len(gains)), _RESAMPLES, seed)
    means = np.concatenate([gains @ weights / len(gains) for weights in resampling.weights()])
    low, high = np.percentile(means, (2.5, 97.5))
    title = METHODS[method].title if method in METHODS else method
    deletion, insertion = areas.mean(0)
    return MapScore(method, title, float(deletion), float(insertion), float(gains.mean()), (float(low), float(high)))
