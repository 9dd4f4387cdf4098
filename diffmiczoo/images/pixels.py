"""Arrays and tensors of any type → (3, H, W): shapes, channels and value ranges, and the error that names the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.images.items import ImageError, one_line

#: The largest image that is used, in pixels (DICOM: in samples). For what Pillow opens, its own limit holds as well:
#: `PIL.Image.MAX_IMAGE_PIXELS`, 89 million by default.
MAX_PIXELS = 100_000_000

# How far floats may lie beyond black and white: 1 + 1/128 is what bfloat16 has next to 1.
_ROUNDING = 1 / 128


@dataclass(frozen=True, eq=False)
class Planes:
    """An image as its source holds it.

    Args:
        values: (C, H, W) of any type, C = 1..4.
        frames: how many frames or pages the source has; this is the first.
        negative: zero is white.
        reduction: by what factor it was decoded smaller than the source is.
        channels: how many the source has of those that are no colours; this is the first.
    """

    values: np.ndarray
    frames: int = 1
    negative: bool = False
    reduction: int = 1
    channels: int = 1


def check_size(name: str, height: int, width: int, samples: int = 1) -> None:
    """Raises ImageError unless the image has at least one pixel and at most `MAX_PIXELS`."""
    if height < 1 or width < 1:
        raise ImageError(name, f"is {width}×{height} pixels; expected at least 1×1")
    if height * width * samples > MAX_PIXELS:
        each = f" of {samples} samples" if samples > 1 else ""
        raise ImageError(
            name, f"is {width}×{height} pixels{each}; expected at most {MAX_PIXELS:,}, make it smaller first"
        )


def array_of_tensor(name: str, tensor: Tensor) -> np.ndarray:
    """Returns the tensor as an array of the same shape, on the CPU.

    Raises:
        ImageError: it holds no plain values, such as a sparse tensor or one on the device "meta".
    """
    try:
        tensor = tensor.detach().cpu()
        # NumPy has neither bfloat16 nor the 8-bit floats.
        return (tensor.float() if tensor.is_floating_point() and tensor.dtype != torch.float64 else tensor).numpy()
    except (RuntimeError, TypeError) as error:
        reason = f"is a tensor without plain values ({one_line(error)}); expected a dense one in memory"
        raise ImageError(name, reason) from error


def planes_of_array(name: str, array: np.ndarray, channels_first: bool) -> np.ndarray:
    """Returns the image as (C, H, W) with C = 1..4.

    Args:
        name: the image's, for errors.
        array: (H, W), (H, W, C) or (C, H, W).
        channels_first: which order is meant where both fit.

    Raises:
        ImageError: the shape is none of these, or the image is empty or too large.
    """
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise ImageError(name, "has masked pixels; expected none, array.filled(0) makes them black")
    if array.ndim == 2:
        array, channels_first = array[None], True
    if array.ndim != 3:
        raise ImageError(name, f"has shape {array.shape}; expected (H, W), (H, W, C) or (C, H, W) with C = 1..4")
    fits_first, fits_last = 1 <= array.shape[0] <= 4, 1 <= array.shape[2] <= 4
    if not fits_first and not fits_last:
        raise ImageError(
            name,
            f"has shape {array.shape}; expected 1..4 channels first or last. A batch has four dimensions: "
            "(N, C, H, W) or (N, H, W, C)",
        )
    planes = array if fits_first and (channels_first or not fits_last) else array.transpose(2, 0, 1)
    check_size(name, planes.shape[1], planes.shape[2])
    return planes


def to_rgb(name: str, planes: np.ndarray, negative: bool = False) -> Tensor:
    """Turns (C, H, W) of any dtype into the (3, H, W) tensor that `read_image` returns; always a copy.

    Args:
        name: the image's, for errors.
        planes: as `planes_of_array` gives them.
        negative: zero is white.

    Raises:
        ImageError: the values are of a type or range that `read_image` refuses.
    """
    colours = planes[:1] if len(planes) < 3 else planes[:3]
    values = _to_known_range(name, colours)
    if negative:
        values = (255 if values.dtype == np.uint8 else np.float32(1)) - values
    # A copy in one memory layout: the resize of torchvision may round differently in another.
    return torch.from_numpy(np.array(np.broadcast_to(values, (3, *values.shape[1:])), order="C"))


def _to_known_range(name: str, values: np.ndarray) -> np.ndarray:
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "f":
        return _checked_floats(name, values)
    if kind not in "iu" or values.dtype == np.int8:
        raise ImageError(name, f"holds {values.dtype} values; expected uint8, uint16 or float values, convert it first")
    if bits == 8:
        return values
    low, high = values.min(), values.max()
    if low < 0:
        raise ImageError(name, f"holds integers from {low} to {high}; expected none below 0, window it to uint8 first")
    if bits == 64:
        return _checked_integers(name, values, int(low), int(high))
    if values.dtype == np.int16:  # its full scale has 16 bits
        values = values.astype(np.uint16)
    return stretch(values, *grey_range(values))


def _checked_floats(name: str, values: np.ndarray) -> np.ndarray:
    low, high = values.min(), values.max()
    if not np.isfinite(low) or not np.isfinite(high):
        bad = "NaN" if np.isnan(low) or np.isnan(high) else "infinity"
        raise ImageError(name, f"holds {bad}; expected finite values in [0, 1], replace them first")
    if low >= 0 and high > 1 and float(high) < 2**16 and not (values % 1).any():
        return _to_known_range(name, values.astype(np.uint16))
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        near = "clip what a resize has overshot" if low > -0.5 and high < 1.5 else "divide 8-bit values by 255"
        found = f"holds floats from {low:.6g} to {high:.6g}"
        raise ImageError(name, f"{found}; expected [0, 1]: {near}, window others first")
    if 0 < float(high) < 0.99 / 255:
        reason = (
            f"holds floats up to {high:.3g}, darker than one of 255 grey levels; expected [0, 1]: divided by 255 twice?"
        )
        raise ImageError(name, reason)
    singles: np.ndarray = values.astype(np.float32, copy=False)
    return singles.clip(0, 1) if low < 0 or high > 1 else singles


def _checked_integers(name: str, values: np.ndarray, low: int, high: int) -> np.ndarray:
    if high > 255:
        raise ImageError(
            name,
            f"holds {values.dtype} values from {low} to {high}; expected 0..255 in this type: convert an 8-bit image "
            "to uint8, a deeper one to uint16 or int32 (whose depth is told from the values)",
        )
    return values.astype(np.uint8)


def grey_range(values: np.ndarray) -> tuple[int, int]:
    """Returns the values that are black and white in an image of more than 8 bits whose depth nobody has noted.

    - None above 255: 8 bits, 0 and 255.
    - All multiples of 257, 256, 64, 16 or 4, the factors by which programs widen 8 bits: 0 and 255 times that.
    - Else full scale where the values fill it: 0 and 2^bits - 1 for 10, 12, 14 and 15 bits if the highest lies in the
      last sixteenth, for 16 bits if it lies in the upper half; and if the values span at least a quarter of it.
    - Else the lowest and the highest value, because 12-bit data in 16 bits would come out nearly black.

    So the same picture of 8, 12 or 16 bits gives the same answer.

    Args:
        values: integers of any shape, none below 0.
    """
    low, high = int(values.min()), int(values.max())
    if high <= 255:
        return 0, 255
    for factor in (257, 256, 64, 16, 4):
        if high <= 255 * factor and (high >= 64 * factor or factor == 257) and _all_multiples(values, factor):
            return 0, 255 * factor
    for bits in (10, 12, 14, 15, 16):
        full = 2**bits - 1
        if (full / 2 if bits == 16 else full * 15 / 16) <= high <= full and high - low >= full / 4:
            return 0, full
    return low, high


def _all_multiples(values: np.ndarray, factor: int) -> bool:
    # The first column tells most images apart in no time.
    return not (values[..., :1] % factor).any() and not (values % factor).any()


def stretch(values: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Maps `low`..`high` linearly to uint8 0..255 and clips what lies outside; black where they are equal.

    Args:
        values: of any shape; integers, or floats without NaN.
        low: in the type of `values`.
        high: the same.
    """
    if not low < high:
        return np.zeros(values.shape, np.uint8)
    # Computed in float64 and stored in float32: exact, the same for every integer type, and half the memory.
    shifted = np.empty(values.shape, np.float32)
    np.subtract(np.clip(values, low, high), low, out=shifted, dtype=np.float64, casting="same_kind")
    shifted *= 255.0 / (float(high) - float(low))
    return np.rint(shifted, out=shifted).astype(np.uint8)
