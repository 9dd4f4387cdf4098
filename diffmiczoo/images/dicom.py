"""DICOM files → (C, H, W) arrays: the header, one decoded frame; pydicom is imported when a DICOM file is read."""

from __future__ import annotations

import zlib
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from diffmiczoo.images import pixels
from diffmiczoo.images.dicom_grey import grey_as_shown
from diffmiczoo.images.dicom_layout import (
    COLOUR,
    PALETTE,
    Element,
    Layout,
    layout_of,
    stored_values,
    take_from_first_frame,
    whole,
)
from diffmiczoo.images.dicom_tables import palette_colours
from diffmiczoo.images.items import ImageError, one_line, reading_errors
from diffmiczoo.images.pixels import Planes, check_size

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_PLAIN = "1.2.840.10008.1.2.1"
_RLE = "1.2.840.10008.1.2.5"
_EXTENDED = "1.2.840.10008.1.2.4.51"
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
# Only these are read: other elements may be huge or broken, and the image does not need them.
_KEYWORDS = (
    "SOPClassUID Modality SamplesPerPixel PhotometricInterpretation PlanarConfiguration Rows Columns NumberOfFrames "
    "BitsAllocated BitsStored HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit RescaleSlope "
    "RescaleIntercept ModalityLUTSequence WindowCenter WindowWidth VOILUTFunction VOILUTSequence "
    "PresentationLUTShape ExtendedOffsetTable ExtendedOffsetTableLengths PixelPresentation "
    "RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor "
    "BluePaletteColorLookupTableDescriptor RedPaletteColorLookupTableData GreenPaletteColorLookupTableData "
    "BluePaletteColorLookupTableData SegmentedRedPaletteColorLookupTableData "
    "SegmentedGreenPaletteColorLookupTableData SegmentedBluePaletteColorLookupTableData "
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"
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
    header, source = _header(name, file)
    element = _pixel_element(name, header, source)
    syntax = _put_syntax_right(name, header, element, source)
    layout = layout_of(name, header, element, bool(syntax.is_encapsulated))
    check_size(name, layout.rows, layout.columns, layout.samples)
    if syntax.is_encapsulated:
        layout = _as_encoded(name, source, layout, syntax)
    else:
        _check_length(name, source, element, layout)
    stored = _first_frame(name, source, header, element, layout)
    if layout.photometric in COLOUR:
        return Planes(stored.transpose(2, 0, 1), layout.frames)
    if layout.photometric == PALETTE:
        return Planes(palette_colours(name, stored, header, layout.signed).transpose(2, 0, 1), layout.frames)
    return Planes(grey_as_shown(name, stored, header, layout)[None], layout.frames)


def _header(name: str, file: BinaryIO) -> tuple[Dataset, BinaryIO]:
    """Reads what precedes the pixels, and refuses what has none; the transfer syntax is noted where the file has none.

    Returns:
        The header, and the file at the element of the pixels; of a deflated file its inflated content.
    """
    import pydicom

    file = _inflated(name, file)
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_KEYWORDS), force=True)
    if header.file_meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        raise ImageError(name, "is a DICOMDIR, the index of other files, and holds no image; hand in its folder")
    if not whole(header, "Rows") or not whole(header, "Columns"):
        raise ImageError(name, f"has no pixel data ({_kind(header)}); expected a DICOM image")
    if not header.file_meta.get("TransferSyntaxUID"):
        implicit, little = header.original_encoding
        plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = plain if little else pydicom.uid.ExplicitVRBigEndian
    take_from_first_frame(header)
    return header, file


def _kind(header: Dataset) -> str:
    modality = header.get("Modality") or "unknown"
    found = header.get("SOPClassUID")
    return f"its modality is {modality}" + (f", {found.name}" if found and found.name != found else "")


def _inflated(name: str, file: BinaryIO) -> BinaryIO:
    """Returns the file at its start; a deflated one as if it had never been.

    pydicom inflates as a whole, a thousandfold at worst, so files that would fill the memory are refused here.
    """
    file.seek(0)
    # The transfer syntax is among the first elements behind the preamble; pydicom's own reader of these wants a path.
    start = file.read(4096)
    file.seek(0)
    if start[128:132] != b"DICM" or _DEFLATED.encode() not in start[132:]:
        return file
    place = file.seek(144 + int.from_bytes(start[140:144], "little"))
    size, inflater = 0, zlib.decompressobj(-zlib.MAX_WBITS)
    while chunk := file.read(2**16):
        size += len(inflater.decompress(chunk))
        if size > 2 * pixels.MAX_PIXELS:
            raise ImageError(name, f"inflates to over {2 * pixels.MAX_PIXELS:,} bytes; expected less, make it smaller")
    file.seek(place)
    content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), 2 * pixels.MAX_PIXELS)
    return BytesIO(content)  # explicit, little endian and without its header, which is known by its first element


def _pixel_element(name: str, header: Dataset, file: BinaryIO) -> Element:
    """Returns what holds the pixels, and leaves the file where they begin."""
    order: Literal["little", "big"] = "big" if header.original_encoding[1] is False else "little"
    start = file.read(8)
    tag = int.from_bytes(start[:2], order) << 16 | int.from_bytes(start[2:4], order)
    if tag not in _PIXELS:
        reason = f"ends before its pixel data ({_kind(header)}); expected a whole DICOM image, copy it again"
        raise ImageError(name, reason)
    # Some files have no types here although their transfer syntax says so.
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    vr = start[4:6].decode() if explicit else "OW"
    length = int.from_bytes(file.read(4) if explicit else start[4:], order)
    return Element(_PIXELS[tag], vr, None if length == 2**32 - 1 else length)


def _put_syntax_right(name: str, header: Dataset, element: Element, file: BinaryIO) -> Any:
    """Returns the transfer syntax; pixels that lie there as they are count as such, whatever the header says.

    Raises:
        ImageError: it is a private one or a video, or the pixels are compressed and nothing says how.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_transfer_syntax:
        raise ImageError(name, f"has the private transfer syntax {syntax}; expected one of DICOM's, export it anew")
    if "MPEG" in syntax.name or "HEVC" in syntax.name:
        raise ImageError(name, f"is a video ({syntax.name}); expected an image, export a frame of it")
    start = file.read(4)
    file.seek(-len(start), 1)
    in_fragments = start in (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")
    if in_fragments and element.length is None and not syntax.is_encapsulated:
        found = f"holds compressed pixels, which its header calls uncompressed ({syntax.name})"
        raise ImageError(name, f"{found}; export it again")
    if syntax.is_encapsulated and element.length is not None and not in_fragments:
        header.file_meta.TransferSyntaxUID = syntax = type(syntax)(_PLAIN)
    return syntax


def _check_length(name: str, file: BinaryIO, element: Element, layout: Layout) -> None:
    """Refuses pixels that are cut short."""
    place = file.tell()
    available = min(element.length or 0, file.seek(0, 2) - place)
    file.seek(place)
    if available < layout.frame_bytes:
        expected = f"{layout.frame_bytes:,} for {layout.columns}×{layout.rows} pixels of {layout.allocated} bits"
        raise ImageError(name, f"is cut short: its pixels have {available:,} bytes, expected {expected}; copy it again")


def _as_encoded(name: str, file: BinaryIO, layout: Layout, syntax: Any) -> Layout:
    """Returns the layout with the size and the colours of a JPEG or JPEG 2000 frame's own header, which decoders obey.

    Raises:
        ImageError: the frame has too many pixels.
    """
    from pydicom.encaps import get_frame

    if "JPEG" not in syntax.name:
        return layout
    place = file.tell()
    frame = get_frame(file, 0, number_of_frames=layout.frames)
    file.seek(place)
    try:
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            check_size(name, image.height, image.width)
            samples, plain = len(image.getbands()), image.format == "JPEG2000" or image.info.get("adobe_transform") == 0
    except UnidentifiedImageError:
        return layout  # JPEG-LS and the like, which Pillow will not decode either
    layout = replace(layout, rows=image.height, columns=image.width)
    if samples == layout.samples or samples not in (1, 3):
        return layout
    colours = "RGB" if plain else "YBR_FULL"
    return replace(layout, samples=samples, photometric=colours if samples == 3 else "MONOCHROME2")


def _first_frame(name: str, file: BinaryIO, header: Dataset, element: Element, layout: Layout) -> np.ndarray:
    """Decodes one frame to (H, W) or (H, W, 3), YBR as RGB; the others are not even read where the file allows it."""
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    moved = layout.unused > 0 and (syntax == _RLE or not syntax.is_encapsulated)
    try:
        frame, _ = get_decoder(syntax).as_array(file, index=0, **_options(header, element, layout, moved))
    except (RuntimeError, NotImplementedError) as error:
        raise ImageError(name, _undecoded(syntax, layout, one_line(error))) from error
    return stored_values(frame, layout) if moved else frame


def _options(header: Dataset, element: Element, layout: Layout, moved: bool) -> dict[str, Any]:
    """Returns pydicom's names for how the pixels are stored."""
    options: dict[str, Any] = {
        "pixel_keyword": element.keyword,
        "pixel_vr": element.vr,
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "planar_configuration": int(layout.planar),
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "number_of_frames": layout.frames,
    }
    offsets = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
    if all(offsets):
        options["extended_offsets"] = offsets
    if moved:  # else pydicom drops the bits above
        options["correct_unused_bits"] = False
    return options


def _undecoded(syntax: Any, layout: Layout, found: str) -> str:
    """Tells a missing decoder from a kind that nothing here decodes, and both from a broken file."""
    from pydicom.pixels import get_decoder

    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        return f"is encoded as {syntax.name}, which is not read; export it uncompressed"
    if not available:
        decoders = 'decoders that are not installed: pip install "diffmiczoo[dicom]"'
        return f"is encoded as {syntax.name}, which needs {decoders} ({found})"
    if syntax == _EXTENDED and layout.stored > 8:
        encoding = f"{syntax.name} with {layout.stored} bits"
        decoder = "pip install pylibjpeg-libjpeg (GPL), or export it uncompressed"
        return f"is encoded as {encoding}, which the decoders of the extra do not read: {decoder}"
    return f"is encoded as {syntax.name} and cannot be decoded ({found}); expected a whole image, export it again"
