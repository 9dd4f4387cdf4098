"""What goes wrong with pictures in a clinic, three severities each: compression, focus, noise, exposure, size, colour.

Pure functions on arrays (H, W, 3) of uint8, to measure how predictions suffer; no picture is trained with them. They
are named and built as in Hendrycks and Dietterich, *Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations* (ICLR 2019), and Di Salvo, Doerrich, Ledig, *MedMNIST-C* (arXiv 2406.17536); docs/evaluate.md compares
the settings.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch.nn.functional import pad

from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images.items import Item
from diffmiczoo.images.reading import read_image

#: Severities of each corruption.
SEVERITIES = (1, 2, 3)

#: Shorter side of the pictures that settings in pixels are for; on others they grow and shrink with it.
_SIDE = 224

#: A picture, its setting, and its own random numbers → the changed picture, as float or uint8.
Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Corruption:
    """A way in which pictures go wrong.

    Attributes:
        settings: for the severities 1, 2 and 3.
        meaning: what the setting is.
        change: what does it.
    """

    settings: tuple[float, float, float]
    meaning: str
    change: Change


def corrupt(picture: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Returns a picture with something gone wrong.

    What is random (noise, whether a picture gets brighter or darker) depends on the picture's own pixels and the seed
    alone: not on its place in a list, and not on the severity, so that a higher one is the same change, only stronger.

    Args:
        picture: (H, W, 3) uint8, grey ones with three equal channels; it is left as it is.
        name: a key of `CORRUPTIONS`.
        severity: 1, 2 or 3.
        seed: another one gives other random numbers.

    Returns:
        (H, W, 3) uint8.

    Raises:
        TypeError: the picture has another type.
        ValueError: it has another shape, or name or severity are unknown.
    """
    if picture.dtype != np.uint8:
        raise InvalidTypeError(f"expected a picture of uint8, found {picture.dtype}")
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise InvalidValueError(f"expected a picture of shape (H, W, 3), found {picture.shape}")
    check_names([name])
    if severity not in SEVERITIES:
        raise InvalidValueError(f"severity={severity!r} must be one of {', '.join(map(str, SEVERITIES))}")
    corruption = CORRUPTIONS[name]
    own = zlib.crc32(picture.tobytes())
    generator = np.random.default_rng([seed, own, zlib.crc32(name.encode())])
    changed = corruption.change(picture, corruption.settings[severity - 1], generator)
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def check_names(names: list[str]) -> None:
    """Refuses names that no corruption has.

    Raises:
        ValueError: the message lists those that there are.
    """
    unknown = [name for name in names if name not in CORRUPTIONS]
    if unknown:
        raise InvalidValueError(f"{unknown[0]!r} is no corruption; known are {', '.join(CORRUPTIONS)}")


def corrupted(item: Item, name: str, severity: int, seed: int = 0) -> Item:
    """Returns an item that is read as another one is, whole, and corrupted then, before it is made a square.

    Args:
        item: the picture; deep and float ones become uint8 as `read_image` says, and by rounding.
        name: see `corrupt`.
        severity: see `corrupt`.
        seed: see `corrupt`.
    """
    return Item(item.name, partial(_read_corrupted, item, name, severity, seed))


def _read_corrupted(item: Item, name: str, severity: int, seed: int) -> np.ndarray:
    image = read_image(item)
    if image.is_floating_point():
        image = (image * 255).round().to(torch.uint8)
    return corrupt(image.permute(1, 2, 0).contiguous().numpy(), name, severity, seed)


# ---------------------------------------------------------------------- the changes


def _jpeg(picture: np.ndarray, quality: float, generator: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=int(quality))
    return np.asarray(Image.open(file))


def _blur(picture: np.ndarray, sigma: float, generator: np.random.Generator) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(sigma * _scale(picture))))


def _defocus(picture: np.ndarray, radius: float, generator: np.random.Generator) -> np.ndarray:
    """Spreads each point over a disc, as a lens does that is not in focus; in Fourier space, where its size is free."""
    radius = radius * _scale(picture)
    reach = math.ceil(radius)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    disc = (radius + 0.5 - torch.hypot(offsets[:, None], offsets)).clamp(0, 1)
    planes = torch.tensor(picture, dtype=torch.float32).permute(2, 0, 1)
    padded = pad(planes[None], [reach] * 4, mode="replicate")[0]
    size = padded.shape[-2:]
    product = torch.fft.rfft2(padded) * torch.fft.rfft2(disc / disc.sum(), s=size)
    return torch.fft.irfft2(product, s=size)[:, 2 * reach :, 2 * reach :].permute(1, 2, 0).numpy()


def _noise(picture: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    channels = 1 if _is_grey(picture) else 3
    drawn = generator.standard_normal((*picture.shape[:2], channels), dtype=np.float32)
    return picture + deviation * drawn


def _brightness(picture: np.ndarray, factor: float, generator: np.random.Generator) -> np.ndarray:
    return picture * np.float32(factor if generator.integers(2) else 1 / factor)


def _contrast(picture: np.ndarray, factor: float, generator: np.random.Generator) -> np.ndarray:
    mean = picture.mean(dtype=np.float64)
    return mean + (picture - mean) * (factor if generator.integers(2) else 1 / factor)


def _downscale(picture: np.ndarray, factor: float, generator: np.random.Generator) -> np.ndarray:
    height, width = picture.shape[:2]
    smaller = factor * max(min(height, width) / _SIDE, 1)
    size = max(1, round(width / smaller)), max(1, round(height / smaller))
    bilinear = Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(picture).resize(size, bilinear).resize((width, height), bilinear))


def _cast(picture: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    signed = share if generator.integers(2) else -share
    return picture * np.array([1 + signed, 1, 1 - signed], dtype=np.float32)


def _scale(picture: np.ndarray) -> float:
    """Returns by what settings in pixels grow on a picture; half of them at least, which show in any."""
    return max(min(picture.shape[:2]) / _SIDE, 0.5)


def _is_grey(picture: np.ndarray) -> bool:
    return bool((picture == picture[..., :1]).all())


#: Name → what it does.
CORRUPTIONS: dict[str, Corruption] = {
    "jpeg": Corruption((50, 20, 10), "quality", _jpeg),
    "blur": Corruption((1, 2, 3), "σ of a Gaussian in pixels, at a shorter side of 224", _blur),
    "defocus": Corruption((2, 4, 6), "radius of a disc in pixels, at a shorter side of 224", _defocus),
    "noise": Corruption((8, 15, 30), "standard deviation in grey levels of 255", _noise),
    "brightness": Corruption((1.15, 1.3, 1.5), "factor, brighter or darker", _brightness),
    "contrast": Corruption((1.2, 1.4, 1.7), "factor about the mean, more or less", _contrast),
    "downscale": Corruption((2, 3, 4), "the shorter side is 224 pixels divided by it", _downscale),
    "colour_cast": Corruption((0.08, 0.16, 0.3), "share by which red is up and blue down, or the reverse", _cast),
}
