"""Many items → squares in order, read by several threads where there are several files."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import warn
from diffmiczoo.images.folder_items import FolderItems
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.preprocessing import Square, read_sized_square, read_square
from diffmiczoo.images.remote import Content

Read = TypeVar("Read")

#: From this number of files on, several threads read them; 32 small ones took .38 s one by one and .51 s in threads.
WORTH_THREADS = 256
_MOST_THREADS = 8
_IMPORTED_IN = os.getpid()
# Images that each thread is ahead; what bounds the memory.
_AHEAD = 16


def read_squares(items: Collection[Item], config: DiffMICConfig) -> Iterator[Tensor | ImageError]:
    """Yields the square of every item, (3, S, S), uint8 or float32 in [0, 1], or what is wrong with it, in order.

    Args:
        items: as `as_items` gives them.
        config: the model's, for image size and crop.
    """
    yield from _read(items, partial(read_square, config=config))


def read_sized_squares(items: Collection[Item], config: DiffMICConfig) -> Iterator[Square | ImageError]:
    """Does what `read_squares` does and keeps how large each image was."""
    yield from _read(items, partial(read_sized_square, config=config))


def _read(items: Collection[Item], read: Callable[[Item], Read]) -> Iterator[Read | ImageError]:
    """Yields what is read of every item, or what is wrong with it, in order; few are in memory at a time.

    Threads, not processes: decoders give up Python's lock while they work, so little is lost, and a thread needs no
    shared memory or file descriptors for what it hands over, ends with its process, dies with it and never alone, asks
    nothing of the caller's script or of the kind of process it runs in, and inherits no locks that nobody opens again.
    """
    _survive_fork()
    files = isinstance(items, FolderItems) or all(
        isinstance(item.source, str | os.PathLike | Content) for item in items
    )
    with _threads(len(items) if files else 0) as pool:
        if pool is None:
            yield from (_tried(read, item) for item in items)
            return
        rest, begun = iter(items), deque[Future[Read | ImageError]]()
        for item in islice(rest, _AHEAD * _processors()):
            begun.append(pool.submit(_tried, read, item))
        while begun:
            yield begun.popleft().result()
            begun.extend(pool.submit(_tried, read, item) for item in islice(rest, 1))


def _survive_fork() -> None:
    """Computes with one thread in a process that was forked, as by `gunicorn --preload`.

    Such a process has none of the threads that torch computed with before, and would wait for them for ever.
    """
    if os.getpid() != _IMPORTED_IN and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        warn("this process was forked after torch was loaded, so torch computes with one thread; spawn it for more")


def _tried(read: Callable[[Item], Read], item: Item) -> Read | ImageError:
    try:
        return read(item)
    except ImageError as error:
        return error


def _processors() -> int:
    """Returns how many threads decode at once: as many as this process may use processors, up to a limit."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, _MOST_THREADS)


@contextmanager
def _threads(files: int) -> Iterator[ThreadPoolExecutor | None]:
    """Starts threads for so many files; gives None where they are too few or the system has no more threads."""
    if files < WORTH_THREADS:
        yield None
        return
    Image.init()  # loads Pillow's plug-ins, once
    pool = ThreadPoolExecutor(_processors(), "diffmiczoo-decode")
    try:
        yield pool if _started(pool, _processors()) else None
    finally:
        pool.shutdown(cancel_futures=True)


def _started(pool: ThreadPoolExecutor, count: int) -> bool:
    """Starts the threads of a pool, each with one thread of torch's own.

    Torch would give each of them a team as large as the main thread's, and all would wait for the same processors. It
    keeps the number per thread, but what was set last is also that of threads to come: hence it is set again here.
    """
    own, met = torch.get_num_threads(), threading.Barrier(count + 1)

    def prepare() -> None:
        torch.set_num_threads(1)
        met.wait()  # keeps the thread busy, so that each of these gets one of its own

    try:
        for _ in range(count):
            pool.submit(prepare)
        met.wait()
    except RuntimeError:  # no more threads here, or Python is about to end
        return False
    finally:
        met.abort()
        torch.set_num_threads(own)
    return True
