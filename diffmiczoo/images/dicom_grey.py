"""Stored grey values of DICOM → uint8 grey as a viewer shows it first: rescale, window or table, negative, padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from diffmiczoo.images.dicom_layout import Layout, number, whole
from diffmiczoo.images.dicom_tables import table_in
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.pixels import grey_range, stretch

if TYPE_CHECKING:
    from pydicom import Dataset


def grey_as_shown(name: str, stored: np.ndarray, header: Dataset, layout: Layout) -> np.ndarray:
    """Turns stored values (H, W) into uint8.

    Raises:
        ImageError: a picture without window holds NaN or infinity.
    """
    padding = _padding(stored, header)
    shown = _windowed(name, stored, padding, header, layout)
    # The shape repeats what MONOCHROME1 says, and is all there is where a negative is called MONOCHROME2.
    shape = str(header.get("PresentationLUTShape") or "").strip().upper()
    if layout.photometric == "MONOCHROME1" or shape == "INVERSE":
        shown = 255 - shown
    shown[padding] = 0
    return shown


def _windowed(name: str, stored: np.ndarray, padding: np.ndarray, header: Dataset, layout: Layout) -> np.ndarray:
    values = _rescaled(stored, header, layout)
    table = table_in(header, "VOILUTSequence", values.dtype.kind != "u")
    if table is not None:
        return stretch(table.look_up(values), 0, table.white)
    inside = values[~padding]
    for center, width in _windows(header):
        scaled = _scaled(values, center, width, _function(header))
        seen = scaled[~padding]
        # A window that leaves nothing to see was meant for other values.
        if seen.size and (seen.min() < seen.max() or inside.min() == inside.max()):
            return stretch(scaled, 0.0, 1.0)
    if values is stored and layout.stored <= 8 and stored.dtype.kind == "u":
        return stretch(stored, 0, 2**layout.stored - 1)
    if not np.isfinite(inside).all():
        raise ImageError(name, "holds NaN or infinity; expected finite pixel data, replace them first")
    if not inside.size:
        return np.zeros(values.shape, np.uint8)
    if inside.dtype.kind != "f" and inside.min() >= 0:
        # As int64: full scale may lie outside of the type.
        return stretch(values.astype(np.int64), *grey_range(inside.astype(np.int64)))
    return stretch(values, inside.min(), inside.max())


def _rescaled(stored: np.ndarray, header: Dataset, layout: Layout) -> np.ndarray:
    """Applies the modality table, or slope and intercept; returns `stored` itself where they change nothing."""
    table = table_in(header, "ModalityLUTSequence", layout.signed)
    if table is not None:
        return table.look_up(stored)
    slope, intercept = number(header, "RescaleSlope") or 1.0, number(header, "RescaleIntercept") or 0.0
    if (slope, intercept) == (1, 0):
        return stored
    return stored * slope + intercept


def _windows(header: Dataset) -> list[tuple[float, float]]:
    """Returns the centers and widths that can be used, in the file's order."""
    pairs = [(number(header, "WindowCenter", place), number(header, "WindowWidth", place)) for place in range(8)]
    return [(center, width) for center, width in pairs if center is not None and width is not None and width > 0]


def _function(header: Dataset) -> str:
    found = str(header.get("VOILUTFunction") or "").strip().upper()
    return found if found in ("LINEAR_EXACT", "SIGMOID") else "LINEAR"


def _scaled(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """Maps a window to 0..1 as DICOM PS3.3, C.11.2.1 defines it; a linear one below a width of 1 as LINEAR_EXACT."""
    values = values.astype(np.float64)
    if function == "SIGMOID":
        with np.errstate(over="ignore"):
            sigmoid: np.ndarray = 1 / (1 + np.exp(-4 * (values - center) / width))
        return sigmoid
    if function == "LINEAR" and width >= 1:
        center, width = center - 0.5, width - 1
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0, 1)


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Returns where (H, W) the scanner saw nothing; stored values equal to PixelPaddingValue or in its range."""
    first, last = whole(header, "PixelPaddingValue"), whole(header, "PixelPaddingRangeLimit")
    if first is None or stored.dtype.kind == "f":
        return np.zeros(stored.shape, bool)
    # Files often give the number with the wrong sign; as bits it is the same.
    ends = np.array([first, first if last is None else last]).astype(stored.dtype)
    inside: np.ndarray = (stored >= ends.min()) & (stored <= ends.max())
    return inside
