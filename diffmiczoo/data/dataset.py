"""Labelled images in memory: decoded and resized once, augmented when drawn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from tqdm.auto import tqdm

from diffmiczoo import preprocessing
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest


class ImageDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images of a manifest as uint8 squares, kept in memory.

    Args:
        manifest: what to load.
        config: the model's, for image size and crop.
        augmentation: applied to every image that is drawn.
        progress: show a bar while decoding; by default where the standard error is a terminal.

    Item: image (3, S, S) float32, normalised; target: int64 class number, or (C,) float32 for multi-label.

    Raises:
        ImageError: an image cannot be read; the message names it.
    """

    def __init__(
        self,
        manifest: Manifest,
        config: DiffMICConfig,
        augmentation: v2.Transform | None = None,
        progress: bool | None = None,
    ) -> None:
        self.config = config
        self.augmentation = augmentation
        self.targets = torch.from_numpy(manifest.targets())
        items = preprocessing.as_items([record.path for record in manifest.records])
        self.images = torch.empty(len(items), 3, config.image_size, config.image_size, dtype=torch.uint8)
        squares = preprocessing.load(items, config)
        hide = None if progress is None else not progress
        for index, square in tqdm(squares, total=len(items), desc=f"read {manifest.name}", unit="img", disable=hide):
            self.images[index] = (square * 255).round() if square.is_floating_point() else square

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images[index]
        if self.augmentation is not None:
            image = self.augmentation(image)
        return preprocessing.normalize(image, self.config), self.targets[index]
