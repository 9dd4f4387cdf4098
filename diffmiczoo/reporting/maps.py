"""All maps of one image side by side: the DCG's own saliency and Grad-CAM through each encoder (paper's fig. 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import as_items
from diffmiczoo.images.preprocessing import read_square
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.gradcam import explain, methods_of
from diffmiczoo.reporting.trajectories import new_figure
from diffmiczoo.runtime.text import plain_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Side of a panel in inches, and panels in a row.
_PANEL, _COLUMNS = 2.0, 4


def plot_maps(
    model: DiffMICv2, image: Any, methods: Sequence[str] | None = None, class_name: str | None = None
) -> Figure:
    """Draws an image as the model sees it, and once more with each map on it.

    Args:
        model: whose answer is explained.
        image: one image, as `DiffMICv2.predict` takes it.
        methods: names of `diffmiczoo.reporting.gradcam.METHODS`; by default those that the model has the networks for.
        class_name: what is explained; the most probable class by default.

    Raises:
        ValueError, TypeError: as `explain` does.
        ImageError: the image cannot be read.
        ImportError: matplotlib is not installed.
    """
    item = as_items(image)
    if len(item) != 1:
        raise InvalidValueError(f"plot_maps draws one image, found {len(item)}; call it for each")
    chosen = methods_of(model) if methods is None else tuple(methods)
    square = read_square(item[0], model.config).permute(1, 2, 0).numpy()
    found = []
    for method in chosen:
        found.append(explain(model, item, method, class_name, progress=False))
        class_name = found[0].classes[0]
    count = len(found) + 1
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = new_figure(_PANEL * columns, (_PANEL + 0.25) * rows)
    titles = [plain_text(class_name or "", 30), *(each.title for each in found)]
    for place, title in enumerate(titles):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(square, interpolation="bilinear")
        if place:
            values = found[place - 1].maps[0].numpy()
            axes.imshow(values, cmap="inferno", vmin=0, vmax=1, alpha=0.55, interpolation="bilinear")
        axes.set_title(title, fontsize=8)
        axes.axis("off")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.01, hspace=0.14, wspace=0.04)
    return figure
