"""What users hand in → normalised batches: items, the evaluation transform, and the way back for boxes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.pixels import MAX_PIXELS, ImageError
from diffmiczoo.images.reading import Item, read_image

__all__ = [
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "ImageError",
    "Item",
    "as_items",
    "list_images",
    "normalize",
    "preprocess",
    "read_image",
    "read_square",
    "resize_to_square",
    "square_to_original_box",
]

#: What `list_images` takes for an image, in lower case. HEIF needs a plug-in of Pillow.
IMAGE_EXTENSIONS = frozenset(
    ".avif .bmp .dcm .dicom .gif .heic .heif .j2c .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .mpo .pbm .pgm .png .pnm .ppm "
    ".tif .tiff .webp".split()
)

_ACCEPTED = (
    "a path, a directory, a PIL image, a NumPy array or a tensor (four dimensions are a batch), or a list of these"
)

# ---------------------------------------------------------------------- items


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Finds the image files of a folder and its sub-folders by extension, in natural order (image2 before image10).

    Hidden files and folders (".ipynb_checkpoints", "._scan.jpg") are left out and links to folders are not followed.

    Raises:
        ImageError: there is no such folder, a part of it cannot be listed, or it holds no image.
    """
    name = os.fsdecode(folder)
    found = []
    try:
        for parent, folders, files in os.walk(name, onerror=_raise):
            folders[:] = [entry for entry in folders if not entry.startswith(".")]
            found += [Path(parent, file) for file in files if not file.startswith(".")]
    except OSError as error:
        raise ImageError(name, f"cannot be listed ({error}); expected a readable directory") from error
    images = [path for path in found if path.suffix.lower() in IMAGE_EXTENSIONS]
    if not images:
        raise ImageError(
            name, f"holds no image among {len(found)} files; expected {' '.join(sorted(IMAGE_EXTENSIONS))}"
        )
    return sorted(images, key=_natural_key)


def _raise(error: OSError) -> None:
    raise error


def _natural_key(path: Path) -> tuple[Any, ...]:
    # Splitting at digits alternates text and numbers, so that numbers only meet numbers.
    words = [re.split(r"([0-9]+)", part.casefold()) for part in path.parts]
    return [[int(word) if i % 2 else word for i, word in enumerate(part)] for part in words], str(path)


def as_items(images: Any) -> list[Item]:
    """Lists what users hand in as items, one per image; nothing is opened yet, but directories are listed.

    Args:
        images: a path, a directory, a PIL image, an array (H, W), (H, W, C), (C, H, W) or a batch of four dimensions,
            a tensor (H, W), (C, H, W), (H, W, C) or a batch, an `Item`, or a list or tuple of these.

    Returns:
        Items named by their path, or "images[3]" after their place in the result. A name that occurs again gets its
        count: "scan.png (2)".

    Raises:
        TypeError: something else was handed in, such as bytes, a URL or None.
        ValueError: there are no images; ImageError where a directory holds none.
    """
    entries = images if isinstance(images, list | tuple) else [images]
    sources = [source for entry in entries for source in _sources(entry)]
    if not sources:
        raise ValueError(f"there are no images; expected {_ACCEPTED}")
    if all(isinstance(source, Item) for source in sources):
        return sources
    contents = [source.source if isinstance(source, Item) else source for source in sources]
    return [Item(name, content) for name, content in zip(_names(sources), contents, strict=True)]


def _sources(entry: Any) -> Sequence[Any]:
    """Returns the images of one entry of the list: those of a directory or a batch, else itself."""
    if isinstance(entry, str | os.PathLike):
        return _sources_of_path(entry)
    if isinstance(entry, np.ndarray) and entry.dtype.kind in "OSUV":
        raise TypeError(
            f"an array of {entry.dtype} is not an image; expected {_ACCEPTED} (array.tolist() gives a list)"
        )
    if isinstance(entry, np.ndarray | Tensor):
        return list(entry) if entry.ndim == 4 else [entry]
    if isinstance(entry, Image.Image | Item):
        return [entry]
    raise TypeError(f"{_shown(entry)} is not an image; expected {_ACCEPTED}")


def _sources_of_path(entry: str | os.PathLike[str]) -> Sequence[Any]:
    path = os.fsdecode(entry)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", path):
        raise TypeError(f"{_shown(path)} is a URL, and URLs are not fetched; download it first and hand in its path")
    return list_images(path) if os.path.isdir(path) else [path]


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | bytes | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _names(sources: Sequence[Any]) -> Iterator[str]:
    used: set[str] = set()
    repeats: Counter[str] = Counter()
    for index, source in enumerate(sources):
        name = free = _name(source, index)
        while free in used:
            repeats[name] += 1
            free = f"{name} ({repeats[name] + 1})"
        used.add(free)
        yield free


def _name(source: Any, index: int) -> str:
    if isinstance(source, Item):
        return source.name
    return (os.fsdecode(source) or "''") if isinstance(source, str | os.PathLike) else f"images[{index}]"


# ---------------------------------------------------------------------- the evaluation transform


class _Placement(NamedTuple):
    """Which part of the picture is used and where it lies in the square, both (top, left, height, width) in pixels."""

    part: tuple[int, int, int, int]
    place: tuple[int, int, int, int]


def _placement(height: int, width: int, config: DiffMICConfig) -> _Placement:
    size, short, long = config.image_size, min(height, width), max(height, width)
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
    below, right = config.image_size - place[0] - place[2], config.image_size - place[1] - place[3]
    padded: Tensor = F.pad(image, [place[1], place[0], right, below])
    return padded


def read_square(item: Item, config: DiffMICConfig) -> Tensor:
    """Reads one picture as the square of the model's size, (3, S, S), uint8 or float in [0, 1].

    Raises:
        ImageError: see `read_image`.
    """
    # Twice the size that is needed, so that how a JPEG is made smaller hardly shows in the square.
    return resize_to_square(read_image(item, at_least=2 * config.image_size), config)


def _resized(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    if image.shape[-2] > 8 * image.shape[-1]:
        # Torch changes the width first, which would blow a tall and narrow picture up, and its uint8 kernel is wrong
        # for a new width of 1 (2.15); laid on its side neither happens.
        return _resized(image.mT.contiguous(), width, height, interpolation).mT.contiguous()
    image = F.resize(image, [height, width], interpolation=F.InterpolationMode(interpolation), antialias=True)
    return image.clamp(0, 1) if image.is_floating_point() else image  # bicubic interpolation overshoots


def square_to_original_box(box: Any, original_size: tuple[int, int], config: DiffMICConfig) -> Tensor:
    """Maps boxes in the model's square back to the picture that `resize_to_square` was given.

    Args:
        box: (..., 4) left, top, right, bottom in pixels of the square; right and bottom are exclusive.
        original_size: (H, W) of the picture.
        config: the model's.

    Returns:
        (..., 4) float32 in pixels of the picture, clipped to it.
    """
    part, place = _placement(*original_size, config)
    corners = torch.as_tensor(box, dtype=torch.float64)
    corners = corners.reshape(*corners.shape[:-1], 2, 2)

    def xy(pair: tuple[int, int]) -> Tensor:
        return torch.tensor((pair[1], pair[0]), dtype=torch.float64, device=corners.device)

    mapped = (corners - xy(place[:2])) * xy(part[2:]) / xy(place[2:]) + xy(part[:2])
    return torch.minimum(mapped.clamp(min=0), xy(original_size)).flatten(-2).float()


def check_batch(images: Tensor, config: DiffMICConfig) -> None:
    """Refuses what is not a batch of normalised images of the config's size.

    Raises:
        ValueError: the message tells what was expected and what was found.
    """
    size = config.image_size
    if images.ndim != 4 or images.shape[1:] != (3, size, size) or not images.is_floating_point():
        raise ValueError(
            f"expected normalised float images of shape (B, 3, {size}, {size}), found {images.dtype} "
            f"{tuple(images.shape)}; model.preprocess turns files, PIL images and arrays into these"
        )


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
        raise TypeError(f"expected uint8 or float pixels, found {batch.dtype}")
    values = batch.float() / 255 if batch.dtype == torch.uint8 else batch.float()
    mean, std = (torch.tensor(row, device=batch.device)[:, None, None] for row in (config.mean, config.std))
    normal: Tensor = (values - mean) / std
    return normal


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
