"""The square transform, and boxes on their way back."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from factories import save_picture, smooth_picture
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.preprocessing import (
    normalize,
    preprocess,
    read_square,
    resize_to_square,
    square_to_original_box,
)
from diffmiczoo.images.reading import read_image

CONFIG = DiffMICConfig(image_size=32, roi_size=8)


MODES = ("center", "squash", "border")


def test_equal_pictures_give_equal_answers(tmp_path, picture):
    path = save_picture(tmp_path / "a.png", picture)
    chw = torch.from_numpy(picture).permute(2, 0, 1)
    sources = [path, str(path), Image.open(path), Image.fromarray(picture), picture, picture[::-1][::-1]]
    sources += [np.asfortranarray(picture), chw, chw.contiguous(), chw.permute(1, 2, 0)]
    for config in [CONFIG.replace(crop_mode=mode, interpolation=i) for mode in MODES for i in ("bilinear", "bicubic")]:
        answers = preprocess(sources, config)
        assert answers.shape == (len(sources), 3, 32, 32)
        assert all(torch.equal(answers[0], answer) for answer in answers)
        assert torch.equal(preprocess(np.stack([picture] * 2), config)[1], answers[0])


shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=7)


dtypes = st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes())


@settings(max_examples=300, deadline=None)
@given(dtypes.flatmap(lambda dtype: hnp.arrays(dtype, shapes)))
def test_any_array_is_a_picture_or_an_error(array):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            batch = preprocess(array, CONFIG)
        except (ImageError, ValueError) as error:
            assert (
                isinstance(error, ImageError) or "there are no images" in str(error) or "grey images or" in str(error)
            )
            return
    assert batch.shape[1:] == (3, 32, 32) and batch.isfinite().all()


@pytest.mark.parametrize("crop_mode", MODES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (20, 30), (32, 32), (2000, 3), (3, 2000)])
def test_square(crop_mode, interpolation, size):
    config = CONFIG.replace(crop_mode=crop_mode, interpolation=interpolation)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    square = resize_to_square(image, config)
    assert square.shape == (3, 32, 32) and square.dtype == torch.uint8
    floats = resize_to_square(image / 255, config)
    assert floats.dtype == torch.float32 and floats.min() >= 0 and floats.max() <= 1
    difference = (floats * 255 - square).abs()
    assert difference.mean() < 1.5 and (interpolation == "bicubic" or difference.max() < 1.5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_uint8_is_resized_alike_on_every_processor(picture, interpolation, monkeypatch):
    """Left to itself, torchvision resizes in whole numbers or in float, by the processor; the two round differently."""
    image, config = torch.from_numpy(picture).permute(2, 0, 1), CONFIG.replace(interpolation=interpolation)
    squares = []
    for capability in ("DEFAULT", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        squares.append(resize_to_square(image, config))
    assert torch.equal(*squares)


def test_what_the_crop_modes_keep():
    image = torch.zeros(3, 32, 96, dtype=torch.uint8)
    image[:, :, 32:64] = 255
    assert resize_to_square(image, CONFIG).min() == 255
    squashed = resize_to_square(image, CONFIG.replace(crop_mode="squash"))
    assert squashed[0, :, 0].max() == 0 and squashed[0, :, 16].min() == 255
    bordered = resize_to_square(image, CONFIG.replace(crop_mode="border"))
    assert bordered[0, :10].max() == 0 and bordered[0, 16, 16] == 255 and bordered[0, 16, 2] == 0


@pytest.mark.parametrize("crop_mode", MODES)
@given(height=st.integers(8, 400), width=st.integers(8, 400), corner=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(max_examples=60, deadline=None)
def test_boxes_come_back(crop_mode, height, width, corner):
    config = CONFIG.replace(crop_mode=crop_mode)
    whole = square_to_original_box((0, 0, 32, 32), (height, width), config)
    short = min(height, width)
    size = torch.tensor([short, short] if crop_mode == "center" else [width, height])
    assert torch.equal(whole[2:] - whole[:2], size)
    # A position map goes through the transform as a picture does: the box's middle must point to where it came from.
    rows = torch.arange(height)[:, None].expand(height, width) / max(height, width)
    columns = torch.arange(width)[None].expand(height, width) / max(height, width)
    square = resize_to_square(torch.stack([rows, columns, rows * 0 + 1]), config)
    y, x = (int(4 + 23 * share) for share in corner)
    if square[2, y, x] < 1:
        return
    left, top, right, bottom = square_to_original_box(torch.tensor([[x, y, x + 1, y + 1.0]]), (height, width), config)[
        0
    ]
    found = square[:2, y, x] * max(height, width) + 0.5
    tolerance = 0.6 + 0.7 * max(height, width) / 32
    assert abs(found[0] - (top + bottom) / 2) < tolerance and abs(found[1] - (left + right) / 2) < tolerance


def test_normalize():
    square = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor(CONFIG.mean)[:, None, None], torch.tensor(CONFIG.std)[:, None, None]
    expected = (square / 255 - mean) / std
    assert torch.equal(normalize(square, CONFIG), expected)
    assert torch.equal(normalize(square[0], CONFIG), expected[0])
    assert torch.equal(normalize(square / 255, CONFIG), expected)
    assert normalize(square.double() / 255, CONFIG).dtype == torch.float32
    with pytest.raises(TypeError, match="int64"):
        normalize(square.long(), CONFIG)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_squares_of_reduced_jpegs_are_nearly_those_of_whole_ones(tmp_path, options, mode) -> None:
    path = tmp_path / "large.jpg"
    Image.fromarray(smooth_picture(320, 416)).convert(mode).save(path, quality=95, **options)
    for crop_mode in MODES:
        config = CONFIG.replace(crop_mode=crop_mode)
        whole = resize_to_square(read_image(Item("large", path)), config).int()
        reduced = read_square(Item("large", path), config).int()
        assert reduced.shape == whole.shape == (3, 32, 32)
        assert not torch.equal(whole, reduced)
        assert (whole - reduced).abs().float().mean() < 0.5 and (whole - reduced).abs().max() <= 3
