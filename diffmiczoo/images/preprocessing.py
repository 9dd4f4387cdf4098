"""Images → normalised squares that the model takes, and the way back for boxes."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images.items import Item, as_items
from diffmiczoo.images.reading import read_reduced


class Square(NamedTuple):
    """An image as the square of the model's size.

    Attributes:
        pixels: (3, S, S), uint8 or float in [0, 1].
        size: (H, W) of the image that it was made of, upright.
    """

    pixels: Tensor
    size: tuple[int, int]


class _Placement(NamedTuple):
    """Which part of the image is used and where it lies in the square, both (top, left, height, width) in pixels."""

    part: tuple[int, int, int, int]
    place: tuple[int, int, int, int]


def _placement(height: int, width: int, config: DiffMICConfig) -> _Placement:
    size, short, long = config.input_size, min(height, width), max(height, width)
    everything, square = (0, 0, height, width), (0, 0, size, size)
    if config.crop_mode == "center":
        return _Placement(((height - short) // 2, (width - short) // 2, short, short), square)
    if config.crop_mode == "squash":
        return _Placement(everything, square)
    inner_height, inner_width = max(1, round(height * size / long)), max(1, round(width * size / long))
    return _Placement(everything, ((size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width))


def resize_to_square(image: Tensor, config: DiffMICConfig) -> Tensor:
    """Crops ("center"), squeezes ("squash") or borders with black ("border") to a square of the model's size.

    Args:
        image: (3, H, W), uint8 or float in [0, 1].
        config: the model's, for `image_size`, `crop_mode` and `interpolation`.

    Returns:
        (3, S, S), same type and range; resized with antialiasing.
    """
    (top, left, height, width), place = _placement(image.shape[-2], image.shape[-1], config)
    image = _resized(F.crop(image, top, left, height, width), place[2], place[3], config.interpolation)
    below, right = config.input_size - place[0] - place[2], config.input_size - place[1] - place[3]
    padded: Tensor = F.pad(image, [place[1], place[0], right, below])
    return padded


def read_square(item: Item, config: DiffMICConfig) -> Tensor:
    """Reads one image as the square of the model's size, (3, S, S), uint8 or float in [0, 1].

    Raises:
        ImageError: see `read_image`.
    """
    return read_sized_square(item, config).pixels


def read_sized_square(item: Item, config: DiffMICConfig) -> Square:
    """Does what `read_square` does and keeps how large the image was."""
    # Twice the size that is needed, so that how a JPEG is made smaller hardly shows in the square.
    image, reduction = read_reduced(item, 2 * config.input_size)
    return Square(resize_to_square(image, config), (image.shape[-2] * reduction, image.shape[-1] * reduction))


def _resized(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    if image.shape[-2] > 8 * image.shape[-1]:
        # Torch changes the width first, which would blow a tall and narrow image up, and its uint8 kernel is wrong
        # for a new width of 1 (2.15); laid on its side neither happens.
        return _resized(image.mT.contiguous(), width, height, interpolation).mT.contiguous()
    if image.dtype == torch.uint8 and image.device.type == "cpu":
        # torchvision resizes uint8 either as such or as float, by its version and the processor (0.21: as float where
        # there is AVX-512). A sixth of the values then differ by one grey level, and with them ROIs.
        if image.shape[-2:] == (height, width):
            return image
        return interpolate(image[None], (height, width), mode=interpolation, align_corners=False, antialias=True)[0]
    image = F.resize(image, [height, width], interpolation=F.InterpolationMode(interpolation), antialias=True)
    return image.clamp(0, 1) if image.is_floating_point() else image  # bicubic interpolation overshoots


def square_to_original_box(box: Any, original_size: tuple[int, int], config: DiffMICConfig) -> Tensor:
    """Maps boxes in the model's square back to the image that `resize_to_square` was given.

    Args:
        box: (..., 4) left, top, right, bottom in pixels of the square; right and bottom are exclusive.
        original_size: (H, W) of the image.
        config: the model's.

    Returns:
        (..., 4) float32 in pixels of the image, clipped to it.
    """
    part, place = _placement(*original_size, config)
    corners = torch.as_tensor(box, dtype=torch.float64)
    corners = corners.reshape(*corners.shape[:-1], 2, 2)

    def xy(pair: tuple[int, int]) -> Tensor:
        return torch.tensor((pair[1], pair[0]), dtype=torch.float64, device=corners.device)

    mapped = (corners - xy(place[:2])) * xy(part[2:]) / xy(place[2:]) + xy(part[:2])
    return torch.minimum(mapped.clamp(min=0), xy(original_size)).flatten(-2).float()


def square_extent(original_size: tuple[int, int], config: DiffMICConfig) -> tuple[float, float, float, float]:
    """Returns where the model's square lies on the image that `resize_to_square` was given.

    Args:
        original_size: (H, W) of the image.
        config: the model's.

    Returns:
        left, top, right, bottom in pixels of the image; beyond it where the square has a border ("border").
    """
    part, place = _placement(*original_size, config)
    across, down = part[3] / place[3], part[2] / place[2]
    left, top = part[1] - place[1] * across, part[0] - place[0] * down
    return left, top, left + config.input_size * across, top + config.input_size * down


def check_batch(images: Tensor, config: DiffMICConfig) -> Tensor:
    """Returns a batch of normalised images in three channels, (B, 3, S, S); one channel is grey and stands for three.

    Raises:
        ValueError: the message tells what was expected and what was found.
    """
    size = config.input_size
    shapes = [(3, size, size), (1, size, size)]
    if images.ndim != 4 or tuple(images.shape[1:]) not in shapes or not images.is_floating_point():
        raise InvalidValueError(
            f"expected normalised float images of shape (B, 3, {size}, {size}), found {images.dtype} "
            f"{tuple(images.shape)}; model.preprocess turns files, PIL images and arrays into these"
        )
    return images.expand(-1, 3, -1, -1)


def normalize(batch: Tensor, config: DiffMICConfig) -> Tensor:
    """Scales to [0, 1] and standardises by the model's mean and standard deviation: (x - mean) / std.

    Args:
        batch: (..., 3, S, S), uint8 in 0..255 or float in [0, 1].
        config: the model's.

    Returns:
        Same shape, float32.

    Raises:
        TypeError: the batch holds another type.
    """
    if batch.dtype != torch.uint8 and not batch.is_floating_point():
        raise InvalidTypeError(f"expected uint8 or float pixels, found {batch.dtype}")
    values = batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()
    mean, std = _channel_statistics(batch, config)
    return (values - mean) / std


def denormalize(batch: Tensor, config: DiffMICConfig) -> Tensor:
    """Returns the pixels (..., 3, S, S) in [0, 1], float, that `normalize` made these of."""
    mean, std = _channel_statistics(batch, config)
    return (batch * std + mean).clamp(0, 1)


def _channel_statistics(batch: Tensor, config: DiffMICConfig) -> tuple[Tensor, Tensor]:
    mean, std = (torch.tensor(row, device=batch.device)[:, None, None] for row in (config.mean, config.std))
    return mean, std


def preprocess(images: Any, config: DiffMICConfig) -> Tensor:
    """Turns images into what the model takes.

    Args:
        images: as `as_items` takes them, or its items.
        config: the model's.

    Returns:
        (B, 3, S, S) float32, normalised.

    Raises:
        ImageError: an image cannot be read or has a wrong range; the message names it.
        TypeError, ValueError: there are no images, or something else was handed in.
    """
    squares = [read_square(item, config) for item in as_items(images)]
    return torch.stack([normalize(square, config) for square in squares])
