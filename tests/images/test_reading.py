"""Files and PIL images of every mode and format, whole, turned, cut or mutilated."""

from __future__ import annotations

import os
import random
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import PILLOW, read_picture, reason_of, save_picture, smooth_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from diffmiczoo.images import pixels, reading
from diffmiczoo.images.items import IMAGE_EXTENSIONS, ImageError, Item
from diffmiczoo.images.reading import read_image


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
    found = read_picture(image).float()
    assert found.shape == (3, 20, 30)
    expected = read_picture(rgb.convert("L") if grey else rgb).float()
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
            if mode == "YCbCr" and extension in (".tif", ".tiff") and PILLOW < (13, 0):
                continue  # Pillow does not read what it wrote
            path = tmp_path / f"{mode.replace(';', '')}{extension}"
            try:
                source.save(path)
            except (OSError, ValueError, KeyError):
                continue
            assert (read_picture(path).float() - read_picture(source).float()).abs().mean() < 16, path.name
            written += 1
    assert written > 60


def test_transparency_is_dropped(tmp_path, picture):
    palette = Image.fromarray(picture).quantize(16)
    for name, transparency in {"index": 3, "table": bytes(range(16))}.items():
        palette.save(tmp_path / f"{name}.png", transparency=transparency)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(read_picture(tmp_path / f"{name}.png"), read_picture(palette.convert("RGB")))


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
    path = save_picture(
        tmp_path / f"a.{extension}",
        np.ascontiguousarray(stored[orientation] if turn == "T" else np.flip(upright, turn)),
        exif=exif,
    )
    for source in (path, Image.open(path)):
        image = read_picture(source)
        assert image.shape == (3, 16, 32)
        assert image[:, :6, :6].float().mean() > 240 and image.float().mean() < 50


def test_broken_exif_does_not_matter(tmp_path, picture):
    path = save_picture(tmp_path / "a.jpg", picture, exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage", quality=100)
    assert read_picture(path).shape == (3, 20, 30)


def test_animation_warns_and_gives_the_first_frame(tmp_path, picture):
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    with pytest.warns(UserWarning, match=r"a\.webp: has 2 frames"):
        assert torch.equal(read_picture(tmp_path / "a.webp"), read_picture(picture))
    chosen = Image.open(tmp_path / "a.webp")
    chosen.seek(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(read_picture(chosen), read_picture(255 - picture))


def test_reading_leaves_the_image_handed_in_as_it_was(picture):
    image = Image.fromarray(picture).quantize(16)
    image.info["transparency"] = 3
    before = image.copy()
    read_picture(image)
    assert image == before and image.info == before.info and image.mode == "P"


def test_nothing_stays_open(tmp_path, picture, make_dicom):
    paths = [save_picture(tmp_path / f"a.{extension}", picture) for extension in ("png", "tif", "gif", "jpg")]
    paths += [make_dicom(tmp_path / "a.dcm", picture)]
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            read_picture(path)
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
        assert "not an image" in reason_of(tmp_path / name)
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    assert "pip install pillow-heif" in reason_of(tmp_path / "photo.heic")
    assert "no such file" in reason_of(tmp_path / "missing.png")
    assert "no such file" in reason_of("")
    assert "cannot be read" in reason_of("a\0b.png")
    with pytest.raises(ImageError, match="is a directory"):
        read_image(Item("here", tmp_path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\n<!DOCTYPE HTML><html><title>404", "a web page, not an image, as a download that failed"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1",
            "a pointer of Git LFS, not an image; git lfs pull",
        ),
        (b"%PDF-1.7", "a PDF document"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "an SVG drawing"),
        (b"PK\3\4", "an archive (ZIP)"),
        (b"\x1f\x8b\x08", "compressed (gzip)"),
        (b"\x5c\x01\0\0", "a volume (NIfTI), not an image; hand in a slice"),
        (b"\0\0\0\x18ftypmp42", "a video"),
        (b"II*\0", "a TIFF file of a kind that is not read (it has no page)"),
        (b"\xff\x0a", "a JPEG XL image, which is not read; save it as PNG"),
    ],
)
def test_what_a_file_is_instead(tmp_path, content, found):
    """By its content, whatever it is called."""
    (tmp_path / "scan.jpg").write_bytes(content + bytes(600))
    assert reason_of(tmp_path / "scan.jpg").startswith(f"is {found}")


def test_files_of_numpy(tmp_path, picture):
    """An array in a file is that array, with all its rules; nothing in it is executed."""
    for array in (picture, picture[..., 0], picture / 255):
        np.save(tmp_path / "a.npy", array)
        assert torch.equal(read_picture(tmp_path / "a.npy"), read_picture(array))
    np.save(tmp_path / "a.npy", np.stack([picture] * 5))
    assert reason_of(tmp_path / "a.npy") == "holds 5 images; expected one, numpy.load gives the array to hand in"
    np.save(tmp_path / "a.npy", np.array([Path("x")]), allow_pickle=True)
    assert "allow_pickle" in reason_of(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", picture.transpose(2, 0, 1))
    assert "may be 3 grey images or the channels of one" in reason_of(tmp_path / "a.npy")


@pytest.mark.parametrize("close", ["image", "file", "context", "loaded"])
def test_an_image_that_was_closed_before_it_was_read_says_so(tmp_path, picture, close):
    path = save_picture(tmp_path / "a.png", picture)
    with path.open("rb") as file:
        image = Image.open(file if close == "file" else path)
    if close == "loaded":
        image.load()
    if close != "file":
        image.close()
    if close == "context":
        with Image.open(path) as image:
            pass
    reason = "was closed before it was read; call image.load() while it is open, or hand in its path"
    assert reason_of(image) == reason


@pytest.mark.parametrize(("extra", "channels"), [((), 1), ((2,), 1), ((0,), 2), ((0, 0), 3), ((0, 2), 2)])
def test_channels_that_are_no_colours_are_said(tmp_path, picture, extra, channels):
    """Of a microscope's TIFF the first channel is used; grey with transparency is an ordinary picture."""
    pixels = np.dstack([picture[..., 0], *[picture[..., 1]] * len(extra)])
    tags = [
        (256, 4, 1, 30), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 1, 200), (277, 3, 1, 1 + len(extra)), (278, 4, 1, 20), (279, 4, 1, pixels.size),
    ]  # fmt: skip
    entries = [struct.pack("<HHII", *tag) for tag in tags]
    entries[2] = struct.pack("<HHI", 258, 3, 1 + len(extra)) + (
        struct.pack("<HH", 8, 8) if len(extra) < 2 else struct.pack("<I", 190)
    )
    if extra:
        entries.append(struct.pack("<HHIHH", 338, 3, len(extra), *(*extra, 0)[:2]))
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    content = head.ljust(190, b"\0") + struct.pack("<HHH", 8, 8, 8)
    (tmp_path / "a.tif").write_bytes(content.ljust(200, b"\0") + pixels.tobytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert torch.equal(read_picture(tmp_path / "a.tif"), read_picture(picture[..., 0]))
    wanted = [f"has {channels} channels that are not said to be colours; only the first is used"] * (channels > 1)
    assert [str(one.message).partition(": ")[2] for one in caught] == wanted


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes on this system")
def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "is a pipe" in reason_of(tmp_path / "pipe.png")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="every file is readable to this user")
def test_unreadable_file(tmp_path, picture):
    path = save_picture(tmp_path / "a.png", picture)
    path.chmod(0)
    assert "PermissionError" in reason_of(path)


def test_decoder_errors_are_chained(tmp_path, picture):
    path = save_picture(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(OSError") as caught:
        read_picture(path)
    assert isinstance(caught.value.__cause__, OSError)
    closed = Image.open(save_picture(tmp_path / "b.png", picture))
    closed.close()
    assert "was closed before it was read" in reason_of(closed)


@pytest.mark.parametrize("error", [TypeError, AttributeError, IndexError])
def test_a_fault_of_the_package_is_not_blamed_on_the_image(tmp_path, picture, monkeypatch, error):
    def fail(*_):
        raise error("a bug")

    monkeypatch.setattr(reading, "to_rgb", fail)
    for source in (picture, save_picture(tmp_path / "a.png", picture)):
        with pytest.raises(error, match=r"^a bug$"):
            read_picture(source)


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


@pytest.mark.parametrize("pillow_limit", [None, 10**12, Image.MAX_IMAGE_PIXELS])
def test_the_limit_holds_before_decoding(tmp_path, picture, monkeypatch, pillow_limit, make_dicom):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillow_limit)
    monkeypatch.setattr(pixels, "MAX_PIXELS", 599)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for extension in ("png", "jpg", "tif", "gif", "bmp", "ppm"):
        assert "is 30×20 pixels; expected at most 599" in reason_of(save_picture(tmp_path / f"a.{extension}", picture))
    for source in (picture, torch.from_numpy(picture).permute(2, 0, 1), Image.fromarray(picture)):
        assert "expected at most 599" in reason_of(source)
    assert "expected at most 599" in reason_of(make_dicom(tmp_path / "a.dcm", picture[..., 0]))


def test_pillows_own_limit_holds_too(tmp_path, picture, monkeypatch):
    path = save_picture(tmp_path / "a.png", picture)
    for limit in (200, 500):  # 600 pixels: an error of Pillow's, and a warning
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "is too large" in reason_of(path)


@pytest.mark.parametrize("missing", ["pydicom", "pydicom.pixels"])  # the second is what versions before 3.0 lack
def test_dicom_without_pydicom_or_with_an_old_one(tmp_path, picture, monkeypatch, make_dicom, missing):
    path = make_dicom(tmp_path / "a.dcm", picture)
    monkeypatch.setitem(sys.modules, missing, None)
    assert reason_of(path) == 'is a DICOM file, which needs pydicom 3.0 or newer: pip install "diffmiczoo[dicom]"'


def test_what_a_decoder_lacks_is_not_blamed_on_the_file(tmp_path, picture, monkeypatch, make_dicom):
    path = make_dicom(tmp_path / "a.dcm", picture)
    monkeypatch.delattr("pydicom.dcmread")
    with pytest.raises(AttributeError, match="dcmread"):
        read_picture(path)
    monkeypatch.undo()
    monkeypatch.delattr("pydicom.pixels.get_decoder")
    with pytest.raises(ImportError, match="get_decoder"):
        read_picture(path)


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
            image = read_picture(broken)
        except ImageError as error:
            assert str(error).startswith(f"{broken}: ")
        else:
            assert image.dtype == torch.uint8 and image.shape[0] == 3 and image.numel() <= 3 * pixels.MAX_PIXELS
    assert all("only the first is used" in str(warning.message) for warning in caught)


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
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
def test_a_jpeg_is_decoded_no_larger_than_needed(tmp_path, size, min_side, expected) -> None:
    path = save_picture(tmp_path / "large.jpg", smooth_picture(*size), quality=95)
    assert read_image(Item("large", path), min_side).shape == (3, *expected)


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
    assert torch.equal(
        read_image(Item("png", save_picture(tmp_path / "large.png", picture)), 32), read_picture(picture)
    )
