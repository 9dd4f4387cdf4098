"""The bytes of a table of text as signs: UTF-8 with or without a mark, UTF-16 of spreadsheets; what is none is said."""

from __future__ import annotations

import codecs
from pathlib import Path

from diffmiczoo.errors import InvalidValueError

#: How files begin that carry the name of a table and are something else → what to do with them.
_OTHER_KINDS = {
    b"PK\x03\x04": "is a spreadsheet or an archive, not text; save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet of an old kind, not text; save it as CSV UTF-8",
    b"\x1f\x8b": "is compressed; unpack it first",
    b"PAR1": "is a Parquet table; let its name end in .parquet",
}


def table_text(path: Path) -> str:
    """Returns the text of a table; bytes that are not UTF-8 are kept as Python keeps those of file names.

    Raises:
        ValueError: it is no text, or holds NUL bytes.
    """
    content = path.read_bytes()
    for start, advice in _OTHER_KINDS.items():
        if content.startswith(start):
            raise InvalidValueError(f"{path}: {advice}")
    text = _decoded(path, content).lstrip("\ufeff")
    if "\0" in text:
        line = 1 + text.count("\n", 0, text.index("\0"))
        raise InvalidValueError(
            f"{path}, line {line}: holds a NUL byte; the file is damaged, save it again as CSV UTF-8"
        )
    return text


def _decoded(path: Path, content: bytes) -> str:
    encoding = _utf16(content)
    if encoding is None:
        return content.decode("utf-8", "surrogateescape")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidValueError(f"{path}: is not whole UTF-16 ({error.reason}); save it as CSV UTF-8") from error


def _utf16(content: bytes) -> str | None:
    """Returns the kind of UTF-16, told by its mark or by the zeros in every second byte; None where it is none."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    start = content[:1000]
    zeros = [start[place::2].count(0) for place in (0, 1)]
    if max(zeros) < 0.4 * len(start) / 2 or min(zeros) > 0:
        return None
    return "utf-16-le" if zeros[1] else "utf-16-be"


def is_undecoded(text: str) -> bool:
    """Whether a text holds bytes that were not UTF-8."""
    return any("\udc80" <= sign <= "\udcff" for sign in text)
