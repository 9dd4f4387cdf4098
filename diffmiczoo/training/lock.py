"""One run per output directory: two that write the same checkpoint would lose each other's work."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def only_run_in(output: Path, rank: int = 0) -> Iterator[None]:
    """Keeps other runs out of a directory. The system lets go of it when the process ends, however it does.

    Where a file system has no locks, nobody is kept out.

    Args:
        output: the directory.
        rank: of this process among those of its run; each has a lock of its own, so that all are refused alike.

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
            # Record locks are not inherited: processes that decode images do not keep it when this one is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise ValueError(
                    f"{output}: another run is going on in this directory; wait for it, stop it, or choose another "
                    "output"
                ) from error
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
