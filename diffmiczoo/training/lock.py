"""One run per output directory: two that write the same checkpoint would overwrite each other's work."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffmiczoo.errors import InvalidValueError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def exclusive(output: Path, rank: int = 0) -> Iterator[None]:
    """Locks a directory for one run. The system frees the lock when the process ends, even by a kill.

    Where a file system has no locks, other runs are not refused.

    Args:
        output: the directory.
        rank: of this process; each has a lock file of its own, so that all processes of a second run are refused.

    Raises:
        ValueError: another run is going on there.
    """
    if fcntl is None:
        yield
        return
    path = output / f".lock{rank}"
    # Opening for "a" leaves the file as it is for whoever has it.
    with path.open("a") as file:
        try:
            # Record locks are not inherited: worker processes do not hold this one when the run is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise InvalidValueError(
                    f"{output}: another run is going on in this directory; wait for it, stop it, or choose another "
                    "output"
                ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
