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
