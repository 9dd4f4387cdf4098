"""JPEG artefacts, noise and blur of whole batches, on the device where the pictures lie.

`augmentation.degradation` for pictures one by one goes through a file for JPEG; here its arithmetic is done on tensors,
so that a GPU waits for no encoder.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Random numbers of a picture: whether, which of three, how much, and whether noise is grey.
NUMBERS = 4

#: The same ranges as for pictures one by one.
_QUALITIES = (20, 91)
_MOST_NOISE = 20.0
_SIGMAS = (0.3, 1.5)
_BLUR = 7

_BLOCK = 8
_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * _BLOCK,) * 4,
)
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


def degraded(values: Tensor, rate: float, numbers: np.ndarray, seeds: list[int]) -> Tensor:
    """Returns a batch of which some pictures have JPEG artefacts, noise or blur, in whole grey levels.

    Args:
        values: (B, 3, S, S) in [0, 1].
        rate: probability that something is done to a picture, 0..1.
        numbers: (B, 4) in [0, 1).
        seeds: B numbers ≥ 0, from which noise is drawn.
    """
    chosen, kinds, amounts, grey = numbers.T
    found = values.clone()
    changes: tuple[Callable[[Tensor, np.ndarray], Tensor], ...] = (
        lambda pixels, rows: jpeg(pixels, np.floor(_between(*_QUALITIES, amounts[rows]))),
        lambda pixels, rows: noisy(pixels, _MOST_NOISE * amounts[rows], grey[rows] < 0.5, [seeds[row] for row in rows]),
        lambda pixels, rows: blurred(pixels, _between(*_SIGMAS, amounts[rows])),
    )
    for kind, change in enumerate(changes):
        rows = np.flatnonzero((chosen < rate) & (np.floor(kinds * len(changes)) == kind))
        if len(rows):
            places = torch.from_numpy(rows).to(values.device, non_blocking=True)
            found[places] = (change(values[places] * 255, rows).round().clamp(0, 255) / 255).to(values.dtype)
    return found


def noisy(pixels: Tensor, sigmas: np.ndarray, grey: np.ndarray, seeds: list[int]) -> Tensor:
    """Adds normal noise to pictures (n, 3, S, S) in grey levels.

    Args:
        pixels: 0..255.
        sigmas: n standard deviations.
        grey: n truth values: the same noise in all three colours.
        seeds: n numbers ≥ 0; equal ones give equal noise on one kind of device.
    """
    device = pixels.device
    drawn = []
    for picture, seed, alike in zip(pixels, seeds, grey, strict=True):
        generator = torch.Generator(device).manual_seed(seed % 2**63)
        shape = picture[:1].shape if alike else picture.shape
        drawn.append(torch.randn(shape, generator=generator, device=device).expand(picture.shape))
    return pixels + _of_pictures(sigmas, pixels) * torch.stack(drawn)


def blurred(pixels: Tensor, sigmas: np.ndarray) -> Tensor:
    """Blurs pictures (n, 3, S, S), each with a Gaussian of its own σ in pixels, seven of them wide."""
    n, channels, height, width = pixels.shape
    away = torch.arange(_BLUR, device=pixels.device) - _BLUR // 2
    weights = torch.exp(-0.5 * (away / _of_pictures(sigmas, pixels).view(n, 1)) ** 2)
    weights = (weights / weights.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    half = _BLUR // 2
    maps = F.pad(pixels, (half, half, half, half), "reflect").view(1, n * channels, height + 2 * half, width + 2 * half)
    maps = F.conv2d(maps, weights[:, None, None, :], groups=n * channels)
    maps = F.conv2d(maps, weights[:, None, :, None], groups=n * channels)
    return maps.view(n, channels, height, width)


def jpeg(pixels: Tensor, qualities: np.ndarray) -> Tensor:
    """Returns what JPEG files would keep of pictures (n, 3, S, S) in grey levels, each with a quality of its own.

    Colours at half the size, as Pillow and libjpeg write them by default; without the entropy coding, which loses
    nothing.

    Args:
        pixels: 0..255.
        qualities: n whole numbers from 1 to 100.

    Source: ITU-T T.81, annexes A.3 and K.1; how a quality scales the tables is libjpeg's.
    """
    height, width = pixels.shape[-2:]
    across, down = -width % (2 * _BLOCK), -height % (2 * _BLOCK)
    padded = F.pad(pixels.round().clamp(0, 255), (0, across, 0, down), "replicate")
    colours = torch.einsum("ij,njhw->nihw", pixels.new_tensor(_TO_YCC), padded)
    colours = colours.round()
    luma = _requantised(colours[:, :1] - 128, _table(_LUMA, qualities, pixels)).round() + 128
    small = F.avg_pool2d(colours[:, 1:], 2).round()
    chroma = _requantised(small, _table(_CHROMA, qualities, pixels)).round()
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    found = torch.einsum("ij,njhw->nihw", pixels.new_tensor(_TO_RGB), torch.cat([luma, chroma], 1))
    return found[..., :height, :width].clamp(0, 255)


def _table(published: tuple[tuple[int, ...], ...], qualities: np.ndarray, like: Tensor) -> Tensor:
    """Returns the steps of quantisation of each quality, (n, 1, 1, 1, 8, 8)."""
    scale = np.where(qualities < 50, np.floor(5000 / qualities), 200 - 2 * qualities)[:, None, None]
    steps = np.clip(np.floor((np.array(published) * scale + 50) / 100), 1, 255)
    return torch.from_numpy(steps).to(like)[:, None, None, None]


def _requantised(maps: Tensor, steps: Tensor) -> Tensor:
    """Rounds the cosine coefficients of 8 × 8 blocks of maps (n, C, H, W) to multiples of steps (n, 1, 1, 1, 8, 8)."""
    n, channels, height, width = maps.shape
    cosines = _cosines(maps)
    blocks = maps.view(n, channels, height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK).transpose(3, 4)
    kept = (cosines @ blocks @ cosines.T / steps).round() * steps
    return (cosines.T @ kept @ cosines).transpose(3, 4).reshape(maps.shape)


def _cosines(like: Tensor) -> Tensor:
    """Returns the orthonormal cosine transform of eight values, (8, 8)."""
    index = np.arange(_BLOCK)
    matrix = np.cos(math.pi * index[:, None] * (2 * index + 1) / (2 * _BLOCK)) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return torch.from_numpy(matrix).to(like)


def _between(least: float, most: float, amounts: np.ndarray) -> np.ndarray:
    return least + (most - least) * amounts


def _of_pictures(numbers: np.ndarray, pixels: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(pixels)[:, None, None, None]
