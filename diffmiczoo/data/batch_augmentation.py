"""Random changes of a whole batch in one warp, on the device where the pictures lie.

Why beside torchvision's transforms: those change one picture at a time, on the CPU, which leaves a GPU waiting. These
draw from the same ranges, but a crop and a rotation are one interpolation instead of two, and a turned picture shows
what lies beyond the crop instead of black; black (or the mirrored picture) begins where the picture itself ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffmiczoo.data import batch_degradation

# Rec. 601, as torchvision turns colours into grey.
_GREY = (0.2989, 0.587, 0.114)

#: Of a crop's width to its height, at most; and its inverse at least.
_RATIO = 1 / 0.9

#: Random numbers of a picture: area, ratio, place (2), flips (2), angle, brightness, contrast, saturation.
_NUMBERS = 10


@dataclass(frozen=True)
class BatchAugmentation:
    """Crop, flips, rotation, colours and degradation, of every picture of a batch by a seed of its own.

    Attributes:
        hflip, vflip: probabilities, 0..1.
        rotation: degrees either way, 0..180.
        min_scale: smallest share of the area that a crop keeps, 1 for no crop.
        fill: what shows beyond the picture's edges, "black" or "reflect".
        color_jitter: largest relative change of brightness, contrast and saturation.
        degrade: probability of JPEG artefacts, noise or blur.
    """

    hflip: float = 0.5
    vflip: float = 0.0
    rotation: float = 30.0
    min_scale: float = 1.0
    fill: str = "black"
    color_jitter: float = 0.0
    degrade: float = 0.0

    def __call__(self, pictures: Tensor, seeds: list[int]) -> Tensor:
        """Maps pictures (B, 3, S, S), uint8, to changed ones in [0, 1], float32, on their device.

        Args:
            pictures: uint8.
            seeds: B numbers ≥ 0; equal ones give equal changes, whatever else is in the batch.
        """
        numbers = uniform_numbers(seeds, _NUMBERS + batch_degradation.NUMBERS)
        values = pictures.float() / 255
        if self.hflip or self.vflip or self.rotation or self.min_scale < 1:
            values = self._warped(values, self.matrices(numbers))
        if self.color_jitter:
            values = self._recoloured(values, numbers[:, 7:_NUMBERS])
        if self.degrade:
            values = batch_degradation.degraded(values, self.degrade, numbers[:, _NUMBERS:], seeds)
        return values

    def matrices(self, numbers: np.ndarray) -> Tensor:
        """Returns where each place of a new picture lies in the old one, (B, 2, 3) in -1..1, by seven numbers."""
        area = self.min_scale + (1 - self.min_scale) * numbers[:, 0]
        most = math.log(_RATIO) if self.min_scale < 1 else 0.0
        ratio = np.exp((2 * numbers[:, 1] - 1) * most)
        width, height = (np.minimum(np.sqrt(area * side), 1) for side in (ratio, 1 / ratio))
        left, top = ((1 - side) * (2 * place - 1) for side, place in ((width, numbers[:, 2]), (height, numbers[:, 3])))
        across, down = (np.where(numbers[:, 4 + axis] < rate, -1.0, 1.0) for axis, rate in enumerate(self._flips))
        angle = np.deg2rad(self.rotation * (2 * numbers[:, 6] - 1))
        cos, sin = np.cos(angle), np.sin(angle)
        rows = [[across * width * cos, -across * width * sin, left], [down * height * sin, down * height * cos, top]]
        return torch.from_numpy(np.stack([np.stack(row, -1) for row in rows], 1)).float()

    @property
    def _flips(self) -> tuple[float, float]:
        return self.hflip, self.vflip

    def _warped(self, values: Tensor, matrices: Tensor) -> Tensor:
        grid = F.affine_grid(matrices.to(values.device, non_blocking=True), list(values.shape), align_corners=False)
        padding = "reflection" if self.fill == "reflect" else "zeros"
        return F.grid_sample(values, grid, mode="bilinear", padding_mode=padding, align_corners=False)

    def _recoloured(self, values: Tensor, numbers: np.ndarray) -> Tensor:
        """Changes brightness, then contrast about the mean grey, then saturation, as torchvision's ColorJitter does."""
        factors = torch.from_numpy(1 + self.color_jitter * (2 * numbers - 1)).float()
        brightness, contrast, saturation = factors.to(values.device, non_blocking=True)[:, :, None, None, None].unbind(
            1
        )
        values = (values * brightness).clamp(0, 1)
        values = torch.lerp(_grey(values).mean((1, 2, 3), keepdim=True), values, contrast).clamp(0, 1)
        return torch.lerp(_grey(values), values, saturation).clamp(0, 1)


def _grey(values: Tensor) -> Tensor:
    return (values * values.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)


def uniform_numbers(seeds: list[int], count: int) -> np.ndarray:
    """Returns evenly distributed numbers in [0, 1), (len(seeds), count) float64, from each seed alone.

    Source: Steele, Lea, Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014 (SplitMix64).
    """
    step = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = np.array(seeds, np.uint64)[:, None] + step * np.arange(1, count + 1, dtype=np.uint64)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    found: np.ndarray = (state >> np.uint64(11)).astype(np.float64) / 2**53
    return found
