"""Augmentation changes pixels and nothing else."""

from __future__ import annotations

import torch

from diffmiczoo.data.augmentation import create_augmentation


def test_augmentation_keeps_shape_and_type_and_changes_pixels() -> None:
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    augment = create_augmentation(32, hflip=1.0, vflip=0.5, rotation=30, min_scale=0.5, color_jitter=0.2)
    changed = augment(image)
    assert changed.shape == image.shape and changed.dtype == torch.uint8 and not torch.equal(changed, image)
    flip = create_augmentation(32, hflip=1.0, rotation=0)
    assert torch.equal(flip(image), image.flip(-1))
    assert create_augmentation(32, hflip=0, rotation=0) is None
