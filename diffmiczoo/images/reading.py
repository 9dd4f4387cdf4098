"""Files, PIL images, arrays and tensors → RGB tensors: one picture in, one (3, H, W) tensor or one `ImageError` out."""

from __future__ import annotations

import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from diffmiczoo.images import dicom, pixels
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.pixels import check_size, one_line, planes_of_array, tensor_values, to_rgb

#: Pillow's formats that are tried; others are left out because they start programs (EPS) or hold no photographs.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "MPO", "AVIF", "HEIF")

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Changing warning filters is not thread-safe before Python 3.14, so one thread decodes at a time.
_DECODING = threading.Lock()


def read_image(item: Item, at_least: int | None = None) -> Tensor:
    """Reads one picture as RGB (3, H, W): uint8, or float32 in [0, 1] where the source holds floats.

    - Shapes: arrays are (H, W), (H, W, C) or else (C, H, W); tensors are (H, W), (C, H, W) or else (H, W, C), with
      C = 1..4. Where both orders fit, an array is taken as (H, W, C) and a tensor as (C, H, W).
    - Colour: grey becomes three equal channels; palette, CMYK, YCbCr, Lab and HSV become RGB without regard to an
      embedded profile; transparency is dropped, so what lies under it shows. The EXIF orientation is applied.
    - Integers of 16 or 32 bits are stretched from the picture's own minimum to its maximum, over all channels at
      once, because 12-bit data in a 16-bit container would come out nearly black; a constant picture becomes black.
      Negative values are refused. (Pillow itself cuts 16-bit RGB files to their upper 8 bits.)
    - int64 and uint64 say nothing about depth (they are Python's integers): values 0..255 are taken as they are,
      others are refused. int8 is refused. Booleans become 0 and 255.
    - Floats must be finite and within [0, 1].
    - Of several frames or pages the first is read, with a `UserWarning`; of a PIL image the one it stands at.
    - DICOM (by content, or by the extension .dcm or .dicom): rescale, then VOI LUT or the first window. Without
      these, up to 8 stored bits use their full range, more are stretched as above, padding left out. MONOCHROME1 is
      inverted, padding is black, YBR and palettes become RGB. Windows of enhanced multi-frame objects are not used.

    Args:
        item: the picture.
        at_least: a JPEG file may be decoded at a half, a quarter or an eighth of its size, as long as neither side is
            below so many pixels and no pixel is cut: its coefficients say what a smaller picture is, which takes a
            fraction of the time.

    At most `MAX_PIXELS` are decoded; files are measured by their header first. Pillow's own
    `Image.MAX_IMAGE_PIXELS` holds as well. Decoding threads wait for each other; use processes to read in parallel.

    Raises:
        ImageError: the source is missing, not a picture, broken, too large or outside its range; where a library
            refused it, its exception is the `__cause__`.
    """
    try:
        planes, frames = _planes(item, at_least)
        image = to_rgb(item.name, planes)
    except ImageError:
        raise
    except Exception as error:  # the decoders raise whatever a broken file makes them raise
        reason = f"cannot be read ({_text(error)}); expected a whole picture, save it again"
        raise ImageError(item.name, reason) from error
    if frames > 1:
        warnings.warn(f"{item.name}: has {frames} frames or pages; only the first is used", UserWarning, stacklevel=2)
    return image


def _planes(item: Item, at_least: int | None) -> tuple[np.ndarray, int]:
    """Returns the picture as (C, H, W), of any dtype, and the number of frames it was taken from."""
    source = item.source() if callable(item.source) else item.source
    if isinstance(source, Tensor):
        return planes_of_array(item.name, tensor_values(source), channels_first=True), 1
    if isinstance(source, np.ndarray):
        return planes_of_array(item.name, source, channels_first=False), 1
    if isinstance(source, Image.Image):
        with _quiet():
            return _planes_of_pillow(item.name, source)
    return _planes_of_file(item.name, os.fsdecode(source), at_least)


@contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Collects the decoders' warnings, which nobody can act on when the picture is read after all."""
    with _DECODING, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield caught


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__


# ---------------------------------------------------------------------- Pillow


def _planes_of_pillow(name: str, image: Image.Image) -> tuple[np.ndarray, int]:
    check_size(name, image.height, image.width)
    image.load()
    array = np.asarray(_plain(_upright(image)))
    return (array[None] if array.ndim == 2 else array.transpose(2, 0, 1)), _frames(image)


def _upright(image: Image.Image) -> Image.Image:
    """Applies the EXIF orientation; Pillow's own function gives up when any other tag is broken."""
    orientation = None
    with suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    """Returns the picture in a mode whose array needs no further knowledge: grey, RGB, deep integer or float."""
    if image.mode in ("1", "L", "RGB", "F") or image.mode.startswith("I"):
        return image
    if "transparency" in image.info:
        # Pillow converts the transparent colour along, and fails where the file names one that does not exist.
        image = image.copy()
        del image.info["transparency"]
    return (image.convert("LA") if image.mode == "La" else image).convert("RGB")


def _frames(image: Image.Image) -> int:
    """Returns how many frames the first was taken from; 1 where the caller chose another one."""
    with suppress(Exception):  # the first frame has been read, so broken later ones do not matter
        if image.tell() == 0:
            return int(getattr(image, "n_frames", 1))
    return 1


# ---------------------------------------------------------------------- files


def _planes_of_file(name: str, path: str, at_least: int | None) -> tuple[np.ndarray, int]:
    _check_is_file(name, path)
    with open(path, "rb") as file:
        start = file.read(132)
        if start[128:] == b"DICM" or Path(path).suffix.lower() in (".dcm", ".dicom"):
            with _quiet():
                return dicom.read_planes(name, file)
        with _quiet() as caught:
            return _planes_of_picture_file(name, file, start, at_least, caught)


def _reduction(width: int, height: int, at_least: int) -> int:
    """Returns the factor by which both sides, and what a square in the middle leaves of them, stay whole numbers."""
    for factor in (8, 4, 2):
        whole = width % factor == height % factor == (width - height) % (2 * factor) == 0
        if whole and min(width, height) >= factor * at_least:
            return factor
    return 1


def _check_is_file(name: str, path: str) -> None:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise ImageError(name, "no such file; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(name, "is a directory; expected an image file, list_images gives those of a directory")
    # Opening a pipe or a device could wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(name, "is a pipe, socket or device; expected an image file, copy its content to a file first")
    if status.st_size == 0:
        raise ImageError(name, "is empty (0 bytes); expected an image file, copy it again")


def _planes_of_picture_file(
    name: str, file: BinaryIO, start: bytes, at_least: int | None, caught: list[warnings.WarningMessage]
) -> tuple[np.ndarray, int]:
    Image.init()
    try:
        with Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN]) as image:
            check_size(name, image.height, image.width)
            if at_least is not None:
                factor = _reduction(image.width, image.height, at_least)
                image.draft(None, (image.width // factor, image.height // factor))
            return _planes_of_pillow(name, image)
    except UnidentifiedImageError as error:
        raise ImageError(name, _unknown_content(start, caught)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"{pixels.MAX_PIXELS:,} pixels and no more than Pillow's own limit"
        raise ImageError(
            name, f"is too large ({one_line(error)}); expected at most {limit}, make it smaller"
        ) from error


def _unknown_content(start: bytes, caught: list[warnings.WarningMessage]) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return (
            "is a HEIF picture; pip install pillow-heif and call pillow_heif.register_heif_opener() before, or save it "
            "as PNG or JPEG"
        )
    notes = "".join(f"; {warning.message}" for warning in caught)
    return (
        f"is not a picture, or its header is broken (it starts with {start[:8]!r}{notes}); expected JPEG, PNG, TIFF, "
        "BMP, GIF, WebP, JPEG 2000, PNM, AVIF or DICOM"
    )
