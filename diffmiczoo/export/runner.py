"""Runs a model that `diffmiczoo export` wrote, without diffmiczoo and without torch.

    python runner.py FILE.onnx PICTURE ...       one JSON object a line

Needs numpy, pillow (11.3 or later) and onnxruntime, and nothing else; copy this file wherever you like. In Python:

    model = Model("FILE.onnx")
    print(model.predict(["lesion.jpg"])[0]["label"])

Pictures become the same bytes, bit for bit, as diffmiczoo makes of them (a test compares both). What diffmiczoo reads
and this file does not (DICOM, NumPy files, TIFF files that Pillow misreads, floats) is refused, never read otherwise.
Not a medical device, not for clinical use.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM", "MPO", "AVIF")
MAX_PIXELS = 100_000_000
_ORIENTATION, _PHOTOMETRIC, _BITS, _PLANAR, _SAMPLE_FORMAT = 274, 262, 258, 284, 339
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NATIVE = {"I;16BS": "I;16S", "I;32BS": "I;32S", "F;32BF": "F;32F"}
_SWAPPED = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


class PictureError(ValueError):
    """A picture cannot be used; the message says what was found and what to do."""


class Model:
    """An exported model.

    Args:
        path: of the file.
        threads: of onnxruntime, 0 for all cores.

    Attributes:
        facts: the file's metadata: classes, thresholds, task, licence, pre-processing, hash of the weights, …
        labels: the classes.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        self.facts = {name: _value(text) for name, text in self.session.get_modelmeta().custom_metadata_map.items()}
        if "labels" not in self.facts:
            raise PictureError(f"{os.fspath(path)} was not written by diffmiczoo export: it names no classes")
        self.labels: list[str] = self.facts["labels"]

    def square(self, picture: Any, name: str = "picture") -> np.ndarray:
        """Returns what the model takes of a picture (a path, bytes or a PIL image), (S, S, 3) uint8.

        Raises:
            PictureError: it cannot be read, or not as diffmiczoo reads it.
        """
        facts = self.facts
        image = read_picture(picture, name, 2 * facts["image_size"])
        return to_square(image, facts["image_size"], facts["crop_mode"], facts["interpolation"])

    def run(self, squares: np.ndarray) -> dict[str, np.ndarray]:
        """Returns all outputs by name for squares (B, S, S, 3) uint8."""
        names = [each.name for each in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, {"pictures": squares}), strict=True))

    def predict(self, pictures: list[Any], batch_size: int = 32) -> list[dict[str, Any]]:
        """Returns a record per picture: name, label (or labels), probs by class, uncertainty, in_distribution, rois.

        `spread` by class says how far the runs of the sampler are apart (null with one). ROIs are left, top, right and
        bottom in the square of `image_size`, and their attention.
        Of a picture that cannot be read the record has `name` and `error`.
        """
        return list(self.stream(pictures, batch_size))

    def stream(self, pictures: list[Any], batch_size: int = 32) -> Iterator[dict[str, Any]]:
        """Does what `predict` does, one batch after the other."""
        for start in range(0, len(pictures), batch_size):
            records: list[dict[str, Any]] = []
            squares: list[np.ndarray] = []
            for place, picture in enumerate(pictures[start : start + batch_size], start):
                name = os.fspath(picture) if isinstance(picture, (str, os.PathLike)) else f"pictures[{place}]"
                records.append({"name": name})
                try:
                    squares.append(self.square(picture, name))
                except PictureError as error:
                    records[-1]["error"] = str(error)
            outputs = self.run(np.stack(squares)) if squares else {}
            row = 0
            for record in records:
                if "error" not in record:
                    record.update(self._record(outputs, row))
                    row += 1
                yield record

    def _record(self, outputs: dict[str, np.ndarray], row: int) -> dict[str, Any]:
        given = [name for name, on in zip(self.labels, outputs["labels"][row], strict=True) if on]
        probs = outputs["probs"][row]
        record: dict[str, Any] = {"labels": given} if self.facts["task"] == "multilabel" else {"label": given[0]}
        record["probs"] = dict(zip(self.labels, map(float, probs), strict=True))
        record["uncertainty"] = float(outputs["uncertainty"][row])
        spread = outputs.get("spread")
        record["spread"] = None if spread is None else dict(zip(self.labels, map(float, spread[row]), strict=True))
        inside = outputs.get("in_distribution")
        record["in_distribution"] = None if inside is None else bool(inside[row])
        if "ood_score" in outputs:
            record["ood_score"] = float(outputs["ood_score"][row])
        if "sets" in outputs and 0.1 in self.facts["alphas"]:
            found = outputs["sets"][row, self.facts["alphas"].index(0.1)]
            record["set"] = [self.labels[c] for c in np.argsort(-probs, kind="stable") if found[c]]
        if "deferred" in outputs:
            record["deferred"] = bool(outputs["deferred"][row])
        boxes = zip(outputs["rois"][row].tolist(), outputs["attention"][row].tolist(), strict=True)
        record["rois"] = [{"box": box, "attention": attention} for box, attention in boxes]
        return record


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


# ---------------------------------------------------------------------- a picture as (H, W, 3) bytes


def read_picture(picture: Any, name: str = "picture", min_side: int | None = None) -> np.ndarray:
    """Reads a path, bytes or a PIL image as RGB, (H, W, 3) uint8; a JPEG may be decoded smaller, down to `min_side`.

    Raises:
        PictureError: see `Model.square`.
    """
    if isinstance(picture, Image.Image):
        return _decoded(picture, name)
    if isinstance(picture, np.ndarray):
        raise PictureError(f"{name}: is an array; expected a path, bytes or a PIL image")
    content = bytes(picture) if isinstance(picture, (bytes, bytearray, memoryview)) else _content(picture, name)
    if not content:
        raise PictureError(f"{name}: is empty (0 bytes); expected an image file, copy it again")
    if content[128:132] == b"DICM" or content.startswith(b"\x93NUMPY"):
        kind = "a NumPy file" if content.startswith(b"\x93NUMPY") else "DICOM"
        raise PictureError(f"{name}: is {kind}, which this program does not read; use diffmiczoo, or save it as PNG")
    Image.init()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(BytesIO(content), formats=[kind for kind in FORMATS if kind in Image.OPEN])
    except Exception as error:
        raise PictureError(
            f"{name}: is not an image that this program reads ({_line(error)}); save it as PNG"
        ) from error
    with image:
        if image.info.get("Software") == "diffmiczoo":
            raise PictureError(f"{name}: is drawn by diffmiczoo (an overlay or a plot), no picture")
        if min_side is not None:
            factor = _reduction(image.width, image.height, min_side)
            image.draft(None, (image.width // factor, image.height // factor))
        return _decoded(image, name)


def _content(path: Any, name: str) -> bytes:
    try:
        if not os.path.isfile(path):
            raise PictureError(f"{name}: {'is no file' if os.path.exists(path) else 'no such file'}; check the path")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, TypeError) as error:
        raise PictureError(f"{name}: cannot be read ({_line(error)}); check its path and permissions") from error


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _reduction(width: int, height: int, min_side: int) -> int:
    for factor in (8, 4, 2):
        whole = width % factor == height % factor == (width - height) % (2 * factor) == 0
        if whole and min(width, height) >= factor * min_side:
            return factor
    return 1


def _decoded(image: Any, name: str) -> np.ndarray:
    limit = min(MAX_PIXELS, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)
    if not 1 <= image.width * image.height <= limit:
        raise PictureError(f"{name}: is {image.width}×{image.height} pixels; expected 1 to {limit:,}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = _values(image, name)
    except PictureError:
        raise
    except Exception as error:
        raise PictureError(f"{name}: cannot be read ({_line(error)}); expected a whole image, save it again") from error
    colours = values[..., None] if values.ndim == 2 else values[..., :3]
    colours = colours[..., :1] if colours.shape[2] < 3 else colours
    found = to_bytes(colours, name)
    if _is_negative(image):
        found = 255 - found
    return np.ascontiguousarray(np.broadcast_to(found, (*found.shape[:2], 3)))


def _values(image: Any, name: str) -> np.ndarray:
    """Returns the pixels, upright: (H, W) or (H, W, C)."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        bits, kinds = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
        colours = max(bits) == 8 and tags.get(_PHOTOMETRIC, 0) not in (0, 1)
        if (tags.get(_PLANAR) == 2 and not colours) or (max(kinds) == 2 and max(bits) == 8):
            raise PictureError(
                f"{name}: is a TIFF file with planes or signed values; use diffmiczoo, or save it as PNG"
            )
        if sys.byteorder == "little" and getattr(image, "use_load_libtiff", False):
            image.tile = [
                each._replace(args=(_NATIVE.get(each.args[0], each.args[0]), *each.args[1:])) for each in image.tile
            ]
    lower = _lower_half(image)
    if getattr(image, "tell", lambda: 0)() == 0 and getattr(image, "n_frames", 1) > 1:
        print(f"{name}: has {image.n_frames} frames or pages; only the first is used", file=sys.stderr)
    image.load()
    array = np.asarray(_plain(_upright(image)))
    if lower is None:
        return array
    low = np.asarray(_upright(lower))
    low = low[..., None] if low.ndim == 2 else low[..., :3]
    return array.astype(np.uint16) << 8 | low


def _upright(image: Image.Image) -> Image.Image:
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF: viewers show such pictures without complaint
        turn = None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "L", "RGB", "F") or image.mode.startswith("I"):
        return image
    if "transparency" in image.info:
        image = image.copy()
        del image.info["transparency"]
    return (image.convert("LA") if image.mode == "La" else image).convert("RGB")


def _lower_half(image: Any) -> Image.Image | None:
    """Returns the lower 8 bits of colours of 16 bits, of which Pillow keeps the upper 8; None for other pictures."""
    if image.format not in ("PNG", "TIFF") or not getattr(image, "tile", None) or image.fp is None:
        return None
    mode = _raw_mode(image.tile[0].args)
    if not mode.startswith(("LA;16", "RGB;16", "RGBX;16", "RGBA;16")) or (image.format == "PNG" and image.tell()):
        return None
    place = image.fp.tell()
    try:
        image.fp.seek(0)
        copy: Any = Image.open(image.fp, formats=[image.format])
        copy.seek(image.tell())
        copy.tile = [each._replace(args=_swapped(each.args)) for each in copy.tile]
        copy.load()
    finally:
        image.fp.seek(place)
    return copy.getchannel("G") if mode.startswith("LA") else copy


def _raw_mode(arguments: Any) -> str:
    found = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return found if isinstance(found, str) else ""


def _swapped(arguments: Any) -> Any:
    mode = _raw_mode(arguments)
    other = "RGBA" if mode.startswith("LA") else mode[:-1] + _SWAPPED[mode[-1]]
    return other if isinstance(arguments, str) else (other, *arguments[1:])


def _is_negative(image: Any) -> bool:
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == 0 and image.mode[0] in "IF"


# ---------------------------------------------------------------------- values of any depth as bytes


def to_bytes(values: np.ndarray, name: str = "picture") -> np.ndarray:
    """Returns values of any type as 0..255: deeper ones from black to white, see `grey_range`."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint8:
        return values
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        if not (low >= 0 and 1 < high < 2**16) or (values % 1).any():
            raise PictureError(f"{name}: holds floats, which an exported model does not take; save it as PNG")
        values = values.astype(np.uint16)
        return values.astype(np.uint8) if high <= 255 else _stretched(values, *grey_range(values))
    if low < 0:
        raise PictureError(f"{name}: holds integers from {low} to {high}; expected none below 0, window it first")
    if values.dtype == np.int16:
        values = values.astype(np.uint16)
    return _stretched(values, *grey_range(values))


def grey_range(values: np.ndarray) -> tuple[int, int]:
    """Returns which values are black and white in a picture whose depth nobody has noted."""
    low, high = int(values.min()), int(values.max())
    if high <= 255:
        return 0, 255
    for factor in (257, 256, 64, 16, 4):
        if high <= 255 * factor and (high >= 64 * factor or factor == 257) and not (values % factor).any():
            return 0, 255 * factor
    for bits in (10, 12, 14, 15, 16):
        full = 2**bits - 1
        if (full / 2 if bits == 16 else full * 15 / 16) <= high <= full and high - low >= full / 4:
            return 0, full
    return low, high


def _stretched(values: np.ndarray, low: int, high: int) -> np.ndarray:
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    shifted = np.subtract(np.clip(values, low, high), low, dtype=np.float64).astype(np.float32)
    shifted *= 255.0 / (float(high) - float(low))
    return np.rint(shifted).astype(np.uint8)


# ---------------------------------------------------------------------- the square that a model takes


def to_square(image: np.ndarray, size: int, crop_mode: str, interpolation: str) -> np.ndarray:
    """Crops ("center"), squeezes ("squash") or borders with black ("border") (H, W, 3) to (S, S, 3) uint8."""
    height, width = image.shape[:2]
    short, long, place = min(height, width), max(height, width), (size, size)
    if crop_mode == "center":
        top, left = (height - short) // 2, (width - short) // 2
        image = image[top : top + short, left : left + short]
    elif crop_mode == "border":
        place = max(1, round(height * size / long)), max(1, round(width * size / long))
    small = _resized(image, *place, interpolation)
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - place[0]) // 2, (size - place[1]) // 2
    square[top : top + place[0], left : left + place[1]] = small
    return square


def _resized(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    if image.shape[0] > 8 * image.shape[1]:
        return _resized(image.transpose(1, 0, 2), width, height, interpolation).transpose(1, 0, 2)
    across = _along_rows(image, width, interpolation)
    return _along_rows(across.transpose(1, 0, 2), height, interpolation).transpose(1, 0, 2)


def _along_rows(image: np.ndarray, width: int, interpolation: str) -> np.ndarray:
    """Resizes (H, W, 3) to another width as torch does: antialiased, with weights in whole numbers of 15 bits."""
    if image.shape[1] == width:
        return image
    weights, shift = _weights(image.shape[1], width, interpolation)
    found = np.empty((image.shape[0], width, image.shape[2]), np.uint8)
    for start in range(0, image.shape[0], 64):  # in doubles, where sums of whole numbers are exact
        part = image[start : start + 64].astype(np.float64)
        sums = np.tensordot(part, weights, (1, 1)).transpose(0, 2, 1)
        found[start : start + 64] = np.clip(np.floor((sums + 2.0 ** (shift - 1)) / 2.0**shift), 0, 255)
    return found


def _weights(before: int, after: int, interpolation: str) -> tuple[np.ndarray, int]:
    """Returns whole weights (after, before), and by how many bits they are too large."""
    scale, reach = before / after, 2.0 if interpolation == "bicubic" else 1.0
    support, inverse = reach * max(scale, 1.0), 1 / scale if scale >= 1 else 1.0
    weights = np.zeros((after, before))
    for row in range(after):
        centre = scale * (row + 0.5)
        first = max(int(centre - support + 0.5), 0)
        count = min(max(min(int(centre + support + 0.5), before) - first, 0), 2 * math.ceil(support) + 1)
        x = np.abs((np.arange(first, first + count) - centre + 0.5) * inverse)
        near = np.clip(1 - x, 0, None)
        if interpolation == "bicubic":
            near = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, 0))
        weights[row, first : first + count] = near / near.sum()
    largest, shift = weights.max(), 0
    while shift < 22 and int(0.5 + largest * (1 << (shift + 1))) < 1 << 15:
        shift += 1
    return np.trunc(weights * (1 << shift) + np.where(weights < 0, -0.5, 0.5)), shift


def main() -> int:
    """Prints a JSON object for each picture; the exit status is 1 where one could not be read."""
    parser = argparse.ArgumentParser(description="Run a model that `diffmiczoo export` wrote. Not for clinical use.")
    parser.add_argument("file", help="FILE.onnx")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="0 for all cores")
    arguments = parser.parse_args()
    failed = False
    try:
        model = Model(arguments.file, arguments.threads)
    except Exception as error:  # onnxruntime's have no common type
        print(
            f"{arguments.file}: cannot be used ({_line(error)}); expected a file of diffmiczoo export", file=sys.stderr
        )
        return 2
    for record in model.stream(arguments.pictures, max(1, arguments.batch_size)):
        failed |= "error" in record
        print(json.dumps(record, ensure_ascii=False), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
