"""Every strange, broken or hostile file gives the right picture or an error that names it.

`odd_files.json` holds for each file the shape and an 8×8 thumbnail of the picture (all were looked at), or a part of
the error's reason. `python tests/images/test_odd_files.py` writes it anew; look at the pictures before you keep it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import PILLOW
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.reading import read_image

TABLE = Path(__file__).with_name("odd_files.json")
FOLDER = Path(__file__).parents[3] / "shared/data/odd_files/files"
EXPECTED: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {}

SMALL = np.zeros((4, 4), np.uint8)

needs_files = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER} is absent")


def thumbnail(image: Tensor) -> Tensor:
    return adaptive_avg_pool2d(image.float(), 8).round().int()


@needs_files
def test_table_names_every_file():
    assert sorted(EXPECTED) == sorted(path.name for path in FOLDER.iterdir())


@needs_files
@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_odd_file(name):
    if name == "bmp_b_badrle.bmp" and PILLOW < (12, 2):
        pytest.skip("Pillow read its broken runs otherwise before 12.2")
    expected = EXPECTED[name]
    item = as_items(FOLDER / name)[0]
    start = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if "error" in expected:
            with pytest.raises(ImageError) as caught_error:
                read_image(item)
            assert str(caught_error.value).startswith(f"{FOLDER / name}: ")
            assert expected["error"] in caught_error.value.reason
        else:
            image = read_image(item)
            assert image.dtype == torch.uint8
            assert list(image.shape) == expected["shape"]
            difference = thumbnail(image) - torch.tensor(expected["thumbnail"]).reshape(3, 8, 8)
            assert difference.abs().max() <= 2
    assert time.process_time() - start < 10, "a hostile file must not keep the processor busy"
    assert [str(warning.message).removeprefix(f"{FOLDER / name}: ") for warning in caught] == expected.get("warns", [])


@needs_files
@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("pil_sample_cmyk.jpg", "pil_sample_rgb.jpg"),
        ("hopper_orientation_6.jpg", "hopper.bmp"),
        ("hopper_orientation_8.webp", "hopper.bmp"),
        ("hopper.Lab.tif", "hopper.bmp"),
        ("avif_hopper.avif", "hopper.bmp"),
        ("hopper_16bit.pgm", "hopper_gray.jpg"),
        ("16bit.cropped.jp2", "16bit.cropped.tif"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("examples_jpeg2k.dcm", "examples_rgb_color.dcm"),
        ("SC_rgb_rle_16bit.dcm", "SC_ybr_full_422_uncompressed.dcm"),
    ],
)
def test_same_picture_in_another_encoding(name, same_as):
    pictures = [thumbnail(read_image(as_items(FOLDER / file)[0])).float() for file in (name, same_as)]
    assert (pictures[0] - pictures[1]).abs().mean() < 10


HOSTILE = r"""
import pathlib, re, sys
import PIL.Image
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.loading import read_squares
PIL.Image.MAX_IMAGE_PIXELS = None
for index, square in enumerate(read_squares(as_items(sys.argv[1:]), DiffMICConfig(crop_mode="border"))):
    print(square if isinstance(square, ImageError) else f"{sys.argv[1 + index]}: read")
# Not getrusage: its peak starts with that of the process that started this one.
print(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1])
"""


def test_hostile_files_need_little_memory_and_leave_nothing_open(tmp_path, make_dicom):
    """With Pillow's own limit switched off, all bombs and odd files in one process that has to import torch once."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is read from /proc")
    pytest.importorskip("pydicom")
    reasons = hostile_files(tmp_path, make_dicom)
    files = [*reasons, *(sorted(FOLDER.iterdir()) if FOLDER.is_dir() else [])]
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", HOSTILE, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    *answers, memory = done.stdout.splitlines()
    assert len(answers) == len(files)
    for (path, reason), answer in zip(reasons.items(), answers, strict=False):
        assert answer.startswith(f"{path}: ") and reason in answer
    assert int(memory) < 1_000_000  # KiB
    # `import torch` alone leaves a temporary directory behind in 2.6.
    warned = [line for line in done.stderr.splitlines() if "Warning: " in line and "<TemporaryDirectory" not in line]
    assert all("only the first is used" in line for line in warned)


def hostile_files(folder: Path, make_dicom: Callable[..., Path]) -> dict[Path, str]:
    """Writes small files that ask for much memory; path → what the answer must say."""
    thin = {folder / "tall.png": (1, 5_000_000), folder / "wide.png": (5_000_000, 1)}
    for path, size in thin.items():
        Image.new("L", size).save(path)
    return {
        huge_png(folder / "huge.png"): "60000×60000 pixels; expected at most",
        make_dicom(folder / "rows.dcm", SMALL, Rows=65535, Columns=65535): "65535×65535 pixels; expected at most",
        deflated_bomb(make_dicom(folder / "deflated.dcm", SMALL, deflated=True)): "inflates to over",
        hidden_jpeg_bomb(make_dicom(folder / "hidden.dcm", SMALL)): "65000×65000 pixels; expected at most",
        **dict.fromkeys(thin, "read"),
    }


def huge_png(path: Path) -> Path:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b""))
    return path


def deflated_bomb(path: Path) -> Path:
    content = path.read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    compressor = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(compressor.compress(bytes(10**7)) for _ in range(60)) + compressor.flush()
    path.write_bytes(content[:start] + body)
    return path


def hidden_jpeg_bomb(path: Path) -> Path:
    """Writes a DICOM file of 4×4 pixels whose JPEG frame claims 65,000 × 65,000."""
    import pydicom

    buffer = BytesIO()
    Image.new("L", (64, 64)).save(buffer, "JPEG")
    jpeg = bytearray(buffer.getvalue())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place : place + 4] = (65_000).to_bytes(2, "big") * 2
    dataset = pydicom.dcmread(path)
    dataset.PixelData = pydicom.encaps.encapsulate([bytes(jpeg)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    dataset.save_as(path, enforce_file_format=True)
    return path


def describe(path: Path) -> dict[str, Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            image = read_image(as_items(path)[0])
        except ImageError as error:
            known = EXPECTED.get(path.name, {}).get("error", "")
            return {"error": known if known and known in error.reason else error.reason}
    row: dict[str, Any] = {"shape": list(image.shape), "thumbnail": thumbnail(image).flatten().tolist()}
    if caught:
        row["warns"] = [str(warning.message).removeprefix(f"{path}: ") for warning in caught]
    return row


if __name__ == "__main__":
    rows = [f"{json.dumps(path.name)}: {json.dumps(describe(path))}" for path in sorted(FOLDER.iterdir())]
    TABLE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
