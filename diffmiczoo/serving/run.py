"""From settings to a server that answers, until a signal ends it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable

import uvicorn

from diffmiczoo.errors import DiffMICError, InvalidValueError, warn
from diffmiczoo.serving.app import create_app
from diffmiczoo.serving.settings import ServerSettings
from diffmiczoo.serving.worker import Worker


class ServerEndedError(DiffMICError, RuntimeError):
    """The server ended by itself; the message tells why."""


def serve(settings: ServerSettings, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serves until SIGINT or SIGTERM; requests that came before are answered.

    Args:
        settings: of the server.
        host: name or number of the address to listen at.
        port: to listen at; 0 for any that is free.
        ready: called with the server's address when it answers.

    Raises:
        ValueError: the address cannot be used, or the weights cannot be loaded.
        ServerEndedError: the process that computes could not be kept alive.
    """
    listening = listen(host, port)
    if settings.api_key is None and not _is_loopback(listening):
        warn(f"everybody who reaches {host} may ask this server; --api-key asks for a key")
    worker, reasons = Worker(settings.worker), list[str]()
    try:
        model = worker.start()

        def give_up(reason: str) -> None:
            reasons.append(reason)
            server.should_exit = True

        app = create_app(worker, model, settings, give_up)
        grace = int(settings.grace)
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=grace)
        server = _Server(config, lambda: ready(address(listening)))
        server.run(sockets=[listening])
    finally:
        worker.stop()
        listening.close()
    if reasons:
        raise ServerEndedError(reasons[0])


class _Server(uvicorn.Server):
    """Tells when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen."""
        await super().startup(sockets)
        self._ready()


def listen(host: str, port: int) -> socket.socket:
    """Takes an address, before weights are loaded in vain.

    Raises:
        ValueError: it is in use, or not one of this machine.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InvalidValueError(f"--host {host} is no address that is known ({error.strerror})") from error
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind(where)
        # Without listening, another program could take the port meanwhile; who connects waits until it is answered.
        found.listen(128)
    except OSError as error:
        found.close()
        if error.errno == errno.EADDRINUSE:
            raise InvalidValueError(
                f"port {port} of {host} is in use by another program; take another with --port, or 0 for any"
            ) from error
        raise InvalidValueError(
            f"{host}:{port} cannot be listened at ({error.strerror}); see --host, --port"
        ) from error
    return found


def address(listening: socket.socket) -> str:
    """Returns the URL of what listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(listening: socket.socket) -> bool:
    return ipaddress.ip_address(listening.getsockname()[0]).is_loopback
