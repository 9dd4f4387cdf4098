"""A picture's path, URL or bytes → its content, read once, the sha256 of it, and the square that the model takes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.preprocessing import Square, read_sized_square
from diffmiczoo.images.reading import read_content
from diffmiczoo.images.remote import contents_of_url, is_url


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is to be predicted.

    Attributes:
        id: what answers call it; need not be unique.
        source: a path or URL, or the content of a file.
    """

    id: str
    source: str | bytes


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """What became of a picture.

    Attributes:
        id: the picture's.
        sha256: of its content in hexadecimal; empty where there is none.
        item: the content that was read, for whoever draws it; None where there is none.
        square: what the model takes; None where the content is no picture.
        error: what is wrong with it, one sentence; empty where nothing is.
    """

    id: str
    sha256: str
    item: Item | None
    square: Square | None
    error: str


def read_picture(picture: Picture, config: DiffMICConfig) -> ReadPicture:
    """Reads a picture; what is wrong with it is in `error`, and is never raised.

    The square is decoded from the same bytes as the sha256 is of, so that a file which changes meanwhile cannot be
    given the answer of another one.

    Args:
        picture: where it is.
        config: the model's, for image size and crop.
    """
    content = b""
    try:
        content = _content(picture)
        item = Item(picture.id, content)
        return ReadPicture(picture.id, _sha256(content), item, read_sized_square(item, config), "")
    except ImageError as error:
        return ReadPicture(picture.id, _sha256(content), None, None, error.reason)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if content else ""


def _content(picture: Picture) -> bytes:
    source: Any = picture.source
    if not isinstance(source, bytes) and is_url(source) and not os.path.exists(source):
        try:
            found = contents_of_url(source)
        except (ValueError, ImportError) as error:
            raise ImageError(picture.id, str(error)) from error
        if len(found) != 1:
            raise ImageError(picture.id, f"stands for {len(found)} pictures; expected the address of one")
        source = found[0]
    return read_content(Item(picture.id, source))
