"""DICOM files → (C, H, W) arrays by pydicom's own pixel functions; pydicom is imported when a DICOM file is read."""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffmiczoo.images import pixels
from diffmiczoo.images.items import ImageError, one_line, reading_errors
from diffmiczoo.images.pixels import Planes, check_size, stretch

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# Only these are read: other elements may be huge or broken, and the image does not need them.
_KEYWORDS = (
    "Modality SamplesPerPixel PhotometricInterpretation Rows Columns NumberOfFrames BitsAllocated BitsStored "
    "PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept ModalityLUTSequence "
    "WindowCenter WindowWidth VOILUTFunction VOILUTSequence PixelPresentation "
    "RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor "
    "RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData "
    "SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData "
    "SegmentedBluePaletteColorLookupTableData"
).split()


def read_planes(name: str, file: BinaryIO) -> Planes:
    """Reads the first frame of a DICOM file.

    Args:
        name: the image's, for errors.
        file: open for reading, at any position.

    Returns:
        (C, H, W), uint8 with C = 1 or 3, or more bits where the colours have them; the number of frames.

    Raises:
        ImageError: pydicom is missing or too old, or the file is broken or has no image, too large a one or one of a
            kind that is not read.
    """
    try:
        import pydicom.pixels  # noqa: F401 - came with 3.0, as other things that are used below
    except ImportError as error:
        reason = 'is a DICOM file, which needs pydicom 3.0 or newer: pip install "diffmiczoo[dicom]"'
        raise ImageError(name, reason) from error
    # pydicom decodes an element of the header when it is asked for, so any line below may meet a broken file.
    with reading_errors(name):
        return _planes(name, file)


def _planes(name: str, file: BinaryIO) -> Planes:
    header = _header(name, file)
    frames = int(header.get("NumberOfFrames") or 1)
    stored = _first_frame(name, file, header)
    kind = header.PhotometricInterpretation
    if kind in _COLOUR:
        return Planes(stored.transpose(2, 0, 1), frames)
    if kind == "PALETTE COLOR":
        return Planes(_palette_colours(name, stored, header).transpose(2, 0, 1), frames)
    return Planes(_grey_as_shown(name, stored, header)[None], frames)


def _header(name: str, file: BinaryIO) -> Dataset:
    """Reads what precedes the pixels, and refuses what should not or cannot be decoded."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    _check_inflated_size(name, file)
    file.seek(0)
    try:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_KEYWORDS), force=True)
    except InvalidDicomError as error:
        raise ImageError(name, "has no DICOM header; expected a DICOM part 10 file, export it again") from error
    if not header.get("Rows") or not header.get("Columns"):
        kind = header.get("Modality") or "unknown"
        raise ImageError(name, f"has no pixel data (its modality is {kind}); expected a DICOM image")
    kind, samples = header.get("PhotometricInterpretation"), int(header.get("SamplesPerPixel") or 1)
    if kind not in (*_GREY, *_COLOUR, "PALETTE COLOR") or samples != (3 if kind in _COLOUR else 1):
        raise ImageError(
            name,
            f"has photometric interpretation {kind!r} with {samples} samples per pixel; expected MONOCHROME1, "
            "MONOCHROME2, RGB, YBR or PALETTE COLOR, convert it first",
        )
    check_size(name, int(header.Rows), int(header.Columns), samples)
    return header


def _check_inflated_size(name: str, file: BinaryIO) -> None:
    """Refuses deflated files that would fill the memory: pydicom inflates them as a whole, a thousandfold at worst."""
    from pydicom.filereader import read_file_meta_info

    if not _has_preamble(file):
        return
    meta = read_file_meta_info(file.name)
    if meta.get("TransferSyntaxUID") != _DEFLATED:
        return
    file.seek(144 + int(meta["FileMetaInformationGroupLength"].value))
    inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while chunk := file.read(2**16):
        size += len(inflater.decompress(chunk))
        if size > 2 * pixels.MAX_PIXELS:
            raise ImageError(name, f"inflates to over {2 * pixels.MAX_PIXELS:,} bytes; expected less, make it smaller")


def _has_preamble(file: BinaryIO) -> bool:
    file.seek(128)
    return file.read(4) == b"DICM"


def _first_frame(name: str, file: BinaryIO, header: Dataset) -> np.ndarray:
    """Decodes one frame to (H, W) or (H, W, 3), YBR as RGB; the others are not even read where the file allows it."""
    import pydicom
    from pydicom.pixels.utils import pixel_array

    _check_encoded_size(name, file, header)
    file.seek(0)
    # pixel_array does not inflate what it reads from a file.
    source: Any = pydicom.dcmread(file) if header.file_meta.TransferSyntaxUID == _DEFLATED else file
    try:
        return pixel_array(source, index=0)
    except (RuntimeError, NotImplementedError) as error:
        encoding = header.file_meta.TransferSyntaxUID.name
        raise ImageError(
            name,
            f"is encoded as {encoding}, which the installed decoders cannot read; if the file is whole: "
            f"pip install pylibjpeg pylibjpeg-libjpeg, or save it uncompressed ({one_line(error)})",
        ) from error


def _check_encoded_size(name: str, file: BinaryIO, header: Dataset) -> None:
    """Refuses a frame whose own JPEG or JPEG 2000 header claims more pixels than the DICOM header does."""
    from pydicom.encaps import get_frame

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or "JPEG" not in syntax.name:
        return
    # The header was read up to the pixel element: a tag, its type and a length of 12 bytes, then the fragments.
    file.seek(12, 1)
    frame = get_frame(file, 0, number_of_frames=int(header.get("NumberOfFrames") or 1))
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            check_size(name, image.height, image.width)
    except UnidentifiedImageError:
        return  # JPEG-LS and the like, which Pillow will not decode either


def _palette_colours(name: str, stored: np.ndarray, header: Dataset) -> np.ndarray:
    from pydicom.pixels.processing import apply_color_lut

    entries, first, bits = header.RedPaletteColorLookupTableDescriptor
    # pydicom 3.0 looks up in the type of the colours, so a number above 255 would wrap around.
    if (entries or 2**16) > 256 and bits == 8:
        raise ImageError(
            name, f"has a palette of {entries} 8-bit colours; expected at most 256, convert it to RGB first"
        )
    stored = np.clip(stored.astype(np.int64), first, first + (entries or 2**16) - 1)
    return apply_color_lut(stored, header)[..., :3]


def _grey_as_shown(name: str, stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Turns stored values (H, W) into the uint8 grey that a viewer shows first."""
    padding = _padding(stored, header)
    shown = _windowed(name, stored, padding, header)
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    shown[padding] = 0
    return shown


def _windowed(name: str, stored: np.ndarray, padding: np.ndarray, header: Dataset) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut, apply_windowing

    values = apply_modality_lut(stored, header)
    if header.get("VOILUTSequence"):
        return _by_voi_table(values, header)
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        # What the window makes of the extremes tells which range it maps to.
        low, high = apply_windowing(np.array([-1e15, 1e15]), header)
        return stretch(apply_windowing(values, header), low, high)
    if values is stored and header.BitsStored <= 8 and stored.dtype.kind == "u":
        return stretch(stored, stored.dtype.type(0), stored.dtype.type(2**header.BitsStored - 1))
    inside = values[~padding]
    if not np.isfinite(inside).all():
        raise ImageError(name, "holds NaN or infinity; expected finite pixel data, replace them first")
    return stretch(values, inside.min(), inside.max()) if inside.size else np.zeros(values.shape, np.uint8)


def _by_voi_table(values: np.ndarray, header: Dataset) -> np.ndarray:
    from pydicom.pixels.processing import apply_voi

    table = header.VOILUTSequence[0]
    entries, first, bits = table.LUTDescriptor
    # pydicom 3.0 looks up in the type of the results, so a number above 255 would wrap around: ask for 16 bits.
    table.LUTDescriptor = [entries, first, 16]
    places = np.clip(np.rint(values).astype(np.int64), first, first + (entries or 2**16) - 1)
    return stretch(apply_voi(places, header), np.uint16(0), np.uint16(2**bits - 1))


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Returns where (H, W) the scanner saw nothing; stored values equal to PixelPaddingValue or in its range."""
    first = header.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(stored.shape, bool)
    last = header.get("PixelPaddingRangeLimit")
    # Files often give the number with the wrong sign; as bits it is the same.
    ends = np.array([first, last if isinstance(last, int) else first]).astype(stored.dtype)
    inside: np.ndarray = (stored >= ends.min()) & (stored <= ends.max())
    return inside
