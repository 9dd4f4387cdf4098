"""Labelled images as squares, read once; normalised, and augmented for training, each time one is drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.duplicates import content_hash
from diffmiczoo.data.image_cache import load_squares
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.preprocessing import normalize


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images of a manifest as uint8 squares, in memory or, beyond `data.image_cache.MEMORY_LIMIT`, in a mapped file.

    Args:
        manifest: what to load.
        config: the model's, for image size and crop.
        augmentation: applied to every image that is drawn.
        progress: show a bar while decoding; by default where the standard error is a terminal.
        cache: directory for the mapped file, see `data.image_cache.load_squares`.

    Item: image (3, S, S) float32, normalised; target: int64 class number, or (C,) float32 for multi-label. A key is an
    index, or (index, seed): the same seed gives the same augmentation, whatever was drawn before and by which process.

    Attributes:
        squares: (N, 3, S, S) uint8.
        targets: (N,) int64, or (N, C) float32 for multi-label.

    Raises:
        ImageError: images cannot be read; the message names the first ones.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: DiffMICConfig,
        augmentation: v2.Transform | None = None,
        progress: bool | None = None,
        cache: Path | None = None,
    ) -> None:
        self.config, self.manifest, self.augmentation = config, manifest, augmentation
        self.targets = torch.from_numpy(manifest.targets())
        self.squares = load_squares(manifest, config, cache=cache, progress=progress)

    def digest(self) -> str:
        """Returns a hash of the pixels of all squares, in order."""
        hashes = (content_hash(square) for square in self.squares.numpy())
        return hashlib.blake2b(b"".join(hashes), digest_size=16).hexdigest()

    def __len__(self) -> int:
        return len(self.squares)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[Tensor, Tensor]:
        index, seed = key if isinstance(key, tuple) else (key, None)
        image = self.squares[index]
        if self.augmentation is not None:
            image = _augmented(self.augmentation, image, seed)
        return normalize(image, self.config), self.targets[index]


def _augmented(augmentation: v2.Transform, image: Tensor, seed: int | None) -> Tensor:
    if seed is None:
        return augmentation(image)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return augmentation(image)


def images_or_error(manifest: Manifest, *options: Any) -> ImageDataset | ImageError:
    """Returns the images of a manifest, or what keeps them from being read; arguments as for `ImageDataset`."""
    try:
        return ImageDataset(manifest, *options)
    except ImageError as error:
        return error.with_traceback(None)  # its frames hold all squares
