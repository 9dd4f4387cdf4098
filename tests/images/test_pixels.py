"""Arrays and tensors of every type and shape: the right picture or an error that says why not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import read_picture, reason_of
from PIL import Image

from diffmiczoo.images.pixels import grey_range


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32, np.float32])
def test_equal_deep_pictures_give_equal_answers(tmp_path, dtype):
    deep = np.random.default_rng(0).integers(100, 3000, (20, 30))
    sixteen = Image.fromarray(deep.astype(np.uint16))
    sixteen.save(tmp_path / "a.png")
    sixteen.save(tmp_path / "a.tif")
    sixteen.convert("I").save(tmp_path / "b.tif")
    expected = np.rint((deep - deep.min()) * 255.0 / (deep.max() - deep.min()))
    tensor = torch.from_numpy(deep).to(getattr(torch, np.dtype(dtype).name))
    paths = [tmp_path / name for name in ("a.png", "a.tif", "b.tif")]
    for source in [*paths, sixteen, deep.astype(dtype), deep.astype(dtype).astype(">u2"), tensor]:
        image = read_picture(source)
        assert image.dtype == torch.uint8
        assert torch.equal(image[0], image[2])
        assert np.abs(image[0].numpy() - expected).max() <= 1
        assert torch.equal(image, read_picture(deep.astype(np.uint16)))


RAMP = np.arange(30, 230).reshape(10, 20)


@pytest.mark.parametrize(
    ("values", "black", "white"),
    [
        (RAMP, 0, 255),
        *[(RAMP * factor, 0, 255 * factor) for factor in (4, 16, 64, 256, 257)],
        (RAMP // 20 * 257, 0, 65535),
        (np.array([[0, 65535]]), 0, 65535),
        (np.array([[0, 4080]]), 0, 4080),
        (np.linspace(40, 1000, 50).astype(int), 0, 1023),
        (np.linspace(400, 3901, 50).astype(int), 0, 4095),
        (np.linspace(400, 16001, 50).astype(int), 0, 16383),
        (np.linspace(9000, 40001, 50).astype(int), 0, 65535),
        (np.linspace(32001, 36001, 50).astype(int), 32001, 36001),
        (np.linspace(103, 3001, 50).astype(int), 103, 3001),
        (np.linspace(3801, 4001, 50).astype(int), 3801, 4001),
        (np.array([[70001, 90000]]), 70001, 90000),
    ],
)
def test_what_is_black_and_white_among_deep_values(values, black, white):
    assert grey_range(values) == (black, white)
    for dtype in (np.uint16, np.int16, np.uint32, np.int32):
        if values.max() <= np.iinfo(dtype).max:
            shown = read_picture(values.reshape(1, -1).astype(dtype))[0].numpy().ravel()
            assert np.abs(shown - (values.ravel() - black) * 255 / (white - black)).max() <= 1


def test_whole_floats_count_like_integers():
    assert read_picture(RAMP.astype(np.float32))[0].tolist() == RAMP.tolist()
    assert read_picture(torch.from_numpy(RAMP * 257.0))[0].tolist() == RAMP.tolist()
    assert read_picture(np.array([[0.0, 1.0]])).dtype == torch.float32


def test_wide_integers_are_exact_and_a_constant_is_black():
    wide = np.array([[2**31 - 3, 2**31 - 2, 2**31 - 1]], np.int32)
    assert read_picture(wide)[0].tolist() == [[0, 128, 255]]
    assert read_picture(np.full((4, 4), 901, np.uint16)).max() == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.full((4, 4, 3), 200.5), "floats from 200.5 to 200.5; expected [0, 1]: divide 8-bit values by 255"),
        (torch.full((3, 4, 4), -0.5), "floats from -0.5 to -0.5"),
        (np.array([[-0.03, 1.04]]), "floats from -0.03 to 1.04; expected [0, 1]: clip what a resize has overshot"),
        (np.ma.masked_equal(np.eye(4, dtype=np.uint8), 1), "has masked pixels; expected none"),
        (np.array([[0.0, 0.9]]) / 255, "floats up to 0.00353, darker than one of 255 grey levels"),
        (np.array([[0.5, np.nan]]), "holds NaN"),
        (np.array([[0.5, np.inf]]), "holds infinity"),
        (np.zeros((4, 4), np.int8), "holds int8"),
        (np.zeros((4, 4), complex), "holds complex128"),
        (np.full((4, 4), -1000, np.int16), "integers from -1000"),
        (np.full((4, 4), 256), "holds int64 values from 256 to 256; expected 0..255"),
        (np.zeros((9, 8, 7), np.uint8), "has shape (9, 8, 7)"),
        (torch.zeros(5, 6, 7), "has shape (5, 6, 7)"),
        (np.zeros(5, np.uint8), "has shape (5,)"),
        (np.zeros((0, 5), np.uint8), "is 5×0 pixels"),
        (torch.zeros(1, 1, 1, 1, 1), "has shape (1, 1, 1, 1, 1)"),
    ],
)
def test_refused_values(source, reason):
    assert reason in reason_of(source)


def test_accepted_values():
    assert read_picture(np.eye(4, dtype=bool)).unique().tolist() == [0, 255]
    assert read_picture(np.full((4, 4), 255)).dtype == torch.uint8
    assert read_picture(torch.full((4, 4), 7))[2].unique().tolist() == [7]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        image = read_picture(torch.full((3, 4, 4), 0.5, dtype=dtype, requires_grad=True))
        assert image.dtype == torch.float32 and image.unique().tolist() == [0.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_beyond_black_and_white_is_clipped(dtype):
    """Floats that were converted, resized or normalised back and forth are seldom exactly within [0, 1]."""
    over = 1 + torch.finfo(dtype).eps
    values = torch.tensor([[-1e-6, 0.5, over]], dtype=dtype)
    assert over > 1 and read_picture(values)[0].tolist() == [[0.0, 0.5, 1.0]]
    assert read_picture(np.ma.masked_array([[0, 9]], False).astype(np.uint8))[0].tolist() == [[0, 9]]


def test_ambiguous_shapes_follow_the_rule():
    values = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert torch.equal(read_picture(values), torch.from_numpy(values).permute(2, 0, 1))
    assert torch.equal(read_picture(torch.from_numpy(values)), torch.from_numpy(values))


def test_alpha_is_dropped_and_grey_repeated(picture):
    rgba = np.dstack([picture, np.zeros_like(picture[..., 0])])
    assert torch.equal(read_picture(rgba), read_picture(picture))
    grey = read_picture(picture[..., 0])
    for same in (picture[..., :1], picture[..., :2], picture[None, ..., 0], torch.from_numpy(picture[..., 0])):
        assert torch.equal(read_picture(same), grey)


def test_the_answer_is_a_copy(picture):
    chw = torch.from_numpy(picture).permute(2, 0, 1).contiguous()
    before = chw.clone()
    read_picture(chw).zero_()
    assert torch.equal(chw, before)
