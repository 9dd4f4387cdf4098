"""Headers that scanners write and every viewer forgives, and windows and tables: the same picture as its 8-bit copy."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import read_picture, reason_of, smooth_picture
from PIL import Image

from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.reading import read_image

pydicom = pytest.importorskip("pydicom")

GREY = smooth_picture(20, 24)[..., 0]
GREY[0, :2] = 0, 255
COLOUR = smooth_picture(20, 24)
TWELVE = GREY.astype(np.uint16) * 16


def table(values: Any, bits: int, first: int = 0, kind: str = "OW", entries: int | None = None) -> Any:
    """A lookup table in a sequence of one item."""
    item = pydicom.Dataset()
    item.add_new(0x00283002, "SS" if first < 0 else "US", [len(values) if entries is None else entries, first, bits])
    data = np.asarray(values, np.uint16)
    item.add_new(0x00283006, kind, data.tobytes() if kind == "OW" else data.tolist())
    return pydicom.Sequence([item])


def differs(path: Path, expected: np.ndarray) -> int:
    """Returns by how many grey levels a file differs at most."""
    shown = read_picture(path).numpy().astype(int)
    return int(np.abs(shown - (expected if expected.ndim == 2 else expected.transpose(2, 0, 1))).max())


EMPTY = pydicom.Dataset()
EMPTY.add_new(0x00283002, "US", None)
EMPTY.add_new(0x00283006, "OW", None)
RAMP = np.arange(4096)

FORGIVEN = {
    "no window": {},
    "HighBit 0": {"HighBit": 0},
    "HighBit of the values in use": {"HighBit": 9},
    "BitsStored of the allocated": {"BitsStored": 12},
    "rescale empty": {"RescaleSlope": "", "RescaleIntercept": ""},
    "slope 0": {"RescaleSlope": "0", "RescaleIntercept": "0"},
    "slope 1": {"RescaleSlope": "1", "RescaleIntercept": "0"},
    "slope without intercept": {"RescaleSlope": "1"},
    "window width 0": {"WindowCenter": "2000", "WindowWidth": "0"},
    "window width negative": {"WindowCenter": "2000", "WindowWidth": "-1"},
    "window empty": {"WindowCenter": "", "WindowWidth": ""},
    "window center alone": {"WindowCenter": "2000"},
    "first window width 0": {"WindowCenter": ["1", "2040"], "WindowWidth": ["0", "4081"]},
    "window of other values": {"WindowCenter": "-90000", "WindowWidth": "10"},
    "window": {"WindowCenter": "2040.5", "WindowWidth": "4081"},
    "several windows": {"WindowCenter": ["2040.5", "40"], "WindowWidth": ["4081", "400"]},
    "unknown function": {"WindowCenter": "2040.5", "WindowWidth": "4081", "VOILUTFunction": "LINEAR_OLD"},
    "exact": {"WindowCenter": "2040", "WindowWidth": "4080", "VOILUTFunction": "LINEAR_EXACT"},
    "lower case": {"WindowCenter": "2040", "WindowWidth": "4080", "VOILUTFunction": "linear_exact"},
    "empty table and window": {
        "WindowCenter": "2040.5",
        "WindowWidth": "4081",
        "VOILUTSequence": pydicom.Sequence([EMPTY]),
    },
    "sequence without item": {"VOILUTSequence": pydicom.Sequence([])},
    "modality table of 12 bits": {"ModalityLUTSequence": table(RAMP, 12)},
    "modality table of 16 bits": {"ModalityLUTSequence": table(RAMP * 16, 16)},
    "modality table from 16 on": {"ModalityLUTSequence": table(RAMP[16:], 12, 16)},
    "VOI table": {"VOILUTSequence": table(RAMP, 12)},
    "VOI table as numbers": {"VOILUTSequence": table(RAMP, 12, kind="US")},
    "VOI table of 16 bits that uses 12": {"VOILUTSequence": table(RAMP, 16)},
    "VOI table of 16 bits that uses 8": {"VOILUTSequence": table(RAMP // 16, 16)},
    "VOI table of 8 bits that uses 16": {"VOILUTSequence": table(RAMP * 16, 8)},
    "VOI table shorter than it says": {"VOILUTSequence": table(RAMP, 12, entries=0)},
    "VOI table before a window": {"VOILUTSequence": table(RAMP, 12), "WindowCenter": "9", "WindowWidth": "2"},
    "NumberOfFrames 0": {"NumberOfFrames": "0"},
    "NumberOfFrames empty": {"NumberOfFrames": ""},
    "SamplesPerPixel missing": {"SamplesPerPixel": None},
    "BitsStored missing": {"BitsStored": None},
    "BitsStored too many": {"BitsStored": 20},
    "BitsAllocated missing": {"BitsAllocated": None},
    "HighBit missing": {"HighBit": None},
    "PixelRepresentation missing": {"PixelRepresentation": None},
    "PhotometricInterpretation missing": {"PhotometricInterpretation": None},
    "PhotometricInterpretation with a blank": {"PhotometricInterpretation": "MONOCHROME2 "},
    "shape identity": {"PresentationLUTShape": "IDENTITY"},
}


@pytest.mark.parametrize("what", FORGIVEN)
def test_the_same_grey_picture(tmp_path, make_dicom, what):
    elements = {"BitsStored": 12, "HighBit": 11} | FORGIVEN[what]
    assert differs(make_dicom(tmp_path / "a.dcm", TWELVE, **elements), GREY) <= 2


@pytest.mark.parametrize("stored", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [0, 1])
def test_values_in_the_upper_or_lower_bits(tmp_path, make_dicom, stored, signed):
    values = np.rint(GREY / 255 * (2**stored - 1)).astype(int) - (2 ** (stored - 1) if signed else 0)
    words = values.astype(np.int16).view(np.uint16)
    elements = {"BitsStored": stored, "PixelRepresentation": signed}
    lower = make_dicom(tmp_path / "a.dcm", words & (2**stored - 1), HighBit=stored - 1, **elements)
    upper = make_dicom(tmp_path / "b.dcm", (words << (16 - stored)).astype(np.uint16), HighBit=15, **elements)
    assert differs(lower, GREY) <= 1 and differs(upper, GREY) <= 1


def test_a_high_bit_that_the_values_contradict(tmp_path, make_dicom):
    odd = TWELVE + 1
    assert differs(make_dicom(tmp_path / "a.dcm", odd, BitsStored=12, HighBit=15), GREY) <= 2


def test_overlays_in_unused_bits_do_not_show(tmp_path, make_dicom):
    overlay = np.random.default_rng(0).integers(0, 16, TWELVE.shape).astype(np.uint16)
    assert differs(make_dicom(tmp_path / "a.dcm", TWELVE | overlay << 12, BitsStored=12, HighBit=11), GREY) <= 2
    below = (TWELVE << 4 | overlay).astype(np.uint16)
    assert differs(make_dicom(tmp_path / "b.dcm", below, BitsStored=12, HighBit=15), GREY) <= 2


@pytest.mark.parametrize(
    ("photometric", "shape", "negative"),
    [
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME2", "IDENTITY", False),
    ],
)
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "2040.5", "WindowWidth": "4081"}])
def test_negatives(tmp_path, make_dicom, photometric, shape, negative, window):
    stored = 4080 - TWELVE if negative else TWELVE
    elements = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": photometric, **window}
    if shape:
        elements["PresentationLUTShape"] = shape
    assert differs(make_dicom(tmp_path / "a.dcm", stored.astype(np.uint16), **elements), GREY) <= 2


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("value", "limit"), [(0, None), (65535, None), (60000, 65535), (65535, 60000)])
def test_padding_is_black_and_out_of_the_range(tmp_path, make_dicom, photometric, value, limit):
    stored = 4080 - TWELVE if photometric == "MONOCHROME1" else TWELVE.copy()
    stored, expected = stored + 16, GREY.copy()
    stored[5:9], expected[5:9] = value, 0
    elements = {"PhotometricInterpretation": photometric, "PixelPaddingValue": value}
    if limit is not None:
        elements["PixelPaddingRangeLimit"] = limit
    window = {"WindowCenter": "2056.5", "WindowWidth": "4081"}
    path = make_dicom(tmp_path / "a.dcm", stored.astype(np.uint16), **elements, **window)
    assert differs(path, expected) <= 2


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_the_first_frame_of_an_enhanced_object(tmp_path, make_dicom, groups):
    def group(center: str, slope: str) -> Any:
        window, rescale, of_frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        window.WindowCenter, window.WindowWidth = center, "4081"
        rescale.RescaleSlope, rescale.RescaleIntercept = slope, "-1024"
        of_frame.FrameVOILUTSequence, of_frame.PixelValueTransformationSequence = [window], [rescale]
        return of_frame

    elements = {groups: [group("1016.5", "1"), group("9", "7")], "NumberOfFrames": 2}
    path = make_dicom(tmp_path / "a.dcm", TWELVE, PixelData=TWELVE.tobytes() * 2, **elements)
    with pytest.warns(UserWarning, match="2 frames"):
        assert differs(path, GREY) <= 2


def test_sigmoid_and_narrow_windows(tmp_path, make_dicom):
    window = {"WindowCenter": "2000", "WindowWidth": "1000"}
    shown = make_dicom(tmp_path / "a.dcm", TWELVE, VOILUTFunction="SIGMOID", **window)
    assert differs(shown, 255 / (1 + np.exp(-4 * (TWELVE - 2000.0) / 1000))) <= 1
    steps = make_dicom(tmp_path / "b.dcm", TWELVE, WindowCenter="2000", WindowWidth="1")
    assert differs(steps, np.where(TWELVE > 1999.5, 255, 0)) == 0
    small = {"RescaleSlope": "0.0002450980392", "RescaleIntercept": "0"}
    unit = make_dicom(tmp_path / "c.dcm", TWELVE, WindowCenter="0.5", WindowWidth="0.99999", **small)
    assert differs(unit, GREY) <= 2


def test_negative_numbers_and_tables(tmp_path, make_dicom):
    signed = TWELVE.astype(np.int16) - 2048
    assert differs(make_dicom(tmp_path / "a.dcm", signed), GREY) <= 2
    voi = table(RAMP, 12, -2048)
    assert differs(make_dicom(tmp_path / "b.dcm", signed, VOILUTSequence=voi), GREY) <= 2
    shifted = {"RescaleSlope": "1", "RescaleIntercept": "-2048", "VOILUTSequence": voi}
    assert differs(make_dicom(tmp_path / "c.dcm", TWELVE, **shifted), GREY) <= 2
    window = {"RescaleSlope": "2", "RescaleIntercept": "-4096", "WindowCenter": "-15.5", "WindowWidth": "8161"}
    assert differs(make_dicom(tmp_path / "d.dcm", TWELVE, **window), GREY) <= 2


@pytest.mark.parametrize("depth", [8, 16, 32])
@pytest.mark.parametrize("syntax", ["ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian"])
@pytest.mark.parametrize("bare", [False, True])
def test_every_depth_and_byte_order(tmp_path, depth, syntax, bare):
    values = (GREY.astype(np.uint64) * {8: 1, 16: 257, 32: 257}[depth]).astype(f"u{depth // 8}")
    header = pydicom.Dataset()
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    header.Rows, header.Columns = GREY.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated = header.BitsStored = depth
    header.HighBit, header.PixelRepresentation = depth - 1, 0
    if syntax == "ExplicitVRBigEndian":
        values = values.byteswap()
    header.PixelData = values.tobytes()
    header["PixelData"].VR = "OB" if depth == 8 else "OW"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    header.file_meta.MediaStorageSOPClassUID, header.file_meta.MediaStorageSOPInstanceUID = header.SOPClassUID, "1.2"
    header.save_as(tmp_path / "a", enforce_file_format=True)
    if bare:
        content = (tmp_path / "a").read_bytes()
        length = int.from_bytes(content[140:144], "little")
        (tmp_path / "a").write_bytes(content[144 + length :])
    assert differs(tmp_path / "a", GREY) <= 1


def test_bits_and_floats(tmp_path, make_dicom):
    mask = (GREY > 128).astype(np.uint8)
    packed = np.packbits(mask, bitorder="little")
    elements = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": packed.tobytes()}
    assert differs(make_dicom(tmp_path / "a.dcm", mask, **elements), mask * 255) == 0
    path = make_dicom(tmp_path / "b.dcm", GREY)
    header = pydicom.dcmread(path)
    del header.PixelData
    header.FloatPixelData, header.BitsAllocated = (GREY / np.float32(255)).tobytes(), 32
    header.save_as(path)
    assert differs(path, GREY) <= 1


PLANAR = COLOUR.transpose(2, 0, 1).copy()


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"PlanarConfiguration": None},
        {"PlanarConfiguration": 1, "PixelData": PLANAR.tobytes()},
        {"SamplesPerPixel": None},
        {"SamplesPerPixel": 1},
        {"PhotometricInterpretation": None},
        {"PhotometricInterpretation": None, "SamplesPerPixel": None},
        {"PhotometricInterpretation": "MONOCHROME2"},
        {"PhotometricInterpretation": "rgb"},
        {"RescaleSlope": "1", "RescaleIntercept": "0", "WindowCenter": "40", "WindowWidth": "80"},
    ],
)
def test_the_same_colours(tmp_path, make_dicom, elements):
    assert differs(make_dicom(tmp_path / "a.dcm", COLOUR, **elements), COLOUR) == 0


@pytest.mark.parametrize("factor", [16, 257])
def test_deep_colours(tmp_path, make_dicom, factor):
    deep = COLOUR.astype(np.uint16) * factor
    assert differs(make_dicom(tmp_path / "a.dcm", deep, BitsStored=16 if factor == 257 else 12), COLOUR) == 0


def test_colours_by_ybr(tmp_path, make_dicom):
    from pydicom.pixels.processing import convert_color_space

    ybr = convert_color_space(COLOUR, "RGB", "YBR_FULL")
    for kind in ("YBR_FULL", "YBR_FULL_422"):  # the second does not lack what it says it lacks
        path = make_dicom(tmp_path / "a.dcm", ybr, PhotometricInterpretation=kind)
        assert differs(path, COLOUR) <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("width", [8, 16])
def test_palettes(tmp_path, make_dicom, bits, width):
    rows, stored = np.unique(COLOUR.reshape(-1, 3), axis=0, return_inverse=True)
    values = rows.astype(np.uint16) * (257 if bits == 16 else 1)
    first = 7
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for place, colour in enumerate(("Red", "Green", "Blue")):
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [len(rows), first, bits]
        data = values[:, place].astype(np.uint8 if width == 8 and bits == 8 else np.uint16)
        palette[f"{colour}PaletteColorLookupTableData"] = data.tobytes() + b"\0" * (data.nbytes % 2)
    index = (stored.reshape(GREY.shape) + first).astype(np.uint16)
    assert differs(make_dicom(tmp_path / "a.dcm", index, **palette), COLOUR) <= 1


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        (
            {"PixelData": TWELVE.tobytes()[:-100]},
            "is cut short: its pixels have 860 bytes, expected 960 for 24×20 pixels",
        ),
        ({"Rows": 21}, "is cut short: its pixels have 960 bytes, expected 1,008"),
        ({"PixelData": None}, "ends before its pixel data"),
        ({"Rows": None}, "has no pixel data"),
        ({"BitsAllocated": 12}, "has BitsAllocated 12; expected 1, 8, 16, 32 or 64"),
        ({"PhotometricInterpretation": "CMYK"}, "has photometric interpretation 'CMYK' with 1 samples per pixel"),
    ],
)
def test_what_is_refused_says_why(tmp_path, make_dicom, elements, reason):
    path = make_dicom(tmp_path / "a.dcm", TWELVE)
    header = pydicom.dcmread(path)
    for keyword, value in elements.items():
        if value is None:
            del header[keyword]
        else:
            setattr(header, keyword, value)
    header.save_as(path)
    assert reason in reason_of(path)


@pytest.mark.parametrize("said", ["grey", "colour", "size"])
@pytest.mark.parametrize("form", ["JPEG", "JPEG2000"])
def test_what_a_compressed_frame_says_of_itself_counts(tmp_path, make_dicom, said, form):
    """Headers that call a JPEG in colours grey, or the other way round, or give another size."""
    pixels = GREY if said == "colour" else COLOUR
    frame = BytesIO()
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {"no_jp2": True, "irreversible": False}
    Image.fromarray(pixels).save(frame, form, **options)
    elements = {"Rows": 10, "Columns": 12} if said == "size" else {}
    header = pydicom.dcmread(make_dicom(tmp_path / "a.dcm", COLOUR if said != "grey" else GREY, **elements))
    header.PixelData = pydicom.encaps.encapsulate([frame.getvalue()])
    syntax = pydicom.uid.JPEGBaseline8Bit if form == "JPEG" else pydicom.uid.JPEG2000Lossless
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(tmp_path / "a.dcm")
    assert differs(tmp_path / "a.dcm", pixels) <= (8 if form == "JPEG" else 0)


def with_syntax(path, uid):
    """Changes the transfer syntax that a file says it has, and nothing else."""
    header = pydicom.dcmread(path)
    length = header.file_meta.FileMetaInformationGroupLength
    old = header.file_meta.TransferSyntaxUID.encode()
    old, new = (text + b"\0" * (len(text) % 2) for text in (old, uid.encode()))
    content = path.read_bytes()
    content = content.replace(struct.pack("<H", len(old)) + old, struct.pack("<H", len(new)) + new)
    path.write_bytes(content.replace(struct.pack("<I", length), struct.pack("<I", length + len(new) - len(old)), 1))
    return path


def test_pixels_that_lie_there_as_they_are_count_as_such(tmp_path, make_dicom):
    """A header that says JPEG, as programs leave it that decompress and forget to say so."""
    path = with_syntax(make_dicom(tmp_path / "a.dcm", GREY), pydicom.uid.JPEGBaseline8Bit)
    assert differs(path, GREY) == 0


def test_transfer_syntaxes_that_are_not_read(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "a.dcm", GREY)
    assert "has the private transfer syntax 1.3.46.670589.33.1.1" in reason_of(
        with_syntax(path, "1.3.46.670589.33.1.1")
    )
    path = make_dicom(tmp_path / "b.dcm", GREY)
    assert "is a video (MPEG-4" in reason_of(with_syntax(path, pydicom.uid.MPEG4HP41))
    header = pydicom.dcmread(make_dicom(tmp_path / "c.dcm", GREY))
    header.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff" + bytes(99)])
    header.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    header.save_as(tmp_path / "c.dcm")
    reason = reason_of(with_syntax(tmp_path / "c.dcm", pydicom.uid.ExplicitVRLittleEndian))
    assert reason.startswith("holds compressed pixels, which its header calls uncompressed (Explicit VR Little Endian)")


def test_a_missing_decoder_names_the_extra(tmp_path, make_dicom, monkeypatch):
    path = make_dicom(tmp_path / "a.dcm", GREY)
    header = pydicom.dcmread(path)
    header.PixelData = pydicom.encaps.encapsulate([bytes(50)])
    header["PixelData"].is_undefined_length = True
    header.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLSLossless
    header.save_as(path, enforce_file_format=True)
    assert "and cannot be decoded" in reason_of(path)
    monkeypatch.setattr("pydicom.pixels.decoders.base.JPEGLSLosslessDecoder._available", {})
    assert 'which needs decoders that are not installed: pip install "diffmiczoo[dicom]"' in reason_of(path)
    header.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.10008.1.2.4.94")  # JPIP
    header.save_as(path, enforce_file_format=True)
    assert "which is not read; export it uncompressed" in reason_of(path)


def test_a_dicom_directory_is_no_image(tmp_path, make_dicom):
    path = make_dicom(tmp_path / "DICOMDIR", GREY)
    header = pydicom.dcmread(path)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    header.save_as(path, enforce_file_format=True)
    assert "is a DICOMDIR" in reason_of(path)


def test_a_png_called_dcm_is_read(tmp_path):
    from PIL import Image

    Image.fromarray(COLOUR).save(tmp_path / "a.png")
    assert torch.equal(read_picture((tmp_path / "a.png").rename(tmp_path / "a.dcm")), read_picture(COLOUR))


# Files of pydicom that hold pixels and give no picture, and why; all others of them give one.
UNREADABLE = {
    "JPEG-lossy.dcm": "with 12 bits, which the decoders of the extra do not read",
    "JPGExtended.dcm": "with 12 bits, which the decoders of the extra do not read",
    "JPEG2000-embedded-sequence-delimiter.dcm": "cannot be read (DecompressionBombError",
    "MR_truncated.dcm": "is cut short",
    "no_meta.dcm": "has no DICOM header",
}


@pytest.mark.filterwarnings("ignore:.*only the first is used")
def test_pydicoms_own_files():
    for package in ("gdcm", "jpeg_ls", "openjpeg", "pylibjpeg"):
        pytest.importorskip(package)
    folder = Path(pydicom.__file__).parent / "data/test_files"
    read, refused = [], {}
    for path in sorted(folder.glob("*.dcm")):
        try:
            read.append(read_image(as_items(path)[0]))
        except ImageError as error:
            refused[path.name] = error.reason
    assert {name: reason for name, reason in refused.items() if "has no pixel data (its modality is" not in reason} == {
        name: refused[name] for name in UNREADABLE
    }
    assert all(part in refused[name] for name, part in UNREADABLE.items())
    # Later versions of pydicom bring more of them.
    assert len(read) >= 53 and len(refused) == 20
