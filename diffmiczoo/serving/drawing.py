"""A picture with where the model looked, as a PNG file for a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from diffmiczoo.errors import MissingExtraError

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction

#: Longer side in pixels: sharp on a phone, and still quick to draw.
_SIDE = 720


def drawing_of(prediction: Prediction, row: int) -> bytes:
    """Draws saliency and ROIs on a picture of a prediction.

    Returns:
        The content of a PNG file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from diffmiczoo.inference.overlay import overlay_of
        from diffmiczoo.inference.overlay_pictures import draw_marked
    except ImportError as error:
        raise MissingExtraError('the page needs matplotlib: pip install "diffmiczoo[demo]"') from error
    from diffmiczoo.images.reading import DRAWN
    from diffmiczoo.runtime.text import drawn_as_written

    overlay, buffer = overlay_of(prediction, row, prediction.items[row], True), io.BytesIO()
    with drawn_as_written():
        figure = draw_marked(overlay.picture, overlay.marks, _SIDE)
        figure.savefig(buffer, format="png", metadata=DRAWN, pil_kwargs={"compress_level": 3})
    return buffer.getvalue()
