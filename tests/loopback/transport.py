"""HTTP of the Hub on loopback: bytes in and out, and connections that break."""

from __future__ import annotations

import os
import socket
import struct
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from loopback.faults import Fault, Request
from loopback.store import Response


class Answering(Protocol):
    """What answers requests."""

    def answer(self, request: Request) -> tuple[Response, Fault]: ...


class Listener(ThreadingHTTPServer):
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Reports what is not merely a client that went away, as one does that times out."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Answering

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing: requests are in the server's log."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.command, url.path, parse_qs(url.query), self.headers, body)
        response, fault = self.hub.answer(request)
        if fault.cut_after is None:
            self._send(response, response.body)
            return
        if fault.cut_after > 0:
            self._send(response, response.body[: fault.cut_after])
        self.close_connection = True
        if fault.reset:
            # Zero linger turns the close into an RST; the descriptor is closed here because the server would send
            # a FIN before.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _send(self, response: Response, body: bytes) -> None:
        self.send_response(response.status)
        for name, value in {**response.headers, "Content-Length": str(len(response.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
