"""Keeping freed memory in the process, so that the next batch does not fetch every page from the system again.

Why: glibc gives every block over 32 MB back to the system when it is freed. The next feature map of that size comes as
fresh pages, each of which the kernel has to clear and map at first touch; in batches of a small encoder that took two
thirds of its time. The peak of the memory stays about what it is, since the blocks are used again.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Of <malloc.h> in the GNU C library.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4

# What its thresholds come to by themselves in a process that has freed large blocks; once set they do not adapt.
_MMAP_THRESHOLD, _TRIM_THRESHOLD, _MMAP_MAX = 32 * 2**20, 64 * 2**20, 65_536

_lock = threading.Lock()
_users = 0


@contextmanager
def keep_memory() -> Iterator[None]:
    """Lets the GNU C library's `malloc` keep large blocks that are freed, and gives them back at the end.

    It is a setting of the whole process, also of other libraries in it. Afterwards `malloc` has the thresholds that it
    would have come to by itself, not those of MALLOC_… variables or of a `mallopt` before: they cannot be read. A
    program that sets its own switches this off with DIFFMICZOO_KEEP_MEMORY=0 in its environment. Other C libraries are
    left as they are.
    """
    library = _gnu_library() if os.environ.get("DIFFMICZOO_KEEP_MEMORY", "1") != "0" else None
    if library is None:
        yield
        return
    _change(library, +1)
    try:
        yield
    finally:
        _change(library, -1)


def _gnu_library() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _change(library: ctypes.CDLL, by: int) -> None:
    """Counts the contexts that are entered, of all threads: the setting is the whole process's."""
    global _users
    with _lock:
        before, _users = _users, _users + by
        if before == 0:
            library.mallopt(_M_MMAP_MAX, 0)
            library.mallopt(_M_TRIM_THRESHOLD, -1)
        elif _users == 0:
            library.mallopt(_M_MMAP_MAX, _MMAP_MAX)
            library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
            library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
            library.malloc_trim(0)
