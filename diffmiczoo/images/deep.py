"""Colours of 16 bits, which Pillow cuts to their upper 8, from PNG and TIFF files that are open but not decoded yet."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image

_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def lower_half(image: Any) -> Image.Image | None:
    """Returns an image of the lower 8 bits of each value where colours have 16 bits; None for any other image.

    Pillow decodes them by a raw mode such as "RGB;16B", which keeps the first byte of two that have the higher one
    first. The same data read by the raw mode of the other byte order give the lower bytes. The image itself is left
    as it was and can be decoded afterwards.
    """
    if image.format not in ("PNG", "TIFF") or not getattr(image, "tile", None) or image.fp is None:
        return None
    mode = _raw_mode(image.tile[0].args)
    if not mode.startswith(("LA;16", "RGB;16", "RGBX;16", "RGBA;16")) or (image.format == "PNG" and image.tell()):
        return None
    file, place = image.fp, image.fp.tell()
    try:
        file.seek(0)
        copy = Image.open(file, formats=[image.format])
        copy.seek(image.tell())
        copy.tile = [tile._replace(args=_for_lower_half(tile.args)) for tile in copy.tile]
        copy.load()
    finally:
        file.seek(place)
    # Grey with transparency was read as four colours: its two bytes, and the two of the transparency.
    return copy.getchannel("G") if mode.startswith("LA") else copy


def joined(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Puts the halves of colours, (H, W, 3) and (H, W, C) or grey (H, W), together to (H, W, 3) uint16."""
    lower = lower[..., None] if lower.ndim == 2 else lower[..., :3]
    return upper.astype(np.uint16) << 8 | lower


def _raw_mode(arguments: Any) -> str:
    found = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return found if isinstance(found, str) else ""


def _for_lower_half(arguments: Any) -> Any:
    mode = _raw_mode(arguments)
    other = "RGBA" if mode.startswith("LA") else mode[:-1] + _SWAPPED[mode[-1]]
    return other if isinstance(arguments, str) else (other, *arguments[1:])
