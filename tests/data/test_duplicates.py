"""Copies of pictures: found whatever happened to them, and not found where pictures merely look alike."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from factories import smooth_picture
from PIL import Image, ImageEnhance

from diffmiczoo.data import duplicates
from diffmiczoo.data.duplicates import Prints, least_correlation, near_copies, same_content

COUNT, SIZE = 40, 96


def _scene(seed: int) -> Image.Image:
    """A picture of spots on slow waves that all scenes share, as pictures of one organ do."""
    rng = np.random.default_rng(seed)
    pixels = smooth_picture(SIZE, SIZE).astype(float)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for row, column, width, height in zip(*rng.integers(0, SIZE, (2, 25)), rng.uniform(2, 6, 25), rng.uniform(-60, 60, 25), strict=True):  # fmt: skip  # noqa: E501
        pixels += (height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / width**2))[..., None]
    return Image.fromarray(np.clip(0.7 * pixels + 40, 0, 255).astype(np.uint8))


def _square(image: Image.Image) -> torch.Tensor:
    pixels = np.array(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


WAYS = {
    "JPEG of quality 90": (lambda image: _jpeg(image, 90), ""),
    "JPEG of quality 40": (lambda image: _jpeg(image, 40), ""),
    "half the size": (lambda image: image.resize((SIZE // 2, SIZE // 2)), ""),
    "twice the size": (lambda image: image.resize((SIZE * 2, SIZE * 2)), ""),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.15), ""),
    "darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.7), ""),
    "more contrast": (lambda image: ImageEnhance.Contrast(image).enhance(1.3), ""),
    "grey": (lambda image: image.convert("L"), ""),
    "mirrored": (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "mirrored"),
    "upside down": (lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), "upside down"),
    "turned": (lambda image: image.transpose(Image.Transpose.ROTATE_270), "turned by 90°"),
    "turned and saved": (lambda image: _jpeg(image.transpose(Image.Transpose.ROTATE_180), 80), "turned by 180°"),
    "transposed": (lambda image: image.transpose(Image.Transpose.TRANSPOSE), "mirrored and turned by 90°"),
}


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    return [_scene(seed) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def prints(scenes) -> Prints:
    return Prints.of(torch.stack([_square(scene) for scene in scenes]).split(16))


def test_pictures_of_one_kind_are_no_copies(prints) -> None:
    assert len(prints) == COUNT and not same_content(prints) and not near_copies(prints)


@pytest.mark.parametrize(("change", "turn"), WAYS.values(), ids=WAYS)
def test_a_copy_is_found_whatever_happened_to_it(scenes, prints, change, turn: str) -> None:
    chosen = [3, 17, 31]
    copies = Prints.of([torch.stack([_square(change(scenes[place])) for place in chosen])])
    found = near_copies(Prints.joined([prints, copies]))
    assert [(copy.first, copy.second) for copy in found] == [(place, COUNT + n) for n, place in enumerate(chosen)]
    assert all(copy.turn == turn and 0.65 <= copy.correlation <= 1 for copy in found)


def test_equal_pixels_are_sets_and_no_near_copies(prints) -> None:
    both = Prints.joined([prints, prints, prints])
    assert same_content(both) == [[place, place + COUNT, place + 2 * COUNT] for place in range(COUNT)]
    assert not near_copies(both)


def test_only_pairs_that_are_asked_for(scenes, prints) -> None:
    copies = Prints.of([torch.stack([_square(_jpeg(scenes[place], 80)) for place in (0, 1)])])
    both = Prints.joined([prints, copies])
    (found,) = near_copies(both, asked=lambda first, second: (first == 0) | (second == 0))
    assert (found.first, found.second) == (0, COUNT)


@pytest.mark.parametrize("value", [0, 128, 254])
def test_empty_pictures_are_no_near_copies(prints, value: int) -> None:
    """Empty pictures with the noise of a sensor have nothing in common but that they are empty."""
    noise = torch.randint(2, (6, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(value))
    squares = (value + noise).clamp(max=255).to(torch.uint8)
    assert not near_copies(Prints.joined([prints, Prints.of([squares])]))


def test_few_and_no_pictures(scenes) -> None:
    assert not near_copies(Prints.of([])) and not same_content(Prints.of([]))
    pair = torch.stack([_square(scenes[0]), _square(_jpeg(scenes[0], 70))])
    assert [(copy.first, copy.second) for copy in near_copies(Prints.of([pair]))] == [(0, 1)]


def test_the_bound_lies_above_pictures_from_one_of_two_cameras(monkeypatch) -> None:
    """A fifth of the pictures share a frame that most of what is seen of them consists of."""
    generator = torch.Generator().manual_seed(0)
    textures = torch.randn(600, 64, 64, generator=generator)
    textures[::5] = 0.75**0.5 * torch.randn(64, 64, generator=generator) + 0.25**0.5 * textures[::5]
    fine = (28 * textures).clamp(-127, 127).to(torch.int8)
    prints = Prints(np.arange(600).astype("S16").view("V16"), fine[:, ::2, ::2], fine)
    assert least_correlation(prints) > 0.77
    monkeypatch.setattr(duplicates, "_MANY_PICTURES", 10**6)
    assert least_correlation(prints) == 0.65
