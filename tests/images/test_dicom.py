"""DICOM files: windows, lookup tables, palettes, padding, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import read_picture, reason_of


@pytest.fixture
def hounsfield() -> np.ndarray:
    return np.linspace(-1000, 1000, 64).astype(np.int16).reshape(8, 8)


def test_dicom_without_window_is_stretched_without_its_padding(tmp_path, hounsfield, make_dicom):
    plain = read_picture(make_dicom(tmp_path / "a.dcm", hounsfield))
    assert (plain[0, 0, 0], plain[0, 7, 7]) == (0, 255)
    padded = hounsfield.copy()
    padded[0] = -2000
    signed = read_picture(make_dicom(tmp_path / "b.dcm", padded, PixelPaddingValue=-2000))
    assert signed[0, 0].max() == 0 and signed[0, 1, 0] == 0 and signed[0, 7, 7] == 255
    inverted = read_picture(
        make_dicom(tmp_path / "c.dcm", padded, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1")
    )
    assert inverted[0, 0].max() == 0 and inverted[0, 1, 0] == 255 and inverted[0, 7, 7] == 0
    everywhere = np.full((4, 4), -2000, np.int16)
    assert read_picture(make_dicom(tmp_path / "d.dcm", everywhere, PixelPaddingValue=-2000)).max() == 0


def test_dicom_window_after_rescale(tmp_path, hounsfield, make_dicom):
    window = {"WindowCenter": ["40", "300"], "WindowWidth": ["400", "9"], "RescaleSlope": "2", "RescaleIntercept": "0"}
    shown = read_picture(make_dicom(tmp_path / "a.dcm", (hounsfield // 2).astype(np.int16), **window))[0].numpy()
    expected = np.clip((hounsfield // 2 * 2 - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(shown - expected).max() <= 1
    window |= {"PhotometricInterpretation": "MONOCHROME1"}
    negative = read_picture(make_dicom(tmp_path / "b.dcm", (hounsfield // 2).astype(np.int16), **window))[0].numpy()
    assert (negative == 255 - shown).all()


@pytest.mark.parametrize("bits", [8, 12])
def test_dicom_lookup_table(tmp_path, bits, make_dicom):
    from pydicom import Dataset, Sequence

    stored = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
    table = Dataset()
    table.add_new(0x00283002, "US", [4096, 0, bits])
    table.add_new(0x00283006, "US", [(4095 - i) >> (12 - bits) for i in range(4096)])
    shown = read_picture(make_dicom(tmp_path / "a.dcm", stored, VOILUTSequence=Sequence([table])))[0].numpy()
    assert np.abs(shown - (4095 - stored) / 4095 * 255).max() <= 1.5


def test_dicom_palette_and_colours(tmp_path, picture, make_dicom):
    ramp = bytes(range(256))
    palette = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, table in {"Red": ramp, "Green": ramp[::-1], "Blue": bytes(256)}.items():
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = table
    index = picture[..., 0]
    shown = read_picture(make_dicom(tmp_path / "a.dcm", index, **palette))
    assert torch.equal(shown, read_picture(np.dstack([index, 255 - index, 0 * index])))
    assert torch.equal(read_picture(make_dicom(tmp_path / "b.dcm", picture)), read_picture(picture))
    assert torch.equal(read_picture(make_dicom(tmp_path / "c.dcm", index)), read_picture(index))
    assert torch.equal(read_picture(make_dicom(tmp_path / "d", index, deflated=True)), read_picture(index))


def test_dicom_first_of_several_frames(tmp_path, make_dicom):
    frames = np.stack([np.full((8, 8), 10, np.uint8), np.full((8, 8), 90, np.uint8)])
    path = make_dicom(tmp_path / "a.dcm", frames[0], NumberOfFrames="2", PixelData=frames.tobytes())
    with pytest.warns(UserWarning, match=r"a\.dcm: has 2 frames"):
        assert read_picture(path).unique().tolist() == [10]


def test_dicom_that_is_refused(tmp_path, picture, make_dicom):
    (tmp_path / "b.dcm").write_text("exported on Monday")
    assert "no DICOM header" in reason_of(tmp_path / "b.dcm")
    hsv = make_dicom(tmp_path / "c.dcm", picture, PhotometricInterpretation="HSV")
    assert "photometric interpretation 'HSV'" in reason_of(hsv)
