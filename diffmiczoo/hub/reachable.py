"""Whether the Hub can be reached at all, known in seconds: its client tries for the better part of a minute."""

from __future__ import annotations

import socket
import threading
import urllib.request
from urllib.parse import urlsplit

#: Seconds after which a host that gives no answer counts as out of reach.
PATIENCE = 4.0


def why_unreachable(address: str, patience: float = PATIENCE) -> str | None:
    """Returns why nobody can be reached at an address, a few words; None where somebody can, or a proxy is asked.

    Args:
        address: "https://host[:port]".
        patience: seconds.
    """
    parts = urlsplit(address)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return None
    found: list[str | None] = [f"no answer within {patience:.0f} s"]

    def connect() -> None:
        try:
            port = parts.port or {"http": 80}.get(parts.scheme, 443)
            socket.create_connection((host, port), timeout=patience).close()
            found[0] = None
        except OSError as error:
            found[0] = f"{host}: {error.strerror or error}"

    # The system's own look-up of a name takes no limit; its thread is left behind.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(patience)
    return found[0]
