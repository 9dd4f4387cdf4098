"""Files, PIL images, arrays and tensors → RGB tensors: one image in, one (3, H, W) tensor or one `ImageError` out."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images import dicom, pixels, tiff
from diffmiczoo.images.batches import split_batch
from diffmiczoo.images.deep import joined, lower_half
from diffmiczoo.images.items import ImageError, Item, one_line, reading_errors
from diffmiczoo.images.pixels import Planes, array_of_tensor, check_size, planes_of_array, to_rgb
from diffmiczoo.images.quiet import quiet_decoders
from diffmiczoo.images.remote import Content
from diffmiczoo.images.sniffing import START, is_dicom, kind_of

#: Pillow's formats that are tried; others are left out because they start programs (EPS) or hold no photographs.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "MPO", "AVIF", "HEIF")

#: What pictures that this package draws say of themselves; they are none to be read.
DRAWN = {"Software": "diffmiczoo"}

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_NUMPY = b"\x93NUMPY"
_EMPTY = "is empty (0 bytes); expected the content of an image file"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(item: Item, min_side: int | None = None) -> Tensor:
    """Reads one image as RGB (3, H, W): uint8, or float32 in [0, 1] where the source holds floats.

    - Shapes: arrays are (H, W), (H, W, C) or else (C, H, W); tensors are (H, W), (C, H, W) or else (H, W, C), with
      C = 1..4. Where both orders fit, an array is taken as (H, W, C) and a tensor as (C, H, W).
    - Colour: grey becomes three equal channels; palette, CMYK, YCbCr, Lab and HSV become RGB without regard to an
      embedded profile; transparency is dropped, so what lies under it shows. The EXIF orientation is applied, and zero
      is white where a TIFF file says so.
    - Integers of 16 or 32 bits: see `pixels.grey_range`. Negative values are refused.
    - int64 and uint64 say nothing about depth (they are Python's integers): values 0..255 are taken as they are,
      others are refused. int8 is refused. Booleans become 0 and 255.
    - Floats must be finite and within [0, 1], but for rounding; whole ones above count like integers.
    - A file of `numpy.save` is its array.
    - Of several frames or pages the first is read, with a `UserWarning`; of a PIL image the one it stands at.
    - DICOM (by content): rescale, then the VOI table or the first window that can be used. Without these, up to 8
      stored bits use their full range, more are stretched as above, padding left out. MONOCHROME1 is inverted, padding
      is black, YBR and palettes become RGB. Of enhanced objects the first frame's window and slope are used.

    Args:
        item: the image.
        min_side: a JPEG file may be decoded at a half, a quarter or an eighth of its size, which takes a fraction of
            the time, as long as neither side gets shorter than so many pixels.

    At most `MAX_PIXELS` are decoded; files are measured by their header first. Pillow's own
    `Image.MAX_IMAGE_PIXELS` holds as well. Any number of threads may read at once.

    Raises:
        ImageError: the source is missing, not an image, broken, too large or outside its range; where a library
            refused it, its exception is the `__cause__`.
    """
    return read_reduced(item, min_side)[0]


def read_reduced(item: Item, min_side: int | None) -> tuple[Tensor, int]:
    """Returns what `read_image` does, and by what factor it is smaller than the source: 1, 2, 4 or 8."""
    planes = _planes(item, min_side)
    image = to_rgb(item.name, planes.values, planes.negative)
    channels = "channels that are not said to be colours"
    for count, what in ((planes.frames, "frames or pages"), (planes.channels, channels)):
        if count > 1:
            warnings.warn(f"{item.name}: has {count} {what}; only the first is used", UserWarning, stacklevel=3)
    return image, planes.reduction


def read_content(item: Item) -> bytes:
    """Returns all bytes of a path, of bytes or of a `Content`, for whoever needs them besides the picture.

    Raises:
        ImageError: as `read_image` does for what cannot be read at all, or is empty.
    """
    source = item.source
    content = _read_content(item.name, source) if isinstance(source, Content) else source
    if isinstance(content, str | os.PathLike):
        with _opened(item.name, os.fsdecode(content)) as file, reading_errors(item.name):
            content = file.read()
    if not content:
        raise ImageError(item.name, _EMPTY)
    return bytes(content)


def _planes(item: Item, min_side: int | None) -> Planes:
    source = item.source
    if isinstance(source, Content):
        source = _read_content(item.name, source)
    elif callable(source):
        with reading_errors(item.name, "the function or data set that it comes from failed"):
            source = source()
    if isinstance(source, Tensor):
        return Planes(planes_of_array(item.name, array_of_tensor(item.name, source), channels_first=True))
    if isinstance(source, np.ndarray):
        return Planes(planes_of_array(item.name, source, channels_first=False))
    if isinstance(source, Image.Image):
        with quiet_decoders():
            return _planes_of_pillow(item.name, source)
    if isinstance(source, bytes):
        if not source:
            raise ImageError(item.name, _EMPTY)
        return _planes_of_open_file(item.name, BytesIO(source), min_side)
    if not isinstance(source, str | os.PathLike):
        kind = type(source).__name__
        raise ImageError(item.name, f"is a {kind}; expected a path, a PIL image, an array or a tensor")
    return _planes_of_file(item.name, os.fsdecode(source), min_side)


def _read_content(name: str, content: Content) -> Any:
    with reading_errors(name, content.advice):
        try:
            return content.read()
        except (InvalidValueError, InvalidTypeError) as error:
            raise ImageError(name, str(error)) from error


# ---------------------------------------------------------------------- Pillow


def _planes_of_pillow(name: str, image: Image.Image) -> Planes:
    check_size(name, image.height, image.width)
    with _pillow_errors(name, image):
        if (found := tiff.misread_planes(name, image)) is not None:
            return Planes(found.values, _frames(image), found.negative, channels=found.channels)
        tiff.put_byte_order_right(image)
        lower = lower_half(image)
        image.load()
        array = np.asarray(_plain(_upright(image)))
        if lower is not None:
            array = joined(array, np.asarray(_upright(lower)))
    planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return Planes(planes, _frames(image), tiff.is_negative(image), channels=_channels(image))


def _channels(image: Any) -> int:
    return tiff.grey_channels(image.tag_v2) if image.format == "TIFF" and hasattr(image, "tag_v2") else 1


@contextmanager
def _pillow_errors(name: str, image: Any = None) -> Iterator[None]:
    with reading_errors(name):
        try:
            yield
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            limit = f"{pixels.MAX_PIXELS:,} pixels and no more than Pillow's own limit"
            reason = f"is too large ({one_line(error)}); expected at most {limit}, make it smaller"
            raise ImageError(name, reason) from error
        except Exception as error:
            if not _is_closed(image, error):
                raise
            reason = "was closed before it was read; call image.load() while it is open, or hand in its path"
            raise ImageError(name, reason) from error


def _is_closed(image: Any, error: Exception) -> bool:
    """Whether a PIL image, or its file, was closed before Pillow read its pixels, which it does when they are used."""
    unread, file = bool(getattr(image, "tile", None)), getattr(image, "fp", None)
    return (unread and (file is None or getattr(file, "closed", False))) or "closed image" in str(error)


def _upright(image: Image.Image) -> Image.Image:
    """Turns the image as its EXIF orientation says.

    Cameras store pixels as the sensor lies and write into EXIF how to turn them. `PIL.ImageOps.exif_transpose` does
    the same, but it also writes the EXIF anew without that tag, which fails where any other tag is broken; viewers show
    such images without complaint.
    """
    orientation = None
    with suppress(Exception):
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    """Returns the image in a mode whose array needs no further knowledge: grey, RGB, deep integer or float."""
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


def _planes_of_file(name: str, path: str, min_side: int | None) -> Planes:
    with _opened(name, path) as file:
        return _planes_of_open_file(name, file, min_side)


def _planes_of_open_file(name: str, file: BinaryIO, min_side: int | None) -> Planes:
    with reading_errors(name):
        start = file.read(START)
    if is_dicom(start):
        with quiet_decoders():
            return dicom.read_planes(name, file)
    if start.startswith(_NUMPY):
        return _planes_of_numpy_file(name, file)
    with quiet_decoders():
        return _planes_of_image_file(name, file, start, min_side)


def _planes_of_numpy_file(name: str, file: BinaryIO) -> Planes:
    with reading_errors(name, "expected numbers that numpy.save wrote"):
        file.seek(0)
        array = np.load(file, allow_pickle=False)
    try:
        images = split_batch(array)
    except InvalidValueError as error:
        raise ImageError(name, str(error)) from error
    if len(images) != 1:
        raise ImageError(name, f"holds {len(images)} images; expected one, numpy.load gives the array to hand in")
    return Planes(planes_of_array(name, images[0], channels_first=False))


def _opened(name: str, path: str) -> BinaryIO:
    with reading_errors(name, "check its path and permissions"):
        try:
            status = os.stat(path)
        except FileNotFoundError as error:
            raise ImageError(name, "no such file; check the path") from error
        _check_is_file(name, status)
        return open(path, "rb")


def _check_is_file(name: str, status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(name, "is a directory; expected an image file, list_images gives those of a directory")
    # Opening a pipe or a device could wait for ever.
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(name, "is a pipe, socket or device; expected an image file, copy its content to a file first")
    if status.st_size == 0:
        raise ImageError(name, "is empty (0 bytes); expected an image file, copy it again")


def _planes_of_image_file(name: str, file: BinaryIO, start: bytes, min_side: int | None) -> Planes:
    Image.init()
    with _pillow_errors(name):
        try:
            image = Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN])
            _check_limit(image)
        except UnidentifiedImageError as error:
            if start.startswith(_TIFF) and (found := tiff.read_planes(name, file)):
                return found
            raise ImageError(name, _unknown_content(name, file, start)) from error
    with image:
        if DRAWN.items() <= image.info.items():
            raise ImageError(name, "is drawn by diffmiczoo (an overlay or a plot), no picture; move or remove it")
        check_size(name, image.height, image.width)
        width = image.width
        if min_side is not None:
            factor = _reduction(width, image.height, min_side)
            with _pillow_errors(name):
                image.draft(None, (width // factor, image.height // factor))
        reduction = width // image.width
        return replace(_planes_of_pillow(name, image), reduction=reduction)


def _check_limit(image: Image.Image) -> None:
    """Refuses from where Pillow warns; below twice its limit it would go on."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise Image.DecompressionBombError(f"{image.width * image.height:,} pixels, Pillow's limit is {limit:,}")


def _reduction(width: int, height: int, min_side: int) -> int:
    """Returns by what factor a JPEG may be decoded smaller: 8, 4, 2 or 1.

    A JPEG holds blocks of 8×8 frequencies; without the high ones it decodes to a half, a quarter or an eighth of its
    size in a fraction of the time. The decoder rounds sides up, so a last row or column could stand for fewer pixels
    than the others, and a square cut from the middle could begin within one: then boxes would not lie where they do
    in the whole image. Hence both sides, and half their difference, have to be multiples of the factor.
    """
    for factor in (8, 4, 2):
        whole = width % factor == height % factor == (width - height) % (2 * factor) == 0
        if whole and min(width, height) >= factor * min_side:
            return factor
    return 1


def _unknown_content(name: str, file: BinaryIO, start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS:
        return (
            "is a HEIF image; pip install pillow-heif and call pillow_heif.register_heif_opener() before, or save it "
            "as PNG or JPEG"
        )
    if name.lower().endswith((".dcm", ".dicom")):
        return f"has no DICOM header (it starts with {start[:8]!r}); expected a DICOM file, export it again"
    if start.startswith(_TIFF):
        reason = f"is a TIFF file of a kind that is not read ({tiff.describe(file)})"
        return f"{reason}, or its header is broken; save it as PNG or uncompressed TIFF"
    if kind := kind_of(start):
        return f"is {kind}"
    notes = "".join(f"; {note}" for note in _missing_support(start))
    return (
        f"is not an image, or its header is broken (it starts with {start[:8]!r}{notes}); expected JPEG, PNG, TIFF, "
        "BMP, GIF, WebP, JPEG 2000, PNM, AVIF or DICOM"
    )


def _missing_support(start: bytes) -> Iterator[str]:
    """Yields what Pillow says of formats that it knows and was built without."""
    for kind in FORMATS:
        accept = Image.OPEN[kind][1] if kind in Image.OPEN else None
        answer = accept(start[:16]) if accept else None
        if isinstance(answer, str):
            yield answer
