"""Requests to the Hub on loopback, and what goes wrong with them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message

from loopback.store import Response

FOR_EVER = math.inf


def flipped(content: bytes) -> bytes:
    """Returns other bytes of the same length."""
    return bytes(byte ^ 0xFF for byte in content)


def shortened(content: bytes) -> bytes:
    """Returns the content without its last ten bytes."""
    return content[:-10]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of one method whose path contains `path`.

    Attributes:
        status, headers: answer this, with an empty body, instead of serving the request.
        delay: seconds before the answer.
        change: applied to the body; hashes and sizes in other answers stay those of the right one.
        cut_after: bytes of the body until the connection closes; 0 closes it before any answer.
        reset: close it with RST, as a crashed peer or a firewall does, instead of FIN.
        without: headers left out.
        ignore_range: answer the whole body to a Range request.
    """

    method: str
    path: str
    times: float = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    change: Callable[[bytes], bytes] = bytes
    cut_after: int | None = None
    reset: bool = False
    without: tuple[str, ...] = ()
    ignore_range: bool = False


NO_FAULT = Fault("", "", times=0)


@dataclass
class Request:
    """One line of the server's log; its status is 0 until it is answered."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Message
    body: bytes
    status: int = 0


def apply_range(response: Response, wanted: str | None) -> None:
    """Cuts the body of a 200 to the bytes that "bytes=first-last" or "bytes=first-" names."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if response.status != 200 or match is None:
        return
    size, first = len(response.body), int(match[1])
    if first >= size:
        response.status, response.body, span = 416, b"", "*"
    else:
        last = min(int(match[2] or size), size - 1)
        response.status, response.body, span = 206, response.body[first : last + 1], f"{first}-{last}"
    response.headers["Content-Range"] = f"bytes {span}/{size}"
