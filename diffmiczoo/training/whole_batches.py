"""Batches that are changed as a whole, on the device that trains where that is a CUDA GPU, else on the CPU.

Why: a GPU trains a small model faster than cores can prepare its pictures one by one, a core needs a sixth to a quarter
less time for a batch than for its pictures, and a run learns from the same changes wherever it trains. Where a GPU's
memory holds all pictures, they are copied to it once.
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
class BatchedImages:
    """Squares and targets of a data set where they lie, and the device that changes and normalises their batches.

    Attributes:
        squares: (N, 3, S, S) uint8.
        targets: (N,) int64, or (N, C) float32 for multi-label; where the squares are.
        config: the model's.
        device: of what is given.
    """

    squares: Tensor
    targets: Tensor
    config: DiffMICConfig
    device: torch.device

    @classmethod
    def of(cls, images: ImageDataset, device: torch.device, place: torch.device) -> BatchedImages:
        """Copies a data set to a place, or takes it as it is where it lies there already."""
        return cls(images.squares.to(place), images.targets.to(place), images.config, device)

    def __len__(self) -> int:
        return len(self.squares)

    def augmented(self, sampler: BatchSampler, augmentation: BatchAugmentation) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (images (B, 3, S, S) float32, targets) for each batch of a sampler."""
        for batch in sampler:
            places = torch.tensor([place for place, _ in batch]).to(self.squares.device, non_blocking=True)
            values = augmentation(self.squares[places].to(self.device), [seed for _, seed in batch])
            yield normalize(values, self.config), self.targets[places]


@dataclass(frozen=True)
class BatchesInOrder:
    """Batches of some of the images in order, as a `DataLoader` without augmentation would give them."""

    images: BatchedImages
    places: range
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.places) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        images = self.images
        for start in range(self.places.start, self.places.stop, self.batch_size):
            part = slice(start, min(start + self.batch_size, self.places.stop))
            yield normalize(images.squares[part].to(images.device), images.config), images.targets[part].cpu()


def batched(recipe: Recipe, device: torch.device, *images: ImageDataset) -> tuple[BatchedImages, ...] | None:
    """Returns data sets whose batches are changed as a whole; None where a recipe has to see pictures one by one."""
    if recipe.rand_augment:
        return None
    # What the changes give is checked on CPUs and CUDA; for other accelerators they are made on the CPU.
    changes = device if device.type == "cuda" else torch.device("cpu")
    place = changes if _fit(changes, *images) else torch.device("cpu")
    return tuple(BatchedImages.of(each, changes, place) for each in images)


def _fit(device: torch.device, *images: ImageDataset) -> bool:
    """Whether a device's memory holds the pictures beside what training needs."""
    if device.type != "cuda":
        return True
    return sum(each.squares.numel() for each in images) <= _SHARE * torch.cuda.mem_get_info(device)[0]


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
