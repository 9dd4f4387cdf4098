"""URLs → pictures that are fetched when they are read: http(s) and data URLs by Python itself, others by fsspec."""

from __future__ import annotations

import base64
import importlib
import os
import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from diffmiczoo.errors import DiffMICError, InvalidValueError, MissingExtraError
from diffmiczoo.images.listing import IMAGE_EXTENSIONS, natural_key

#: The largest file that is fetched, in bytes.
MOST_BYTES = 500_000_000

#: How long a server may be silent, in seconds.
PATIENCE = 30

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")


@dataclass(frozen=True, eq=False)
class Content:
    """The bytes of a picture that are not read yet.

    Attributes:
        name: what errors and predictions call it; empty for its place in the list.
        read: returns the bytes; may raise anything.
        advice: the end of the message where it does.
    """

    name: str
    read: Callable[[], bytes]
    advice: str = "check that it can be read"


def is_url(text: str) -> bool:
    """Whether a text is a URL, not a path: "https://…", "s3://…", "zip://…::file.zip", "data:image/png;base64,…"."""
    return text[:5].lower() == "data:" or _URL.match(text) is not None


def contents_of_url(url: str) -> list[Content]:
    """Returns the picture of a URL, or the pictures of a folder ("s3://bucket/scans/") or pattern ("s3://bucket/*.png").

    Folders and patterns are listed at once, files are fetched when they are read.

    Raises:
        ValueError: the URL is broken, its folder cannot be listed, or nothing matches the pattern.
        ImportError: fsspec, or what it needs for this kind of URL, is not installed.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "data":
        return [Content("", partial(_data, url), "expected data:image/png;base64,… with the whole picture")]
    if scheme in ("http", "https"):
        return [Content(url, partial(_fetched, url), "check the address and the network, or download it first")]
    advice = "check the address and your access to it; the address of a folder ends with /"
    if not re.search(r"[*?\[]", url) and not url.partition("::")[0].endswith("/"):
        return [Content(url, partial(_read_by_fsspec, url), advice)]
    return [Content(found, partial(_read_by_fsspec, found), advice) for found in _listed(url)]


def _data(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise InvalidValueError("a data URL has a comma before its content")
    raw = unquote_to_bytes(body)
    return base64.b64decode(raw, validate=True) if head.lower().endswith(";base64") else raw


def _fetched(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "diffmiczoo", "Accept": "image/*, */*"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        found = response.headers.get_content_type()
        content: bytes = response.read(MOST_BYTES + 1)
    if found == "text/html":
        raise InvalidValueError("the address gives a web page, not a picture")
    return _within_limit(content)


def _within_limit(content: bytes) -> bytes:
    if len(content) > MOST_BYTES:
        raise InvalidValueError(f"the file has more than {MOST_BYTES:,} bytes")
    return content


def _read_by_fsspec(url: str) -> bytes:
    with _fsspec(url).open(url, "rb") as file:
        return _within_limit(file.read(MOST_BYTES + 1))


def _fsspec(url: str) -> Any:
    scheme = url.partition(":")[0]
    try:
        fsspec = importlib.import_module("fsspec")
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise MissingExtraError(f'{scheme}:// needs more: pip install "diffmiczoo[urls]" ({error})') from error
    except ValueError as error:
        raise InvalidValueError(f"{url}: fsspec knows no {scheme}://; expected a path or another URL") from error
    return fsspec


def _listed(url: str) -> list[str]:
    fsspec = _fsspec(url)
    first, chain, rest = url.partition("::")
    try:
        system, path = fsspec.core.url_to_fs(url)
        matched = system.find(path) if first.endswith("/") else system.glob(path)
    except DiffMICError:
        raise
    except Exception as error:
        raise InvalidValueError(f"{url}: cannot be listed ({type(error).__name__}: {error})") from error
    if first.endswith("/"):
        matched = [entry for entry in matched if f".{entry.rpartition('.')[2].lower()}" in IMAGE_EXTENSIONS]
    if not matched:
        raise InvalidValueError(f"{url}: {'holds no image' if first.endswith('/') else 'no file matches this pattern'}")
    names = sorted(matched, key=lambda name: natural_key(Path(name)))
    if chain:
        return [f"{urlsplit(first).scheme}://{name.removeprefix('/')}{chain}{rest}" for name in names]
    return [os.fspath(system.unstrip_protocol(name)) for name in names]
