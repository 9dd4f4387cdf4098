"""TIFF files that Pillow refuses or misreads: unusual depths and types, planes one after the other, deep negatives."""

from __future__ import annotations

import sys
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from diffmiczoo.images.items import ImageError
from diffmiczoo.images.pixels import Planes, check_size

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR, _PREDICTOR = 273, 274, 277, 278, 279, 284, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES, _SAMPLE_FORMAT = 322, 323, 324, 325, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_EXTRA_SAMPLES, _ALPHA = 338, (1, 2)
_NONE, _DEFLATE = (1,), (8, 32946)
_NATIVE = {"I;16BS": "I;16S", "I;32BS": "I;32S", "F;32BF": "F;32F"}
_KINDS = {1: "u", 2: "i", 3: "f"}
_TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


def is_negative(image: Any) -> bool:
    """Whether a TIFF image says that zero is white and Pillow, which inverts 8 bits and less, has left that to us."""
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO and image.mode[0] in "IF"


def put_byte_order_right(image: Any) -> None:
    """Corrects how Pillow is about to unpack compressed signed numbers and floats of a big-endian TIFF file.

    libtiff hands out bytes in the processor's order; Pillow (13.0) knows that for unsigned numbers only.
    """
    if image.format == "TIFF" and sys.byteorder == "little" and getattr(image, "use_load_libtiff", False):
        image.tile = [
            tile._replace(args=(_NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:])) for tile in image.tile
        ]


def misread_planes(name: str, image: Any) -> Planes | None:
    """Reads the page of an image that Pillow has opened and would misread; None for any other.

    Raises:
        ImageError: it is too large, or compressed in a way that is Pillow's business.
    """
    if not _is_misread(image):
        return None
    found = read_planes(name, image.fp, image.tag_v2)
    bits, kinds = image.tag_v2.get(_BITS, (1,)), image.tag_v2.get(_SAMPLE_FORMAT, (1,))
    if found is None and (len(bits) > 1 or 2 in kinds):  # one plane is none that follows another
        what = "signed values" if 2 in kinds else "planes"
        kind = f"{what} of {bits[0]} bits, compressed as {image.info.get('compression')}"
        raise ImageError(name, f"is a TIFF file with {kind}, which is not read; save it uncompressed or as PNG")
    return found


def _is_misread(image: Any) -> bool:
    """Whether Pillow opens a TIFF image, but would take bytes for what they are not.

    It reads planes that lie one after the other by the first letters of their raw mode, which stand for 8 bits that are
    not inverted, and signed 8-bit values as unsigned ones.
    """
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None or not getattr(image, "tile", None) or image.fp is None:
        return False
    bits, kinds = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
    colours = max(bits) == 8 and tags.get(_PHOTOMETRIC, 0) not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    return (tags.get(_PLANAR) == 2 and not colours) or (max(kinds) == 2 and max(bits) == 8)


def read_planes(name: str, file: BinaryIO, tags: Any = None) -> Planes | None:
    """Reads a page of a TIFF file; None where it is compressed or coloured in a way that is Pillow's business.

    Args:
        name: the image's, for errors.
        file: open for reading.
        tags: of the page, the first by default.

    Raises:
        ImageError: it is too large.
    """
    pages = 1
    if tags is None:
        tags, pages = _first_page(file)
    layout = _layout(name, tags) if pages else None
    if layout is None:
        return None
    check_size(name, layout.height, layout.width)
    planes = np.stack([_plane(file, tags, layout, index) for index in range(layout.used)])
    upright = _upright(planes, tags.get(_ORIENTATION, 1))
    return Planes(upright, pages, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO, channels=grey_channels(tags))


def grey_channels(tags: Any) -> int:
    """Returns how many channels a page has that are neither colours nor transparency; 1 for any ordinary page."""
    if tags.get(_PHOTOMETRIC) not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return 1
    extra = tags.get(_EXTRA_SAMPLES, ())
    return int(tags.get(_SAMPLES, 1)) - sum(kind in _ALPHA for kind in extra)


def describe(file: BinaryIO) -> str:
    """Says what kind of TIFF file it is, for errors."""
    try:
        tags, pages = _first_page(file)
        if not pages:
            return "it has no page"
        names = {
            _BITS: "bits",
            _SAMPLE_FORMAT: "sample format",
            _PHOTOMETRIC: "photometric",
            _COMPRESSION: "compression",
        }
        return ", ".join(f"{name} {tags[tag]}" for tag, name in names.items() if tag in tags)
    except Exception as error:  # whatever a broken file makes of it
        return f"its directory cannot be read: {error}"


def _first_page(file: BinaryIO) -> tuple[Any, int]:
    """Returns the tags of the first page, none where there is no page, and the number of pages."""
    file.seek(0)
    header = file.read(8)
    if header[2:4] in (b"+\0", b"\0+"):
        header += file.read(8)
    found: list[Any] = []
    place = ImageFileDirectory_v2(header).next
    seen = {0}
    while place not in seen:
        seen.add(place)
        page = ImageFileDirectory_v2(header)
        file.seek(place)
        page.load(file)
        found.append(page)
        place = page.next
    return (found[0] if found else {}), len(found)


@dataclass(frozen=True)
class _Layout:
    """How a page's pixels are stored; `used` of its `samples` per pixel are colours, a block is a strip or a tile."""

    name: str
    height: int
    width: int
    samples: int
    used: int
    bits: int
    dtype: str | None
    planar: bool
    block_height: int
    block_width: int


def _layout(name: str, tags: Any) -> _Layout | None:
    """Returns None for what is not read here."""
    bits, kinds, samples = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,)), tags.get(_SAMPLES, 1)
    photometric = tags.get(_PHOTOMETRIC, _BLACK_IS_ZERO)
    uniform = len(set(bits)) == 1 and len(set(kinds)) == 1
    readable = tags.get(_COMPRESSION, 1) in _NONE + _DEFLATE and tags.get(_FILL_ORDER, 1) == 1
    used = 3 if photometric == _RGB else 1
    if not uniform or not readable or photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) or samples < used:
        return None
    dtype = f"{_KINDS.get(kinds[0], '')}{bits[0] // 8}"
    known = bits[0] % 8 == 0 and dtype in _TYPES
    packed = kinds[0] == 1 and bits[0] in (1, 2, 4, 10, 12, 14)
    if not (known or packed) or (tags.get(_PREDICTOR, 1) == 2 and not known) or tags.get(_PREDICTOR, 1) not in (1, 2):
        return None
    order = {b"II": "<", b"MM": ">"}[bytes(tags.prefix[:2])]
    height, width = tags[_HEIGHT], tags[_WIDTH]
    tiled = _TILES in tags
    return _Layout(
        name,
        height,
        width,
        samples,
        used,
        bits[0],
        order + dtype if known else None,
        tags.get(_PLANAR, 1) == 2,
        tags[_TILE_HEIGHT] if tiled else min(tags.get(_ROWS_PER_STRIP, height), height),
        tags[_TILE_WIDTH] if tiled else width,
    )


def _plane(file: BinaryIO, tags: Any, layout: _Layout, index: int) -> np.ndarray:
    """Reads one of the colours, (H, W)."""
    tiled = _TILES in tags
    places, sizes = tags[_TILES if tiled else _STRIPS], tags.get(_TILE_BYTES if tiled else _STRIP_BYTES)
    per_pixel = 1 if layout.planar else layout.samples
    down, across = -(-layout.height // layout.block_height), -(-layout.width // layout.block_width)
    rows = []
    for row in range(down):
        missing = 0 if tiled else max(0, (row + 1) * layout.block_height - layout.height)
        row_blocks = []
        for column in range(across):
            block = row * across + column + (index * down * across if layout.planar else 0)
            file.seek(places[block])
            values = _values(file, sizes[block] if sizes else 0, tags, layout, layout.block_height - missing, per_pixel)
            row_blocks.append(values[..., 0 if layout.planar else index])
        rows.append(np.concatenate(row_blocks, axis=1))
    plane: np.ndarray = np.concatenate(rows)[: layout.height, : layout.width]
    return plane


def _values(file: BinaryIO, size: int, tags: Any, layout: _Layout, rows: int, per_pixel: int) -> np.ndarray:
    """Reads a block of `size` bytes in the file as (rows, width, samples)."""
    per_row = layout.block_width * per_pixel
    row_bytes = -(-per_row * layout.bits // 8)
    if tags.get(_COMPRESSION, 1) in _DEFLATE:
        data = zlib.decompressobj().decompress(file.read(size), rows * row_bytes)
    else:
        data = file.read(rows * row_bytes)
    if len(data) < rows * row_bytes:
        found = f"a block of {rows * row_bytes} bytes has only {len(data)}"
        raise ImageError(layout.name, f"is cut short ({found}); expected a whole image, copy it again")
    if layout.dtype is not None:
        values = np.frombuffer(data, layout.dtype, rows * per_row).reshape(rows, layout.block_width, per_pixel)
        native = values.astype(values.dtype.newbyteorder("="))
        return np.cumsum(native, axis=1, dtype=native.dtype) if tags.get(_PREDICTOR, 1) == 2 else native
    packed = np.frombuffer(data, np.uint8).reshape(rows, row_bytes)
    return _unpacked(packed, layout.bits)[:, :per_row].reshape(rows, layout.block_width, per_pixel)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Unpacks rows of bytes to numbers: up to 8 bits widened to the full scale of 8, more as they are."""
    padded = np.pad(packed, ((0, 0), (0, -packed.shape[1] % bits)))
    groups = padded.reshape(-1, bits)  # bytes that hold 8 numbers
    numbers = np.empty((len(groups), 8), np.uint16)
    powers = (1 << np.arange(bits)[::-1]).astype(np.uint16)
    for start in range(0, len(groups), 2**15):  # a bit takes a byte, and more
        digits = np.unpackbits(groups[start : start + 2**15], axis=1).reshape(-1, 8, bits)
        numbers[start : start + 2**15] = digits @ powers
    if bits <= 8:
        numbers = (numbers * np.uint16(255 // (2**bits - 1))).astype(np.uint8)
    return numbers.reshape(len(packed), -1)


def _upright(planes: np.ndarray, orientation: int) -> np.ndarray:
    """Turns (C, H, W) as the orientation 1..8 of TIFF and EXIF says."""
    if orientation in (5, 6, 7, 8):
        planes = planes.transpose(0, 2, 1)
    if orientation in (3, 4, 7, 8):
        planes = planes[:, ::-1]
    if orientation in (2, 3, 6, 7):
        planes = planes[:, :, ::-1]
    return planes
