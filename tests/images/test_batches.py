"""Three dimensions: grey images or the channels of one, and an error that tells how to say which."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import read_picture

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import as_items
from diffmiczoo.images.reading import read_image

GREY = np.random.default_rng(0).integers(0, 256, (12, 9, 8), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 12])
def test_an_array_of_grey_images_is_a_batch(count, dtype):
    batch = (GREY[:count] / 255).astype(dtype) if dtype == np.float32 else GREY[:count].astype(dtype)
    found = as_items(batch.transpose(0, 2, 1))
    assert len(found) == count
    for item, single in zip(found, batch, strict=True):
        assert torch.equal(read_image(item), read_picture(single.T))


@pytest.mark.parametrize("count", [3, 4])
def test_three_or_four_grey_images_or_colours_are_refused(count):
    with pytest.raises(InvalidValueError, match=rf"\({count}, 9, 8\) may be {count} grey images.*list\(array\)"):
        as_items(GREY[:count])
    assert len(as_items(list(GREY[:count]))) == len(as_items(GREY[:count, ..., None])) == count
    assert len(as_items(GREY[:count, None])) == count
    colours = read_picture(GREY[:3].transpose(1, 2, 0))
    assert colours.tolist() == GREY[:3].tolist()


def test_a_tensor_has_its_channels_first():
    tensor = torch.from_numpy(GREY)
    assert read_picture(tensor[:3]).tolist() == GREY[:3].tolist()
    assert read_picture(tensor[:1])[2].tolist() == GREY[0].tolist()
    assert len(as_items(tensor[:, None])) == 12
    for count in (2, 4):
        with pytest.raises(InvalidValueError, match=r"may be . grey images.*tensor\[:, None\]"):
            as_items(tensor[:count])


def test_channels_last_are_one_image():
    for channels in (1, 2, 3, 4):
        assert len(as_items(np.zeros((12, 9, channels), np.uint8))) == 1
    assert len(as_items(np.zeros((2, 3, 9, 8), np.uint8))) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_three_planes_with_the_same_edges_are_colours_which_is_said(dtype):
    shades = np.array([1.0, 0.7, 0.4])[:, None, None] * GREY[:1] + np.array([0, 40, 90])[:, None, None]
    colours = (shades.clip(0, 255) / (255 if dtype == np.float32 else 1)).astype(dtype)
    with pytest.warns(UserWarning, match=r"\(3, 9, 8\) is read as one image in colours.*list\(array\)"):
        (found,) = as_items(colours)
    assert torch.equal(read_image(found), read_picture(colours.transpose(1, 2, 0)))
    flat = np.broadcast_to(np.array([[[9]], [[99]], [[199]]], dtype), (3, 9, 8))
    with pytest.raises(InvalidValueError, match="may be 3 grey images"):
        as_items(flat)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, 1.0, 1e300, np.nan, np.inf])
@pytest.mark.parametrize("shape", [(3, 0, 0), (3, 5, 5), (3, 0, 9)])
def test_planes_without_edges_are_not_taken_for_colours(shape, value):
    for kind in (np.float64, np.complex64 if value < 9 else np.float64):
        with pytest.raises(InvalidValueError, match="may be 3 grey images"):
            as_items(np.full(shape, value, kind))
