"""Pictures of a run that lie on the GPU: decoded once, copied once, changed and normalised there.

Why: a GPU trains a small model faster than cores can prepare its pictures, and each batch's way over the bus is one
more wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.batch_augmentation import BatchAugmentation
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import BatchSampler

#: Share of the GPU's free memory that pictures may take.
_SHARE = 0.3


@dataclass(frozen=True)
class ResidentImages:
    """Squares and targets of a data set on a device.

    Attributes:
        squares: (N, 3, S, S) uint8.
        targets: (N,) int64, or (N, C) float32 for multi-label.
        config: the model's.
    """

    squares: Tensor
    targets: Tensor
    config: DiffMICConfig

    @classmethod
    def of(cls, images: ImageDataset, device: torch.device) -> ResidentImages:
        """Copies a data set to a device."""
        return cls(images.squares.to(device), images.targets.to(device), images.config)

    def __len__(self) -> int:
        return len(self.squares)

    def augmented(self, sampler: BatchSampler, augmentation: BatchAugmentation) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (images (B, 3, S, S) float32, targets) for each batch of a sampler."""
        for batch in sampler:
            places = self._places([place for place, _ in batch])
            values = augmentation(self.squares[places], [seed for _, seed in batch])
            yield normalize(values, self.config), self.targets[places]

    def _places(self, places: list[int]) -> Tensor:
        return torch.tensor(places).to(self.squares.device, non_blocking=True)


@dataclass(frozen=True)
class ResidentBatches:
    """Batches of some of the images in order, as a `DataLoader` without augmentation would give them."""

    images: ResidentImages
    places: range
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(self.places.start, self.places.stop, self.batch_size):
            part = slice(start, min(start + self.batch_size, self.places.stop))
            yield normalize(self.images.squares[part], self.images.config), self.images.targets[part].cpu()


def can_be_resident(recipe: Recipe, device: torch.device, *images: ImageDataset) -> bool:
    """Whether a recipe's augmentation can be computed on the device, and its memory holds the pictures."""
    if device.type != "cuda" or recipe.rand_augment:
        return False
    needed = sum(each.squares.numel() for each in images)
    return needed <= _SHARE * torch.cuda.mem_get_info(device)[0]


def augmentation_of(recipe: Recipe) -> BatchAugmentation:
    """Returns what a recipe asks for."""
    return BatchAugmentation(
        recipe.hflip,
        recipe.vflip,
        recipe.rotation,
        recipe.min_scale,
        recipe.fill,
        recipe.color_jitter,
        recipe.degrade,
    )
