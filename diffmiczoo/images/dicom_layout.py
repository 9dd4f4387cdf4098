"""How a DICOM file stores its pixels; what headers leave out or get wrong in ways that every viewer forgives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffmiczoo.images.items import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
PALETTE = "PALETTE COLOR"


@dataclass(frozen=True)
class Element:
    """The element that holds the pixels: its keyword, its type, and its length in bytes, None where it is undefined."""

    keyword: str
    vr: str
    length: int | None


@dataclass(frozen=True)
class Layout:
    """How the pixels are stored.

    Args:
        rows: height.
        columns: width.
        samples: per pixel, 1 or 3.
        photometric: one of GREY, COLOUR and PALETTE.
        planar: colours lie plane by plane.
        allocated: bits per sample in the file.
        stored: bits of them that are used.
        unused: bits below them that are not; 0 in most files, 4 where 12 bits lie at the upper end of 16.
        signed: numbers may be negative.
        frames: how many there are.
        floats: numbers are floats.
    """

    rows: int
    columns: int
    samples: int
    photometric: str
    planar: bool
    allocated: int
    stored: int
    unused: int
    signed: bool
    frames: int
    floats: bool

    @property
    def frame_bytes(self) -> int:
        """Of one frame that is not compressed."""
        numbers = self.rows * self.columns * self.samples
        if self.photometric == "YBR_FULL_422":
            numbers = numbers * 2 // 3
        return -(-numbers * self.allocated // 8)


# What enhanced objects say of each frame in sequences of their own, instead of once in the header.
_OF_FRAMES = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}


def take_from_first_frame(header: Dataset) -> None:
    """Puts the window and the slope of the first frame of an enhanced object where other objects have them."""
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for sequence, keywords in _OF_FRAMES.items():
            found = header[groups].value[0].get(sequence) if header.get(groups) else None
            for keyword in keywords:
                if found and keyword in found[0]:
                    header[keyword] = found[0][keyword]


def whole(header: Dataset, keyword: str) -> int | None:
    """Returns the first number of an element; None where it is missing, empty or none."""
    value = number(header, keyword)
    return None if value is None else int(value)


def number(header: Dataset, keyword: str, place: int = 0) -> float | None:
    """Returns a number of an element; None where it is missing, empty, none or not finite."""
    try:
        value: Any = header.get(keyword)
        value = value if value is None or isinstance(value, str | int | float) else list(value)[place]
        found = float(value)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return found if np.isfinite(found) else None


def layout_of(name: str, header: Dataset, element: Element, compressed: bool) -> Layout:
    """Reads how the pixels are stored, with what is missing or cannot be meant put right.

    Args:
        name: the image's, for errors.
        header: what precedes the pixels.
        element: that holds them.
        compressed: each frame is a JPEG or the like, so that the length tells nothing.

    Raises:
        ImageError: they have another kind of colours, or a number of bits that DICOM does not know.
    """
    rows, columns = whole(header, "Rows") or 0, whole(header, "Columns") or 0
    frames = max(1, whole(header, "NumberOfFrames") or 1)
    length = None if compressed else element.length
    allocated = _allocated(name, header, element, length)
    fitting = length * 8 // (rows * columns * frames * allocated) if length else None
    photometric, samples = _colours(name, header, fitting)
    if photometric == "YBR_FULL_422" and fitting == 3:
        photometric = "YBR_FULL"
    stored = whole(header, "BitsStored") or allocated
    stored = stored if stored <= allocated else allocated
    high = whole(header, "HighBit")
    # HighBit below BitsStored - 1 is impossible; some scanners write the highest bit that a slice uses.
    high = high if high is not None and stored - 1 <= high < allocated else stored - 1
    return Layout(
        rows,
        columns,
        samples,
        photometric,
        samples > 1 and whole(header, "PlanarConfiguration") == 1,
        allocated,
        stored,
        0 if compressed else high + 1 - stored,
        whole(header, "PixelRepresentation") == 1,
        frames,
        element.keyword != "PixelData",
    )


def _allocated(name: str, header: Dataset, element: Element, length: int | None) -> int:
    floats = {"FloatPixelData": 32, "DoubleFloatPixelData": 64}.get(element.keyword)
    found = floats or whole(header, "BitsAllocated")
    if found is None:
        pixels = (whole(header, "Rows") or 1) * (whole(header, "Columns") or 1)
        pixels *= (whole(header, "SamplesPerPixel") or 1) * max(1, whole(header, "NumberOfFrames") or 1)
        found = 8 * (length // pixels) if length else 8 * -(-(whole(header, "BitsStored") or 8) // 8)
    if found not in (1, 8, 16, 32, 64):
        raise ImageError(name, f"has BitsAllocated {found}; expected 1, 8, 16, 32 or 64, convert it first")
    return found


def _colours(name: str, header: Dataset, fitting: int | None) -> tuple[str, int]:
    """Returns the photometric interpretation and the samples per pixel; the length of the pixels allows `fitting`."""
    found = str(header.get("PhotometricInterpretation") or "").strip().upper()
    samples = whole(header, "SamplesPerPixel")
    if samples is None:
        samples = 3 if found in COLOUR or (not found and fitting == 3) else 1
    photometric = found or ("RGB" if samples == 3 else "MONOCHROME2")
    # The two contradict each other: the length of the pixels decides, where it does.
    if photometric in GREY and samples == 3 and fitting == 3:
        photometric = "RGB"
    elif photometric in COLOUR and samples == 1 and fitting == 3:
        samples = 3
    if photometric not in (*GREY, *COLOUR, PALETTE) or samples != (3 if photometric in COLOUR else 1):
        raise ImageError(
            name,
            f"has photometric interpretation {photometric!r} with {samples} samples per pixel; expected MONOCHROME1, "
            "MONOCHROME2, RGB, YBR or PALETTE COLOR, convert it first",
        )
    return photometric, samples


def stored_values(frame: np.ndarray, layout: Layout) -> np.ndarray:
    """Moves values that lie in the upper bits of their words down; `frame` holds whole words.

    Words whose bits above are empty and whose bits below are not say that the header is wrong: they stay.
    """
    words = frame.view(f"u{frame.itemsize}")
    if layout.unused and (words & (2**layout.unused - 1)).any() and not (words >> layout.stored).any():
        moved = words << (layout.allocated - layout.stored)
    else:
        moved = words << (layout.allocated - layout.stored - layout.unused)
    kind = "i" if layout.signed else "u"
    shifted: np.ndarray = moved.view(f"{kind}{frame.itemsize}") >> (layout.allocated - layout.stored)
    return shifted
