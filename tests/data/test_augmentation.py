"""Augmentation changes pixels and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import TINY
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.augmentation import (
    Jpeg,
    Noise,
    ReflectedAffine,
    create_augmentation,
    create_mixing,
    degradation,
    random_change,
)
from diffmiczoo.images.items import as_items
from diffmiczoo.images.preprocessing import read_square


def test_augmentation_keeps_shape_and_type_and_changes_pixels() -> None:
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    augment = create_augmentation(32, hflip=1.0, vflip=0.5, rotation=30, min_scale=0.5, color_jitter=0.2)
    changed = augment(image)
    assert changed.shape == image.shape and changed.dtype == torch.uint8 and not torch.equal(changed, image)
    flip = create_augmentation(32, hflip=1.0, rotation=0)
    assert torch.equal(flip(image), image.flip(-1))
    assert create_augmentation(32, hflip=0, rotation=0) is None


def test_reflection_leaves_no_black_corner() -> None:
    white = torch.full((3, 33, 33), 255, dtype=torch.uint8)
    torch.manual_seed(0)
    black = create_augmentation(33, hflip=0, rotation=180)
    reflected = create_augmentation(33, hflip=0, rotation=180, fill="reflect", rand_augment=0)
    assert any(int(black(white).min()) == 0 for _ in range(10))
    assert all(int(reflected(white).min()) == 255 for _ in range(10))
    assert all(int(ReflectedAffine(shear_x=1.0, shift_y=0.9)(white).min()) == 255 for _ in range(10))


def test_affine_changes_move_pixels_where_they_should(monkeypatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda count: torch.ones(count))  # the largest amount of each
    image = torch.randint(256, (3, 8, 8), dtype=torch.uint8)
    assert torch.equal(ReflectedAffine(degrees=90)(image), image.rot90(1, (1, 2)))
    shifted = ReflectedAffine(shift_x=0.25)(image)
    assert torch.equal(shifted[..., :6], image[..., 2:]) and torch.equal(shifted[..., 6:], image[..., [7, 6]])
    assert torch.equal(ReflectedAffine(shift_y=0.25)(image).mT, ReflectedAffine(shift_x=0.25)(image.mT.contiguous()))
    sheared = ReflectedAffine(shear_x=2 / 7)(image)  # the first row's centre is 7 half-pixels above the middle
    assert torch.equal(sheared[:, 0, 1:], image[:, 0, :-1]) and torch.equal(sheared[:, 7, :-1], image[:, 7, 1:])
    assert torch.equal(ReflectedAffine()(image.float()), image.float())


def test_random_changes_spare_what_medicine_reads() -> None:
    image = torch.randint(100, 120, (3, 32, 32), dtype=torch.uint8)
    torch.manual_seed(0)
    change = random_change(9.0)
    changed = torch.stack([change(image) for _ in range(60)])
    assert changed.dtype == torch.uint8 and changed.shape[1:] == image.shape
    kinds = len({tuple(row.flatten().tolist()) for row in changed})
    assert 20 < kinds < 60, "some are left as they are, the others differ"
    # Neither inverted nor equalised over all grey levels: brightness by ±27 % is the strongest.
    assert int(changed.min()) >= 0.73 * 100 - 2 and int(changed.max()) <= 1.27 * 119 + 2


def test_cutmix_labels_are_shares_of_the_area() -> None:
    torch.manual_seed(1)
    labels = torch.eye(4)
    for _ in range(20):
        images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16)
        mixed, shares = create_mixing(0.0, 1.0)(images, labels)
        for index in range(4):
            area = [float((mixed[index, 0] == owner).float().mean()) for owner in range(4)]
            assert shares[index].tolist() == pytest.approx(area)


def test_each_batch_has_one_way_of_mixing() -> None:
    torch.manual_seed(0)
    images, labels = torch.arange(2.0)[:, None, None, None].expand(2, 3, 16, 16), torch.eye(2)
    both = create_mixing(0.4, 1.0)
    whole = [bool((images_ % 1 == 0).all()) for images_, _ in (both(images, labels) for _ in range(40))]
    assert 5 < sum(whole) < 35, "rectangles have whole values, mixtures have not"
    assert create_mixing(0.0, 0.0) is None


def test_crops_of_a_squashed_picture_reach_all_of_it(tmp_path) -> None:
    """Of a wide picture with a sign at each end, which a centre square lacks."""
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:, :8, 0] = pixels[:, -8:, 1] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    seen = {}
    for mode in ("center", "squash"):
        config = DiffMICConfig(**{**TINY, "num_classes": 2, "crop_mode": mode})
        square = read_square(as_items(tmp_path / "wide.png")[0], config)
        torch.manual_seed(0)
        crop = create_augmentation(64, hflip=0, rotation=0, min_scale=0.5)
        seen[mode] = torch.stack([crop(square) for _ in range(20)]).amax((0, 2, 3))[:2].tolist()
    assert seen == {"center": [0, 0], "squash": [255, 255]}


def test_degraded_pictures_are_the_same_ones_with_artefacts_noise_or_blur() -> None:
    torch.manual_seed(0)
    image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    image[:, 16:48, 16:48] = 60
    degraded = [degradation()(image) for _ in range(180)]
    errors = [float((each.float() - image.float()).square().mean().sqrt()) for each in degraded]
    assert all(each.dtype == torch.uint8 and each.shape == image.shape for each in degraded)
    assert 0 < max(errors) < 21 and len(set(errors)) > 90
    # Half of the noisy ones have the same noise in all colours; blur and JPEG leave a grey picture grey or nearly.
    colours = [float((each.float() - each.float().mean(0)).abs().mean()) for each in degraded]
    assert 12 < sum(value > 1.5 for value in colours) < 60


def test_noise_has_the_standard_deviation_that_was_drawn(monkeypatch) -> None:
    image = torch.full((3, 128, 128), 128, dtype=torch.uint8)
    for grey in (0.4, 0.6):
        monkeypatch.setattr(torch, "rand", lambda count, grey=grey: torch.tensor([0.5, grey]))
        noisy = Noise(20.0)(image).float() - 128
        assert float(noisy.std()) == pytest.approx(10, rel=0.05)
        assert bool((noisy[0] == noisy[1]).all()) == (grey < 0.5)


def test_half_of_the_pictures_are_degraded_where_the_recipe_says_so() -> None:
    torch.manual_seed(0)
    image = torch.randint(256, (3, 16, 16), dtype=torch.uint8)
    change = create_augmentation(16, hflip=0, rotation=0, degrade=0.5)
    left = sum(torch.equal(change(image), image) for _ in range(100))
    assert 35 <= left <= 65


def test_jpeg_of_a_lower_quality_is_worse() -> None:
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8) * 255, 64, mode="bicubic")[0].clamp(0, 255)
    errors = [float((Jpeg(q, q)(image.to(torch.uint8)).float() - image).abs().mean()) for q in (95, 60, 20)]
    assert 0 < errors[0] < errors[1] < errors[2] < 20
