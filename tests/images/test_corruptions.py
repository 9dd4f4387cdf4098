"""Pictures that go wrong: each change shows, is the same again, grows with its severity and keeps shape and type."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import save_picture, smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupted
from diffmiczoo.images.items import ImageError, Item, as_items
from diffmiczoo.images.preprocessing import read_sized_square

NAMES = list(CORRUPTIONS)


def textured(height: int, width: int, *, grey: bool = False) -> np.ndarray:
    """Slow waves with fine grain, neither black nor white."""
    grain = np.random.default_rng(3).integers(0, 40, (height, width, 3))
    picture = (smooth_picture(height, width) * 0.6 + 20 + grain).astype(np.uint8)
    return np.repeat(picture[..., :1], 3, axis=2) if grey else picture


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_higher_severity_is_farther_from_the_picture(name, grey) -> None:
    picture = textured(90, 120, grey=grey)
    before = picture.copy()
    found = [corrupt(picture, name, severity) for severity in SEVERITIES]
    assert np.array_equal(picture, before)
    distances = [np.abs(each.astype(int) - picture).mean() for each in found]
    assert 0 < distances[0] < distances[1] < distances[2]
    again = [corrupt(picture, name, severity) for severity in SEVERITIES]
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))
    stays_grey = all((each == each[..., :1]).all() for each in found)
    assert not grey or stays_grey == (name != "colour_cast")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(NAMES), st.sampled_from(SEVERITIES))
def test_shape_and_type_stay(height, width, name, severity) -> None:
    picture = np.random.default_rng(height * 50 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = corrupt(picture, name, severity)
    assert found.shape == picture.shape and found.dtype == np.uint8


def test_defocus_spreads_a_point_over_its_disc() -> None:
    picture = np.zeros((224, 224, 3), np.uint8)
    picture[100, 60] = 255
    for severity, radius in zip(SEVERITIES, CORRUPTIONS["defocus"].settings, strict=True):
        rows, columns = np.nonzero(corrupt(picture, "defocus", severity)[..., 0])
        distance = np.hypot(rows - 100, columns - 60)
        assert radius - 0.5 <= distance.max() <= radius + 0.5
    flat = np.full((30, 30, 3), 77, np.uint8)
    assert np.array_equal(corrupt(flat, "defocus", 3), flat)


def test_settings_in_pixels_grow_with_the_picture() -> None:
    small = textured(112, 112)
    large = np.asarray(Image.fromarray(small).resize((448, 448), Image.Resampling.BICUBIC))
    for name in ("blur", "defocus"):
        seen = Image.fromarray(corrupt(large, name, 2)).resize((112, 112), Image.Resampling.BOX)
        assert np.abs(np.asarray(seen).astype(int) - corrupt(small, name, 2)).mean() < 3


def test_noise_depends_on_the_seed_and_the_picture_and_has_its_deviation() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    first, second = corrupt(flat, "noise", 2), corrupt(flat, "noise", 2, seed=1)
    assert not np.array_equal(first, second)
    assert first.std() == pytest.approx(15, rel=0.1)
    coloured = np.broadcast_to(np.array([100, 128, 90], np.uint8), (64, 64, 3)).copy()
    assert np.abs(np.corrcoef((corrupt(coloured, "noise", 3) - 0.0).reshape(-1, 3).T)[0, 1]) < 0.1


def test_about_half_of_the_pictures_get_brighter() -> None:
    pictures = [textured(16, 16) // 2 + np.uint8(number) for number in range(60)]
    brighter = [corrupt(each, "brightness", 1).mean() > each.mean() for each in pictures]
    assert 15 < sum(brighter) < 45


def test_items_are_read_whole_and_changed_before_they_are_squares(tmp_path) -> None:
    config = DiffMICConfig(num_classes=2, image_size=32, roi_size=16)
    colour = save_picture(tmp_path / "a.png", textured(100, 60))
    deep = tmp_path / "deep.png"
    Image.fromarray(textured(50, 70)[..., 0].astype(np.uint16) * 200).save(deep)
    floats = textured(40, 50).astype(np.float32) / 255
    for source in (colour, deep, floats):
        item = as_items(source)[0]
        plain = read_sized_square(item, config)
        changed = read_sized_square(corrupted(item, "colour_cast", 3), config)
        assert changed.size == plain.size and changed.pixels.dtype == torch.uint8
        limit = 255 if plain.pixels.dtype == torch.uint8 else 1
        assert not torch.equal(changed.pixels / 255, plain.pixels / limit)
    by_hand = read_sized_square(Item("x", corrupt(np.asarray(Image.open(colour)), "noise", 1)), config)
    assert torch.equal(by_hand.pixels, read_sized_square(corrupted(as_items(colour)[0], "noise", 1), config).pixels)
    with pytest.raises(ImageError, match="no such file"):
        read_sized_square(corrupted(Item("gone.png", tmp_path / "gone.png"), "blur", 1), config)


def test_other_names_severities_types_and_shapes_are_refused() -> None:
    picture = textured(8, 8)
    for wrong, message in (
        ((picture, "fog", 1), "'fog' is no corruption; known are jpeg, blur"),
        ((picture, "blur", 4), "severity=4 must be one of 1, 2, 3"),
        ((picture[..., 0], "blur", 1), r"expected a picture of shape \(H, W, 3\), found \(8, 8\)"),
    ):
        with pytest.raises(ValueError, match=message):
            corrupt(*wrong)
    with pytest.raises(TypeError, match="expected a picture of uint8, found float32"):
        corrupt(picture.astype(np.float32), "blur", 1)


def test_the_page_has_the_settings() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "evaluate.md").read_text("utf-8")
    for name, corruption in CORRUPTIONS.items():
        assert f"| {name} | {', '.join(f'{value:g}' for value in corruption.settings)} | {corruption.meaning} |" in page
