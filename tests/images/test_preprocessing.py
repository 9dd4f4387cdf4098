"""Items, reading from every source, the transform, and what broken input does."""

from __future__ import annotations

import os
import pickle
import random
import sys
import threading
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import ExifTags, Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import DiffMICError
from diffmiczoo.images import loading, pixels, reading
from diffmiczoo.images.items import IMAGE_EXTENSIONS, ImageError, Item, as_items, list_images
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


def read(source):
    return read_image(as_items(source)[0])


def reason_of(source) -> str:
    with pytest.raises(ImageError) as caught:
        read(source)
    assert str(caught.value).startswith(f"{caught.value.name}: ")
    return caught.value.reason


@pytest.fixture
def picture() -> np.ndarray:
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([rows * 12, columns * 8, rows + columns], axis=-1).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


# ---------------------------------------------------------------------- items


def test_items_of_everything(tmp_path, picture):
    first, second = save(tmp_path / "b2.png", picture), save(tmp_path / "b10.png", picture)
    items = as_items([tmp_path, str(first), Image.fromarray(picture), np.stack([picture] * 2), torch.zeros(3, 8, 8)])
    assert [item.name for item in items] == [
        str(first),
        str(second),
        f"{first} (2)",
        "images[3]",
        "images[4]",
        "images[5]",
        "images[6]",
    ]
    assert all(isinstance(item, Item) for item in items)
    assert as_items(items) == items
    more = as_items([*items, first])
    assert more[-1].name == f"{first} (3)" and len({item.name for item in more}) == 8
    assert read_image(more[0]).shape == (3, 20, 30)


@pytest.mark.parametrize(
    "wrong", [None, b"x.png", {"image": 1}, 3, {"a.png"}, iter(["a.png"]), BytesIO(b"x"), [["a.png"]]]
)
def test_items_of_something_else(wrong):
    with pytest.raises(TypeError, match="a path, a directory, a PIL image, a NumPy array or a tensor"):
        as_items(wrong)


@pytest.mark.parametrize(
    "url", ["http://x.org/a.png", "https://x.org/a.png", "s3://b/a.png", "data:image/png;base64,iVBO"]
)
def test_urls_are_not_fetched(url):
    with pytest.raises(TypeError, match="URLs are not fetched; download it first"):
        as_items([url])


def test_an_array_of_paths_says_how_to_list_it():
    with pytest.raises(TypeError, match="tolist"):
        as_items(np.array(["a.png", "b.png"]))


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 8, 8, 3), np.uint8), torch.zeros(0, 3, 8, 8)])
def test_no_images(empty):
    with pytest.raises(ValueError, match="there are no images"):
        as_items(empty)


def test_list_images_sorts_and_filters(tmp_path):
    names = [
        "10.png",
        "2.PNG",
        "sub/1.jpeg",
        "sub/x.dcm",
        "notes.txt",
        ".hidden.png",
        "._2.png",
        ".ipynb_checkpoints/3.png",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)] == [
        "2.PNG",
        "10.png",
        "sub/1.jpeg",
        "sub/x.dcm",
    ]
    assert all(extension == extension.lower() for extension in IMAGE_EXTENSIONS)


def test_list_images_of_nothing(tmp_path):
    with pytest.raises(ImageError, match="holds no image among 0 files"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="cannot be listed"):
        list_images(tmp_path / "missing")


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "is empty")))
    assert (str(error), error.name, error.reason) == ("a.png: is empty", "a.png", "is empty")
    assert isinstance(error, DiffMICError) and isinstance(error, ValueError)


# ---------------------------------------------------------------------- arrays and tensors


def test_equal_pictures_give_equal_answers(tmp_path, picture):
    path = save(tmp_path / "a.png", picture)
    chw = torch.from_numpy(picture).permute(2, 0, 1)
    sources = [path, str(path), Image.open(path), Image.fromarray(picture), picture, picture[::-1][::-1]]
    sources += [np.asfortranarray(picture), chw, chw.contiguous(), chw.permute(1, 2, 0), chw.numpy()]
    for config in [CONFIG.replace(crop_mode=mode, interpolation=i) for mode in MODES for i in ("bilinear", "bicubic")]:
        answers = preprocess(sources, config)
        assert answers.shape == (len(sources), 3, 32, 32)
        assert all(torch.equal(answers[0], answer) for answer in answers)
        assert torch.equal(preprocess(np.stack([picture] * 2), config)[1], answers[0])


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.uint32])
def test_equal_deep_pictures_give_equal_answers(tmp_path, dtype):
    deep = np.random.default_rng(0).integers(100, 4096, (20, 30))
    sixteen = Image.fromarray(deep.astype(np.uint16))
    sixteen.save(tmp_path / "a.png")
    sixteen.save(tmp_path / "a.tif")
    sixteen.convert("I").save(tmp_path / "b.tif")
    expected = np.rint((deep - deep.min()) * 255.0 / (deep.max() - deep.min()))
    tensor = torch.from_numpy(deep).to(getattr(torch, np.dtype(dtype).name))
    paths = [tmp_path / name for name in ("a.png", "a.tif", "b.tif")]
    for source in [*paths, sixteen, deep.astype(dtype), deep.astype(dtype).astype(">u2"), tensor]:
        image = read(source)
        assert image.dtype == torch.uint8
        assert torch.equal(image[0], image[2])
        assert np.abs(image[0].numpy() - expected).max() <= 1
        assert torch.equal(image, read(deep.astype(np.uint16)))


def test_wide_integers_are_exact_and_a_constant_is_black():
    wide = np.array([[2**31 - 3, 2**31 - 2, 2**31 - 1]], np.int32)
    assert read(wide)[0].tolist() == [[0, 128, 255]]
    assert read(np.full((4, 4), 900, np.uint16)).max() == 0


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.full((4, 4, 3), 200.0), "floats from 200 to 200; expected [0, 1]: divide 8-bit values by 255"),
        (torch.full((3, 4, 4), -0.5), "floats from -0.5 to -0.5"),
        (np.array([[0.5, np.nan]]), "holds NaN"),
        (np.array([[0.5, np.inf]]), "holds infinity"),
        (np.zeros((4, 4), np.int8), "holds int8"),
        (np.zeros((4, 4), complex), "holds complex128"),
        (np.full((4, 4), -1000, np.int16), "integers from -1000"),
        (np.full((4, 4), 256), "holds int64 values from 256 to 256; expected 0..255"),
        (np.zeros((5, 6, 7), np.uint8), "has shape (5, 6, 7)"),
        (np.zeros(5, np.uint8), "has shape (5,)"),
        (np.zeros((0, 5), np.uint8), "is 5×0 pixels"),
        (torch.zeros(1, 1, 1, 1, 1), "has shape (1, 1, 1, 1, 1)"),
    ],
)
def test_refused_values(source, reason):
    assert reason in reason_of(source)


def test_accepted_values():
    assert read(np.eye(4, dtype=bool)).unique().tolist() == [0, 255]
    assert read(np.full((4, 4), 255)).dtype == torch.uint8
    assert read(torch.full((4, 4), 7))[2].unique().tolist() == [7]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        image = read(torch.full((3, 4, 4), 0.5, dtype=dtype, requires_grad=True))
        assert image.dtype == torch.float32 and image.unique().tolist() == [0.5]


def test_ambiguous_shapes_follow_the_rule():
    values = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert torch.equal(read(values), torch.from_numpy(values).permute(2, 0, 1))
    assert torch.equal(read(torch.from_numpy(values)), torch.from_numpy(values))


def test_alpha_is_dropped_and_grey_repeated(picture):
    rgba = np.dstack([picture, np.zeros_like(picture[..., 0])])
    assert torch.equal(read(rgba), read(picture))
    grey = read(picture[..., 0])
    for same in (picture[..., :1], picture[..., :2], picture[None, ..., 0], torch.from_numpy(picture[..., 0])):
        assert torch.equal(read(same), grey)


def test_the_answer_is_a_copy(picture):
    chw = torch.from_numpy(picture).permute(2, 0, 1).contiguous()
    before = chw.clone()
    read(chw).zero_()
    assert torch.equal(chw, before)


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
            assert isinstance(error, ImageError) or "there are no images" in str(error)
            return
    assert batch.shape[1:] == (3, 32, 32) and batch.isfinite().all()


# ---------------------------------------------------------------------- Pillow


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
def test_every_mode_is_the_same_picture(picture, mode):
    rgb = Image.fromarray(picture)
    grey = mode in ("1", "L", "LA", "La")
    image = (
        rgb.convert("LA").convert("La")
        if mode == "La"
        else rgb.convert("RGBA").convert("RGBa")
        if mode == "RGBa"
        else rgb.convert(mode)
    )
    found = read(image).float()
    assert found.shape == (3, 20, 30)
    expected = read(rgb.convert("L") if grey else rgb).float()
    assert (found.mean((1, 2)) - expected.mean((1, 2))).abs().max() < 12


def test_every_mode_and_format_that_pillow_writes(tmp_path, picture):
    written = 0
    rgb = Image.fromarray(picture)
    sources = {mode: rgb.convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB")}
    sources["I;16"] = rgb.convert("L").convert("I;16")
    for mode, source in sources.items():
        for extension in sorted(IMAGE_EXTENSIONS - {".dcm", ".dicom", ".heic", ".heif", ".pbm"}):
            # A bare JPEG 2000 stream does not say which colours its components are.
            if mode in ("CMYK", "YCbCr") and extension in (".j2k", ".j2c"):
                continue
            if mode == "I;16" and extension not in (".png", ".tif", ".tiff", ".jp2", ".pgm"):
                continue  # Pillow writes 8 bits
            path = tmp_path / f"{mode.replace(';', '')}{extension}"
            try:
                source.save(path)
            except (OSError, ValueError, KeyError):
                continue
            assert (read(path).float() - read(source).float()).abs().mean() < 16, path.name
            written += 1
    assert written > 60


def test_transparency_is_dropped(tmp_path, picture):
    palette = Image.fromarray(picture).quantize(16)
    for name, transparency in {"index": 3, "table": bytes(range(16))}.items():
        palette.save(tmp_path / f"{name}.png", transparency=transparency)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(read(tmp_path / f"{name}.png"), read(palette.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "webp", "tif", "jpg"])
def test_orientation(tmp_path, orientation, extension):
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8] = 255
    turn = {1: [], 2: [1], 3: [0, 1], 4: [0], 5: "T", 6: "T", 7: "T", 8: "T"}[orientation]
    stored = {
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: np.rot90(upright.swapaxes(0, 1), 2),
        8: np.rot90(upright, 3),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(
        tmp_path / f"a.{extension}",
        np.ascontiguousarray(stored[orientation] if turn == "T" else np.flip(upright, turn)),
        exif=exif,
    )
    for source in (path, Image.open(path)):
        image = read(source)
        assert image.shape == (3, 16, 32)
        assert image[:, :6, :6].float().mean() > 240 and image.float().mean() < 50


def test_broken_exif_does_not_matter(tmp_path, picture):
    path = save(tmp_path / "a.jpg", picture, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage", quality=100)
    assert read(path).shape == (3, 20, 30)


def test_animation_warns_and_gives_the_first_frame(tmp_path, picture):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.warns(UserWarning, match=r"a\.webp: has 2 frames"):
        assert torch.equal(read(tmp_path / "a.webp"), read(picture))
    chosen = Image.open(tmp_path / "a.webp")
    chosen.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(read(chosen), read(255 - picture))


def test_reading_leaves_the_image_handed_in_as_it_was(picture):
    image = Image.fromarray(picture).quantize(16)
    image.info["transparency"] = 3
    before = image.copy()
    read(image)
    assert image == before and image.info == before.info and image.mode == "P"


def test_nothing_stays_open(tmp_path, picture, make_dicom):
    paths = [save(tmp_path / f"a.{extension}", picture) for extension in ("png", "tif", "gif", "jpg")]
    paths += [make_dicom(tmp_path / "a.dcm", picture)]
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            read(path)
            reason_of(_cut(path))
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


def _cut(path: Path) -> Path:
    short = path.with_stem("short")
    short.write_bytes(path.read_bytes()[:40])
    return short


def test_files_that_are_no_pictures(tmp_path):
    contents = {
        "empty.png": b"",
        "text.jpg": b"hello",
        "report.pdf": b"%PDF-1.7 ...",
        "drawing.png": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert "is empty (0 bytes)" in reason_of(tmp_path / "empty.png")
    for name in list(contents)[1:]:
        assert "is not an image" in reason_of(tmp_path / name)
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert "pip install pillow-heif" in reason_of(tmp_path / "photo.heic")
    assert "no such file" in reason_of(tmp_path / "missing.png")
    assert "no such file" in reason_of("")
    assert "cannot be read" in reason_of("a\0b.png")
    with pytest.raises(ImageError, match="is a directory"):
        read_image(Item("here", tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a pipe" in reason_of(tmp_path / "pipe.png")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="every file is readable to this user")
def test_unreadable_file(tmp_path, picture):
    path = save(tmp_path / "a.png", picture)
    path.chmod(0)
    assert "PermissionError" in reason_of(path)


def test_decoder_errors_are_chained(tmp_path, picture):
    path = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(OSError") as caught:
        read(path)
    assert isinstance(caught.value.__cause__, OSError)
    closed = Image.open(save(tmp_path / "b.png", picture))
    closed.close()
    assert "cannot be read" in reason_of(closed)


@pytest.mark.parametrize("error", [TypeError, AttributeError, IndexError])
def test_a_fault_of_the_package_is_not_blamed_on_the_image(tmp_path, picture, monkeypatch, error):
    def fail(*_):
        raise error("a bug")

    monkeypatch.setattr(reading, "to_rgb", fail)
    for source in (picture, save(tmp_path / "a.png", picture)):
        with pytest.raises(error, match=r"^a bug$"):
            read(source)


def test_what_a_function_as_source_may_return(picture):
    def fail():
        raise OSError("gone")

    assert read_image(Item("f", lambda: picture)).shape == (3, 20, 30)
    with pytest.raises(ImageError, match=r"f: is a NoneType; expected a path, a PIL image, an array or a tensor"):
        read_image(Item("f", lambda: None))
    with pytest.raises(ImageError, match=r"f: cannot be read \(OSError: gone\); the function"):
        read_image(Item("f", fail))


@pytest.mark.parametrize("tensor", [torch.zeros(3, 4, 4).to_sparse(), torch.zeros(3, 4, 4, device="meta")])
def test_tensors_without_plain_values(tensor):
    assert "is a tensor without plain values" in reason_of(tensor)


# ---------------------------------------------------------------------- too large


@pytest.mark.parametrize("pillow_limit", [None, 10**12, Image.MAX_IMAGE_PIXELS])
def test_the_limit_holds_before_decoding(tmp_path, picture, monkeypatch, pillow_limit, make_dicom):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 599)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for extension in ("png", "jpg", "tif", "gif", "bmp", "ppm"):
        assert "is 30×20 pixels; expected at most 599" in reason_of(save(tmp_path / f"a.{extension}", picture))
    for source in (picture, torch.from_numpy(picture).permute(2, 0, 1), Image.fromarray(picture)):
        assert "expected at most 599" in reason_of(source)
    assert "expected at most 599" in reason_of(make_dicom(tmp_path / "a.dcm", picture[..., 0]))


def test_pillows_own_limit_holds_too(tmp_path, picture, monkeypatch):
    path = save(tmp_path / "a.png", picture)
    for limit in (200, 500):  # 600 pixels: an error of Pillow's, and a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "is too large" in reason_of(path)


# ---------------------------------------------------------------------- DICOM


@pytest.fixture
def hounsfield() -> np.ndarray:
    return np.linspace(-1000, 1000, 64).astype(np.int16).reshape(8, 8)


def test_dicom_without_window_is_stretched_without_its_padding(tmp_path, hounsfield, make_dicom):
    plain = read(make_dicom(tmp_path / "a.dcm", hounsfield))
    assert (plain[0, 0, 0], plain[0, 7, 7]) == (0, 255)
    padded = hounsfield.copy()
    padded[0] = -2000
    signed = read(make_dicom(tmp_path / "b.dcm", padded, PixelPaddingValue=-2000))
    assert signed[0, 0].max() == 0 and signed[0, 1, 0] == 0 and signed[0, 7, 7] == 255
    inverted = read(
        make_dicom(tmp_path / "c.dcm", padded, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    )
    assert inverted[0, 0].max() == 0 and inverted[0, 1, 0] == 255 and inverted[0, 7, 7] == 0
    everywhere = np.full((4, 4), -2000, np.int16)
    assert read(make_dicom(tmp_path / "d.dcm", everywhere, PixelPaddingValue=-2000)).max() == 0


def test_dicom_window_after_rescale(tmp_path, hounsfield, make_dicom):
    window = {"WindowCenter": ["40", "300"], "WindowWidth": ["400", "9"], "RescaleSlope": "2", "RescaleIntercept": "0"}
    shown = read(make_dicom(tmp_path / "a.dcm", (hounsfield // 2).astype(np.int16), **window))[0].numpy()
    expected = np.clip((hounsfield // 2 * 2 - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(shown - expected).max() <= 1
    window |= {"PhotometricInterpretation": "MONOCHROME1"}
    negative = read(make_dicom(tmp_path / "b.dcm", (hounsfield // 2).astype(np.int16), **window))[0].numpy()
    assert (negative == 255 - shown).all()


@pytest.mark.parametrize("bits", [8, 12])
def test_dicom_lookup_table(tmp_path, bits, make_dicom):
    from pydicom import Dataset, Sequence

    stored = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, bits])
    table.add_new(0x00283006, "US", [(4095 - i) >> (12 - bits) for i in range(4096)])
    shown = read(make_dicom(tmp_path / "a.dcm", stored, VOILUTSequence=Sequence([table])))[0].numpy()
    assert np.abs(shown - (4095 - stored) / 4095 * 255).max() <= 1.5


def test_dicom_palette_and_colours(tmp_path, picture, make_dicom):
    ramp = bytes(range(256))
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in {"Red": ramp, "Green": ramp[::-1], "Blue": bytes(256)}.items():
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = table
    index = picture[..., 0]
    shown = read(make_dicom(tmp_path / "a.dcm", index, **palette))
    assert torch.equal(shown, read(np.dstack([index, 255 - index, 0 * index])))
    assert torch.equal(read(make_dicom(tmp_path / "b.dcm", picture)), read(picture))
    assert torch.equal(read(make_dicom(tmp_path / "c.dcm", index)), read(index))
    assert torch.equal(read(make_dicom(tmp_path / "d", index, deflated=True)), read(index))


def test_dicom_first_of_several_frames(tmp_path, make_dicom):
    frames = np.stack([np.full((8, 8), 10, np.uint8), np.full((8, 8), 90, np.uint8)])
    path = make_dicom(tmp_path / "a.dcm", frames[0], NumberOfFrames="2", PixelData=frames.tobytes())
    with pytest.warns(UserWarning, match=r"a\.dcm: has 2 frames"):
        assert read(path).unique().tolist() == [10]


def test_dicom_that_is_refused(tmp_path, picture, make_dicom):
    assert "no DICOM header" in reason_of(save(tmp_path / "a.png", picture).rename(tmp_path / "b.dcm"))
    hsv = make_dicom(tmp_path / "c.dcm", picture, PhotometricInterpretation="HSV")
    assert "photometric interpretation 'HSV'" in reason_of(hsv)


@pytest.mark.parametrize("missing", ["pydicom", "pydicom.pixels"])  # the second is what versions before 3.0 lack
def test_dicom_without_pydicom_or_with_an_old_one(tmp_path, picture, monkeypatch, make_dicom, missing):
    path = make_dicom(tmp_path / "a.dcm", picture)
    monkeypatch.setitem(sys.modules, missing, None)
    assert reason_of(path) == 'is a DICOM file, which needs pydicom 3.0 or newer: pip install "diffmiczoo[dicom]"'


def test_what_a_decoder_lacks_is_not_blamed_on_the_file(tmp_path, picture, monkeypatch, make_dicom):
    path = make_dicom(tmp_path / "a.dcm", picture)
    monkeypatch.delattr("pydicom.dcmread")
    with pytest.raises(AttributeError, match="dcmread"):
        read(path)
    monkeypatch.undo()
    monkeypatch.delattr("pydicom.pixels.utils.pixel_array")
    with pytest.raises(ImportError, match="pixel_array"):
        read(path)


# ---------------------------------------------------------------------- mutilated files


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory, make_dicom) -> list[Path]:
    folder = tmp_path_factory.mktemp("whole")
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[0x0112] = 6
    for extension in ("jpg", "png", "tif", "gif", "webp", "bmp", "jp2"):
        image.save(folder / f"a.{extension}", **({"exif": exif} if extension in ("jpg", "png", "tif", "webp") else {}))
    image.save(folder / "lzw.tif", compression="tiff_lzw")
    image.save(folder / "movie.gif", save_all=True, append_images=[image.rotate(90)])
    make_dicom(folder / "a.dcm", noise[..., 0], WindowCenter="100", WindowWidth="50")
    make_dicom(folder / "deflated.dcm", noise.astype(np.uint16), deflated=True)
    return sorted(folder.iterdir())


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), cut=st.booleans(), flips=st.integers(0, 8), early=st.booleans())
def test_mutilated_files(whole_files, tmp_path, seed, cut, flips, early):
    chance = random.Random(seed)
    path = chance.choice(whole_files)
    content = bytearray(path.read_bytes())
    if cut:
        del content[chance.randrange(1, len(content)) :]
    for _ in range(flips):
        content[chance.randrange(min(len(content), 400) if early else len(content))] = chance.randrange(256)
    broken = tmp_path / path.name
    broken.write_bytes(content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = read(broken)
        except ImageError as error:
            assert str(error).startswith(f"{broken}: ")
        else:
            assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.numel() <= 3 * pixels.MAX_PIXELS
    assert all("only the first is used" in str(warning.message) for warning in caught)


# ---------------------------------------------------------------------- transform


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


@pytest.mark.parametrize("processes", [False, True])
def test_pictures_are_decoded_in_order_and_errors_take_their_place(tmp_path, picture, monkeypatch, processes) -> None:
    monkeypatch.setattr(loading, "WORTH_PROCESSES", 1 if processes else 100)
    items = as_items([picture, tmp_path / "missing.png", picture])
    state = torch.get_rng_state()
    squares = list(loading.read_squares(items, CONFIG))
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(squares[1], ImageError) and squares[1].name == str(tmp_path / "missing.png")
    assert squares[0].dtype == torch.uint8 and torch.equal(squares[0], squares[2])
    (grey,) = loading.read_squares(as_items([torch.full((3, 8, 8), 0.5)]), CONFIG)
    assert grey.dtype == torch.float32 and preprocess([picture, grey], CONFIG).dtype == torch.float32


def test_a_thread_starts_no_processes(picture, monkeypatch) -> None:
    monkeypatch.setattr(loading, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(loading, "DataLoader", lambda *_, **__: pytest.fail("started processes"))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(loading.read_squares(as_items([picture]), CONFIG)))
    thread.start()
    thread.join()
    assert len(found) == 1 and found[0].dtype == torch.uint8


@pytest.mark.parametrize(
    ("size", "at_least", "expected"),
    [
        ((320, 400), 64, (80, 100)),
        ((320, 400), 160, (160, 200)),
        ((320, 400), 161, (320, 400)),
        ((1000, 640), 64, (250, 160)),
        ((1001, 640), 64, (1001, 640)),
        ((320, 404), 64, (160, 202)),
        ((320, 402), 64, (320, 402)),
        ((63, 63), 64, (63, 63)),
        ((320, 400), None, (320, 400)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path, size, at_least, expected) -> None:
    path = save(tmp_path / "large.jpg", smooth_picture(*size), quality=95)
    assert read_image(Item("large", path), at_least).shape == (3, *expected)


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


def test_reduced_jpegs_are_turned_as_exif_says(tmp_path) -> None:
    path, exif = tmp_path / "turned.jpg", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = np.zeros((320, 480, 3), np.uint8)
    picture[:, :240] = 255
    Image.fromarray(picture).save(path, exif=exif, quality=95)
    turned = read_image(Item("turned", path), 64)
    assert turned.shape == (3, 120, 80)
    assert turned[:, :50].float().mean() > 250 and turned[:, 70:].float().mean() < 5


def test_other_formats_are_read_whole(tmp_path) -> None:
    picture = smooth_picture(320, 400)
    assert torch.equal(read_image(Item("png", save(tmp_path / "large.png", picture)), 32), read(picture))


def smooth_picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = [np.sin(6 * rows + 4 * columns), np.cos(9 * rows * columns), np.sin(7 * columns)]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
