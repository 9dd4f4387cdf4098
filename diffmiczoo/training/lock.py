"""One run per output directory: two that write the same checkpoint would lose each other's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_run_in(output: Path) -> Iterator[None]:
    """Keeps other processes from running in a directory; the system lets go of it where this one is killed.

    Raises:
        ValueError: another run is going on there.
    """
    lock = FileLock(output / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(
            f"{output}: another run is going on in this directory; wait for it, stop it, or choose another output"
        ) from error
    except NotImplementedError:
        # Some network file systems have no locks.
        yield
        return
    try:
        yield
    finally:
        lock.release()
