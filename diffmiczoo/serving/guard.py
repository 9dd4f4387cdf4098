"""What a request has to get past before anything reads it: key, size while it streams, silence; and safe headers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from diffmiczoo.errors import DiffMICError
from diffmiczoo.serving.settings import ServerSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: Answered without a key: whether the server lives, and how it is asked.
_OPEN = ("/health", "/docs", "/openapi.json")

#: How many bodies of the largest size may be in memory at once.
_BODIES = 8

#: A page may load nothing from elsewhere, whatever a library puts into it. Gradio's own code makes functions of texts.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)


class _RefusedError(DiffMICError):
    """A request that is refused while it streams."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Guard:
    """An ASGI application around another one; see `ServerSettings` for its limits."""

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self._app, self._settings = app, settings
        self._held = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._may_ask(scope["path"], headers):
            reason = "this server wants its key: Authorization: Bearer KEY, or X-API-Key: KEY"
            await _refuse(send, 401, reason, [(b"www-authenticate", b'Basic realm="diffmiczoo: the key as password"')])
            return
        try:
            self._check_announced(headers.get(b"content-length", b"0"))
        except _RefusedError as refusal:
            await _refuse(send, refusal.status, refusal.message)
            return
        await self._handed_on(scope, receive, send)

    async def _handed_on(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = _Body(self, self._settings, receive)
        begun = False

        async def sent(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = {name for name, _ in message.get("headers", [])}
                added = [(name, value) for name, value in _HEADERS if name not in own]
                message = {**message, "headers": [*message.get("headers", []), *added]}
            await send(message)

        try:
            await self._app(scope, body.receive, sent)
        except _RefusedError as refusal:
            if not begun:
                await _refuse(send, refusal.status, refusal.message)
        finally:
            self.release(body.read)

    def _may_ask(self, path: str, headers: dict[bytes, bytes]) -> bool:
        key = self._settings.api_key
        if key is None or path in _OPEN:
            return True
        given = headers.get(b"x-api-key") or _password(headers.get(b"authorization", b""))
        # Compared in a time that does not tell how much of a key was right.
        return hmac.compare_digest(given, key.encode())

    def _check_announced(self, length: bytes) -> None:
        if length.isdigit() and int(length) > self._settings.max_bytes:
            raise self.too_large()

    def too_large(self) -> _RefusedError:
        """Returns the refusal of a body that is too large."""
        limit = self._settings.max_bytes
        return _RefusedError(413, f"the request has more than {limit:,} bytes; send fewer or smaller pictures at once")

    def hold(self, count: int) -> None:
        """Counts bytes that are in memory; refuses where they are too many over all requests."""
        self._held += count
        if self._held > _BODIES * self._settings.max_bytes:
            raise _RefusedError(503, "too many pictures are being sent at once; send yours again in a few seconds")

    def release(self, count: int) -> None:
        """Forgets bytes that were counted."""
        self._held -= count


class _Body:
    """The body of a request, counted while it comes."""

    def __init__(self, guard: Guard, settings: ServerSettings, receive: Receive) -> None:
        self._guard, self._settings, self._receive = guard, settings, receive
        self.read, self._more = 0, True

    async def receive(self) -> Message:
        if not self._more:  # what comes now is the end of the connection, at any time
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._settings.patience)
        except asyncio.TimeoutError:
            silent = f"nothing came for {self._settings.patience:g} seconds; send the request again"
            raise _RefusedError(408, silent) from None
        if message["type"] == "http.request":
            count = len(message.get("body", b""))
            self.read += count
            self._guard.hold(count)
            if self.read > self._settings.max_bytes:
                raise self._guard.too_large()
            self._more = message.get("more_body", False)
        return message


def _password(header: bytes) -> bytes:
    """Returns the key of `Authorization`: a bearer's, or the password that browsers and `curl --user :KEY` send."""
    kind, _, given = header.partition(b" ")
    if kind.lower() == b"bearer":
        return given.strip()
    if kind.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


async def _refuse(send: Send, status: int, message: str, headers: Any = ()) -> None:
    body = json.dumps({"error": message}).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    # What the client still sends is not read: the connection ends with the answer.
    own += [(b"connection", b"close"), *headers, *([(b"retry-after", b"5")] if status == 503 else [])]
    await send({"type": "http.response.start", "status": status, "headers": [*own, *_HEADERS]})
    await send({"type": "http.response.body", "body": body})
