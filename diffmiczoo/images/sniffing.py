"""What a file is by its first bytes: DICOM with and without its preamble, and pictures that lack an extension."""

from __future__ import annotations

import os
import struct

#: As many bytes of a file as the functions below look at.
START = 512

# Datasets without the part 10 header start with one of these groups.
_FIRST_GROUPS = (0x0002, 0x0008, 0x0010, 0x0018, 0x0020, 0x0028)
_VALUE_TYPES = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT".split()
)
_DIRECTORY = b"1.2.840.10008.1.3.10"
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")


def start_of(path: str | os.PathLike[str]) -> bytes:
    """Returns the first bytes of a file, none where it cannot be read or is no file."""
    if not os.path.isfile(path):  # opening a pipe could wait for ever
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(START)
    except OSError:
        return b""


def is_dicom(start: bytes) -> bool:
    """Whether a file starts as DICOM: with a preamble and "DICM", or at once with the elements of a dataset."""
    return start[128:132] == b"DICM" or _starts_with_element(start)


def is_dicom_directory(start: bytes) -> bool:
    """Whether it is a DICOMDIR, the index of a medium, which holds no image."""
    return is_dicom(start) and _DIRECTORY in start


def is_picture(start: bytes) -> bool:
    """Whether it starts as JPEG, PNG, GIF, TIFF, WebP or JPEG 2000."""
    return start.startswith(_PICTURES) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


# First bytes → what a file is that is not read, and what to do.
_KINDS = (
    (b"%PDF", "a PDF document, not an image; export its pages as PNG"),
    (b"%!PS", "a PostScript drawing, not an image; export it as PNG"),
    (b"8BPS", "a Photoshop file, which is not read; save it as PNG"),
    (b"\xff\x0a", "a JPEG XL image, which is not read; save it as PNG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image, which is not read; save it as PNG"),
    (b"version https://git-lfs", "a pointer of Git LFS, not an image; git lfs pull fetches it"),
    (b"PK\3\4", "an archive (ZIP), not an image; unpack it, of numpy.savez hand in an array of numpy.load"),
    (b"\x1f\x8b", "compressed (gzip), not an image; unpack it"),
    (b"\x89HDF", "an HDF5 file, not an image; hand in a picture of it as an array"),
    (b"MATLAB 5", "a MATLAB file, not an image; hand in a picture of it as an array, from scipy.io.loadmat"),
    (b"NRRD0", "a volume (NRRD), not an image; hand in a slice of it as an array in [0, 1]"),
    (b"ObjectType", "a volume (MetaImage), not an image; hand in a slice of it as an array in [0, 1]"),
    (b"\x5c\x01\0\0", "a volume (NIfTI), not an image; hand in a slice of it as an array in [0, 1]"),
    (b"\0\0\x01\x5c", "a volume (NIfTI), not an image; hand in a slice of it as an array in [0, 1]"),
)
_VIDEO_BRANDS = (b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  ", b"M4V ")


def kind_of(start: bytes) -> str | None:
    """Returns what a file is that is no image, and what to do with it; None where it is not known."""
    known = next((kind for first, kind in _KINDS if start.startswith(first)), None)
    if known:
        return known
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "a web page, not an image, as a download that failed leaves it; download the image again"
    if text.startswith((b"<?xml", b"<svg", b"<!doctype svg")) and b"<svg" in text:
        return "an SVG drawing, not an image; export it as PNG"
    video = start[4:8] == b"ftyp" and start[8:12] in _VIDEO_BRANDS
    if video or (start[:4] == b"RIFF" and start[8:12] == b"AVI ") or start.startswith(b"\x1aE\xdf\xa3"):
        return "a video, not an image; hand in a frame of it as an image"
    return None


def _starts_with_element(start: bytes) -> bool:
    """Whether the bytes are an element that may come first, followed by another of the same group or a later one.

    A text cannot pass: the numbers of these groups are control characters.
    """
    for order in "<>":
        if len(start) < 24:
            return False
        group, element, kind, short = struct.unpack_from(f"{order}HH2sH", start)
        if group not in _FIRST_GROUPS or element > 0xFF:
            continue
        (long,) = struct.unpack_from(f"{order}I", start, 4)
        length = short if kind in _VALUE_TYPES else long
        if kind in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
            return True
        if length > START - 12 or len(start) < 12 + length:
            continue
        next_group, next_element = struct.unpack_from(f"{order}HH", start, 8 + length)
        if (group, element) < (next_group, next_element) <= (0x7FE0, 0x10) and next_group % 2 == 0:
            return True
    return False
