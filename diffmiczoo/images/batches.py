"""One array or tensor → the images in it: one image, a batch of them, or an error where both could be meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from diffmiczoo.errors import InvalidValueError, warn

_CHANNELS = (1, 2, 3, 4)

#: From which correlation of their edges on three planes are the colours of one image. Measured on 128 pixels: the
#: colours of skin images .54 and more (half of them above .89), three skin, ultrasound or chest images at most .39.
_EDGES_OF_ONE = 0.5


def split_batch(array: np.ndarray | Tensor) -> Sequence[Any]:
    """Lists the images of an array or a tensor.

    - Four dimensions are a batch.
    - Three dimensions of an array are one image if the last holds 1 to 4 channels, or the first has a length of 1. Else
      they are a batch of grey images (N, H, W), but for N = 3 and 4, which may be the colours of one image: three
      planes with the same edges are taken for it, which is said.
    - Three dimensions of a tensor are one image (C, H, W) with C = 1 or 3, as everywhere in torch, or (H, W, C). Two or
      four channels first may be grey images as well.

    Warns:
        UserWarning: an array (3, H, W) is taken for one image in colours.

    Raises:
        ValueError: it may be several grey images or the channels of one; the message tells how to say which.
    """
    if array.ndim == 4:
        return list(array)
    if array.ndim != 3 or array.shape[2] in _CHANNELS:
        return [array]
    if isinstance(array, Tensor):
        if array.shape[0] in (2, 4):
            raise InvalidValueError(_ambiguous(array, "tensor", "tensor[:, None]", "tensor[:3]"))
        return [array]
    count, height, width = array.shape
    if count == 3 and _shared_edges(array) >= _EDGES_OF_ONE:
        warn(
            f"the array of shape {tuple(array.shape)} is read as one image in colours, because its three planes have "
            "the same edges; array.transpose(1, 2, 0) says so without this warning, list(array) says three grey images"
        )
        return [array]
    if count in (3, 4):
        raise InvalidValueError(_ambiguous(array, "array", "list(array)", "array[:3].transpose(1, 2, 0)"))
    many_channels = width < count and width < height
    return [array] if count == 1 or many_channels else list(array)


def _shared_edges(planes: np.ndarray) -> float:
    """Returns the least correlation between the differences of neighbouring pixels in two of three planes (3, H, W)."""
    if planes.dtype.kind not in "buif":
        return 0.0
    values = planes.astype(np.float64)
    with np.errstate(all="ignore"):  # NaN, infinity and values beyond all pixels share no edges
        edges = [np.concatenate([np.diff(plane, axis=axis).ravel() for axis in (0, 1)]) for plane in values]
        if not all(edge.size and edge.std() > 0 for edge in edges):
            return 0.0
        return float(np.nan_to_num(np.corrcoef(edges)).min())


def _ambiguous(array: Any, kind: str, batch: str, single: str) -> str:
    count = array.shape[0]
    if count == 2:
        single = "tensor[:1]"
    return (
        f"the {kind} of shape {tuple(array.shape)} may be {count} grey images or the channels of one; expected {batch} "
        f"for {count} images, or {single} for one"
    )
