"""Pictures decoded and resized in order, by several processes where there are many files."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import ImageError, Item
from diffmiczoo.images.preprocessing import read_square

#: From this number of files on, several processes decode.
WORTH_PROCESSES = 256
_MOST_PROCESSES = 8
# Pictures that each process is ahead; what bounds the memory.
_AHEAD = 16


def read_squares(items: Sequence[Item], config: DiffMICConfig) -> Iterator[Tensor | ImageError]:
    """Yields the square of every item, or what is wrong with it, in order; few are in memory at a time.

    Args:
        items: as `as_items` gives them.
        config: the model's, for image size and crop.

    Yields:
        (3, S, S), uint8 or float32 in [0, 1], or the error.
    """
    files = all(isinstance(item.source, str | os.PathLike) for item in items)
    pictures = _Pictures(items, config)
    if not files or len(items) < WORTH_PROCESSES or not _may_fork():
        yield from (pictures[index] for index in range(len(items)))
        return
    yield from DataLoader(
        pictures,
        batch_size=None,  # the loader's own collation would copy each batch
        num_workers=min(os.cpu_count() or 1, _MOST_PROCESSES),
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # the loader draws a number, which must not be the caller's
    )


def _may_fork() -> bool:
    """Whether processes can be started that need nothing of the caller's script.

    Other ways to start them run the script again, which then needs a guard around its main part; a process of a pool
    may have no children, and a thread of a server should not copy the others' locks.
    """
    alone = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and alone and not multiprocessing.current_process().daemon


class _Pictures(Dataset["Tensor | ImageError"]):
    def __init__(self, items: Sequence[Item], config: DiffMICConfig) -> None:
        self.items, self.config = items, config

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor | ImageError:
        try:
            return read_square(self.items[index], self.config)
        except ImageError as error:
            return error
