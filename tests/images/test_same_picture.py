"""A picture in every format, depth, photometric interpretation and orientation gives the answer of its 8-bit array."""

from __future__ import annotations

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import read_picture, reason_of, small_model, smooth_picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

COLOUR = smooth_picture(21, 26)
GREY = COLOUR[..., 0]


def differs(source: Any, expected: np.ndarray) -> int:
    """Returns by how many grey levels a source differs at most; fails where its sides do."""
    shown = read_picture(source)
    shown = (shown if shown.dtype == torch.uint8 else shown * 255).numpy().astype(float)
    planes = expected[None] if expected.ndim == 2 else expected.transpose(2, 0, 1)
    assert shown.shape[1:] == planes.shape[1:]
    return int(np.ceil(np.abs(shown - planes).max() - 1e-3))


def deeper(picture: np.ndarray, bits: int, kind: str = "u") -> np.ndarray:
    """The picture in `bits` bits, or as floats in [0, 1]."""
    if kind == "f":
        return (picture / 255).astype(f"f{bits // 8}")
    return np.rint(picture / 255.0 * (2**bits - 1)).astype(np.int64 if kind == "i" else np.uint64)


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """What a file with the orientation stores so that `picture` shows."""
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    transposed = picture.swapaxes(0, 1) if back > 4 else picture
    flips = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(back, [])
    return np.ascontiguousarray(np.flip(transposed, flips))


def pack(values: np.ndarray, bits: int, kind: str, order: str) -> bytes:
    """Rows of numbers as TIFF stores them: whole bytes per row."""
    if bits % 8 == 0:
        return values.astype(f"{order}{kind}{bits // 8}").tobytes()
    digits = (values[..., None].astype(np.int64) >> np.arange(bits)[::-1]) & 1
    return np.packbits(digits.reshape(len(values), -1).astype(np.uint8), axis=1).tobytes()


def write_tiff(
    path: Path,
    values: np.ndarray,
    bits: int,
    photometric: int | None,
    kind: str = "u",
    order: str = "<",
    planar: bool = False,
    tiled: bool = False,
    deflated: bool = False,
    orientation: int = 1,
    extra: int | None = None,
) -> Path:
    """Writes values (H, W) or (H, W, C) in strips of 8 rows or tiles of 16×16."""
    values = values[..., None] if values.ndim == 2 else values
    height, width, samples = values.shape
    parts = [values[..., c : c + 1] for c in range(samples)] if planar else [values]
    blocks = []
    for part in parts:
        padded = np.pad(part, ((0, -height % 16), (0, -width % 16), (0, 0))) if tiled else part
        step, across = (16, 16) if tiled else (8, width)
        for row, column in itertools.product(range(0, height, step), range(0, width, across)):
            block = padded[row : row + step, column : column + across]
            data = pack(block.reshape(len(block), -1), bits, kind, order)
            blocks.append(zlib.compress(data) if deflated else data)
    places = [8 + sum(map(len, blocks[:i])) for i in range(len(blocks))]
    tags: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * samples),
        259: ("H", [8 if deflated else 1]),
        262: ("H", [photometric or 0]),
        274: ("H", [orientation]),
        277: ("H", [samples]),
        284: ("H", [2 if planar else 1]),
        339: ("H", [{"u": 1, "i": 2, "f": 3}[kind]] * samples),
    }
    sizes = [len(block) for block in blocks]
    if tiled:
        tags |= {322: ("I", [16]), 323: ("I", [16]), 324: ("I", places), 325: ("I", sizes)}
    else:
        tags |= {273: ("I", places), 278: ("I", [8]), 279: ("I", sizes)}
    if extra is not None:
        tags[338] = ("H", [extra])
    if photometric is None:
        del tags[262]
    directory = 8 + sum(sizes)
    room = directory + 2 + 12 * len(tags) + 4
    entries, beyond = b"", b""
    for tag, (form, numbers) in sorted(tags.items()):
        data = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
        entries += struct.pack(f"{order}HHI", tag, 3 if form == "H" else 4, len(numbers))
        if len(data) > 4:
            entries += struct.pack(f"{order}I", room + len(beyond))
            beyond += data
        else:
            entries += data.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", directory)
    count = struct.pack(f"{order}H", len(tags))
    path.write_bytes(start + b"".join(blocks) + count + entries + bytes(4) + beyond)
    return path


def write_png(path: Path, values: np.ndarray, bits: int, kind: int, chunks: bytes = b"") -> Path:
    """Writes 8 or 16 bits: kind 0 grey, 2 RGB, 4 grey and 6 RGB with transparency."""
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, kind, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + data)
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    depth=st.sampled_from(
        ["1u", "2u", "4u", "8u", "10u", "12u", "14u", "16u", "32u", "16i", "32i", "16f", "32f", "64f"]
    ),
    photometric=st.sampled_from([0, 1, 2]),
    order=st.sampled_from("<>"),
    planar=st.booleans(),
    tiled=st.booleans(),
    deflated=st.booleans(),
    orientation=st.integers(1, 8),
)
def test_tiff(tmp_path, depth, photometric, order, planar, tiled, deflated, orientation):
    bits, kind = int(depth[:-1]), depth[-1]
    picture = COLOUR if photometric == 2 else GREY
    values = deeper(picture, bits if kind == "f" else min(bits, 16) - (kind == "i"), kind)
    full = 1 if kind == "f" else 2 ** (min(bits, 16) - (kind == "i")) - 1
    path = write_tiff(
        tmp_path / "a.tif",
        turned(full - values if photometric == 0 else values, orientation),
        bits,
        photometric,
        kind,
        order,
        planar=planar,
        tiled=tiled,
        deflated=deflated,
        orientation=orientation,
    )
    coarse = np.rint(values / full * 255)
    try:
        assert differs(path, coarse) <= 2
    except Exception as error:
        # Only a compressed file of a kind that Pillow does not know may be refused, with a reason.
        assert "of a kind that is not read" in str(error), error
        assert deflated


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("extra", [0, 2])
@pytest.mark.filterwarnings("ignore:.*has 2 channels that are not said to be colours")
def test_tiff_with_transparency(tmp_path, order, bits, planar, extra):
    alpha = np.full((*GREY.shape, 1), 255)
    rgba = deeper(np.concatenate([COLOUR, alpha], axis=2), bits)
    assert differs(write_tiff(tmp_path / "a.tif", rgba, bits, 2, order=order, planar=planar, extra=extra), COLOUR) <= 1
    grey = deeper(np.concatenate([GREY[..., None], alpha], axis=2), bits)
    assert differs(write_tiff(tmp_path / "b.tif", grey, bits, 1, order=order, planar=planar, extra=extra), GREY) <= 1


@pytest.mark.parametrize("factor", [1, 16, 256, 257])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "b.tif", "lzw.tif"])
def test_deep_colours_of_any_scale(tmp_path, factor, name):
    deep = COLOUR.astype(np.uint16) * factor
    if name == "a.png":
        path = write_png(tmp_path / name, deep, 16, 2)
    else:
        path = write_tiff(
            tmp_path / name, deep, 16, 2, order="<" if name == "a.tif" else ">", deflated=name == "lzw.tif"
        )
    assert differs(path, COLOUR) == 0
    with Image.open(path) as image:
        assert differs(image, COLOUR) == 0
        assert image.size == (26, 21)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", [0, 2, 4, 6])
@pytest.mark.parametrize("ancillary", [b"", "gamma", "profile", "animation"])
def test_png(tmp_path, bits, kind, ancillary):
    picture = COLOUR if kind in (2, 6) else GREY[..., None]
    alpha = np.random.default_rng(0).integers(0, 2, GREY.shape)[..., None] * 255
    values = deeper(np.concatenate([picture, alpha], axis=2) if kind in (4, 6) else picture, bits)
    extra = {
        "gamma": chunk(b"gAMA", struct.pack(">I", 45455)),
        "profile": chunk(b"sRGB", b"\0"),
        "animation": chunk(b"acTL", struct.pack(">II", 1, 0))
        + chunk(b"fcTL", struct.pack(">5I2H2B", 0, 26, 21, 0, 0, 1, 9, 0, 0)),
    }.get(ancillary, b"")
    assert differs(write_png(tmp_path / "a.png", values, bits, kind, extra), picture.squeeze()) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_png_that_lies_on_its_side(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    path = write_png(tmp_path / "a.png", turned(COLOUR.astype(np.uint16) * 16, orientation), 16, 2, data)
    assert differs(path, COLOUR) == 0


def test_every_array_and_tensor():
    for picture in (GREY, COLOUR):
        sources: list[Any] = [picture, Image.fromarray(picture), torch.from_numpy(np.moveaxis(picture, -1, 0).copy())]
        if picture is GREY:
            sources[2] = torch.from_numpy(picture)
        for dtype in (np.uint16, np.int16, np.uint32, np.int32, np.int64, np.float32, np.float64):
            sources.append(picture.astype(dtype))
        for factor, dtype in itertools.product((16, 257), (np.uint16, np.int32, np.uint32, np.float32)):
            sources.append(picture.astype(dtype) * dtype(factor))
            sources.append((picture.astype(dtype) * dtype(factor)).astype(np.dtype(dtype).newbyteorder(">")))
        sources += [picture / 255, (picture / 255).astype(np.float32), torch.from_numpy(picture / 255)]
        for source in sources:
            assert differs(source, picture) <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I", "F"])
@pytest.mark.parametrize("factor", [1, 16, 257])
def test_deep_modes_of_pillow(mode, factor):
    if mode.startswith("I;16"):
        order = ">" if mode == "I;16B" else "<"
        image = Image.frombytes(
            mode, GREY.shape[::-1], (GREY.astype(np.uint16) * factor).astype(f"{order}u2").tobytes()
        )
    else:
        image = Image.fromarray(GREY.astype(np.float32 if mode == "F" else np.int32) * factor)
    assert image.mode == mode
    assert differs(image, GREY) <= 1


@pytest.mark.parametrize("kind", ["i", "f"])
def test_negative_numbers_in_tiff_are_refused(tmp_path, kind):
    values = GREY.astype(int) * 10 - 1000
    path = write_tiff(tmp_path / "a.tif", values, 16 if kind == "i" else 32, 1, kind)
    assert "from -9" in reason_of(path) or "from -1000" in reason_of(path)
    signed = write_tiff(tmp_path / "b.tif", GREY.astype(int) - 128, 8, 1, "i")
    assert "holds int8 values" in reason_of(signed)


def test_what_is_not_read_of_tiff_says_what_it_is(tmp_path):
    path = write_tiff(tmp_path / "a.tif", deeper(COLOUR, 16), 16, 2, planar=True)
    whole, entry = path.read_bytes(), struct.pack("<HHIH", 259, 3, 1, 1)
    path.write_bytes(whole.replace(entry, entry[:-2] + b"\x05\0"))
    assert "planes of 16 bits, compressed as tiff_lzw, which is not read" in reason_of(path)
    path = write_tiff(tmp_path / "c.tif", GREY.astype(int) - 128, 8, 1, "i")
    path.write_bytes(path.read_bytes().replace(entry, entry[:-2] + b"\x05\0"))
    assert "signed values of 8 bits, compressed as tiff_lzw, which is not read" in reason_of(path)
    path = write_tiff(tmp_path / "b.tif", deeper(GREY, 14), 14, 1)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(entry, entry[:-2] + b"\x05\0"))
    assert "kind that is not read (bits (14,), sample format (1,), photometric 1, compression 5)" in reason_of(path)


def test_a_cut_tiff_is_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", deeper(GREY, 14), 14, 0)
    whole = path.read_bytes()
    struct_at = int.from_bytes(whole[4:8], "little")
    moved = whole[:8] + whole[struct_at - 20 :]  # the directory, and hardly any pixels before it
    path.write_bytes(moved[:4] + struct.pack("<I", 28) + moved[8:])
    assert reason_of(path)


@pytest.mark.filterwarnings("ignore:this model is not trained")
def test_the_same_probabilities(tmp_path, make_dicom):
    model = small_model(image_size=64)
    twelve = GREY.astype(np.uint16) * 16
    Image.fromarray(GREY).save(tmp_path / "a.png")
    sources = [
        tmp_path / "a.png",
        GREY,
        write_png(tmp_path / "b.png", deeper(GREY, 16), 16, 0),
        write_tiff(tmp_path / "c.tif", deeper(255 - GREY, 16), 16, 0),
        write_tiff(tmp_path / "d.tif", deeper(255 - GREY, 12), 12, 0, order=">"),
        make_dicom(tmp_path / "e.dcm", GREY),
        make_dicom(tmp_path / "f.dcm", twelve, BitsStored=12, HighBit=11),
        make_dicom(tmp_path / "g.dcm", twelve << 4, BitsStored=12, HighBit=15),
        make_dicom(tmp_path / "h.dcm", 4080 - twelve, PhotometricInterpretation="MONOCHROME1"),
    ]
    probs = model.predict(sources, steps=1, progress=False).probs
    assert (probs - probs[:1]).abs().max() <= 0.02
