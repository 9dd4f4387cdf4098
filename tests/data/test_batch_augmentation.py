"""Changes of a whole batch: what each does, that a seed decides it, and that torchvision's do the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from diffmiczoo.data.batch_augmentation import BatchAugmentation, uniform_numbers

NOTHING = {"hflip": 0.0, "vflip": 0.0, "rotation": 0.0}


def pictures(count: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_seed_decides_the_change_whatever_else_is_in_the_batch() -> None:
    change = BatchAugmentation(vflip=0.5, rotation=180, min_scale=0.5, color_jitter=0.2, degrade=1.0)
    images = pictures()
    together = change(images, [3, 5, 7, 9])
    assert together.dtype == torch.float32
    assert 0 <= together.min() <= together.max() <= 1
    torch.testing.assert_close(change(images[2:3], [7]), together[2:3])
    assert not torch.equal(change(images[2:3], [8]), together[2:3])


def test_nothing_asked_for_changes_nothing() -> None:
    images = pictures()
    torch.testing.assert_close(BatchAugmentation(**NOTHING)(images, [0, 1, 2, 3]), images / 255)


@pytest.mark.parametrize(("name", "axis"), [("hflip", 3), ("vflip", 2)])
def test_flips(name: str, axis: int) -> None:
    images = pictures()
    flipped = BatchAugmentation(**(NOTHING | {name: 1.0}))(images, [0, 1, 2, 3])
    torch.testing.assert_close(flipped, images.flip(axis) / 255)


def test_half_of_the_pictures_are_flipped() -> None:
    images = torch.arange(2, dtype=torch.uint8).expand(400, 3, 2, 2)
    flipped = BatchAugmentation(**(NOTHING | {"hflip": 0.5}))(images, list(range(400)))[:, 0, 0, 0] > 0
    assert 0.4 < flipped.float().mean() < 0.6


def test_rotation_is_torchvisions() -> None:
    """Our random angle, read from the matrix, given to torchvision."""
    image = pictures(1, 33)
    change = BatchAugmentation(hflip=0.0, rotation=90)
    matrix = change.matrices(uniform_numbers([11], 10))[0]
    angle = float(torch.rad2deg(torch.atan2(matrix[1, 0], matrix[0, 0])))
    theirs = TF.rotate(image.float() / 255, angle, interpolation=v2.InterpolationMode.BILINEAR)
    inside = (slice(None), slice(None), slice(8, 25), slice(8, 25))
    torch.testing.assert_close(change(image, [11])[inside], theirs[inside], atol=2e-3, rtol=0)


def test_a_crop_is_what_resizing_that_part_gives() -> None:
    image = torch.linspace(0, 255, 64).to(torch.uint8).expand(1, 3, 64, 64)
    matrix = BatchAugmentation(hflip=0.0, rotation=0, min_scale=0.3).matrices(uniform_numbers([4], 10))[0]
    width, left = float(matrix[0, 0]), float(matrix[0, 2])
    assert 0.3**0.5 * 0.9 < width < 1
    changed = BatchAugmentation(hflip=0.0, rotation=0, min_scale=0.3)(image, [4])[0, 0, 32]
    places = (((torch.arange(64) + 0.5) / 32 - 1) * width + left + 1) * 32 - 0.5
    torch.testing.assert_close(changed, places.clamp(0, 63) * 255 / 63 / 255, atol=8e-3, rtol=0)


def test_colours_are_torchvisions() -> None:
    image = pictures(1)
    numbers = uniform_numbers([21], 10)[0, 7:]
    brightness, contrast, saturation = (1 + 0.3 * (2 * numbers - 1)).tolist()
    wanted = TF.adjust_brightness(image.float() / 255, brightness)
    wanted = TF.adjust_saturation(TF.adjust_contrast(wanted, contrast), saturation)
    found = BatchAugmentation(**NOTHING, color_jitter=0.3)(image, [21])
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_beyond_the_edges_it_is_black_or_mirrored() -> None:
    white = torch.full((8, 3, 32, 32), 255, dtype=torch.uint8)
    black = BatchAugmentation(hflip=0.0, rotation=45)(white, list(range(8)))
    mirrored = BatchAugmentation(hflip=0.0, rotation=45, fill="reflect")(white, list(range(8)))
    assert black[:, :, 0, 0].min() == 0
    torch.testing.assert_close(mirrored, torch.ones_like(mirrored))


def test_uniform_numbers_are_even_and_independent() -> None:
    numbers = uniform_numbers(list(range(5000)), 4)
    assert np.abs(numbers.mean(0) - 0.5).max() < 0.02
    assert np.abs(numbers.var(0) - 1 / 12).max() < 0.005
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.05
    assert uniform_numbers([2**63 - 1], 1).shape == (1, 1)
