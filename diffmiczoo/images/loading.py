"""Many items → squares in order, read by several processes where there are many files."""

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

#: From this number of files on, several processes read them.
WORTH_PROCESSES = 256
_MOST_PROCESSES = 8
# Images that each process is ahead; what bounds the memory.
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
    squares = _Squares(items, config)
    if not files or len(items) < WORTH_PROCESSES or not _may_fork():
        yield from (squares[index] for index in range(len(items)))
        return
    yield from DataLoader(
        squares,
        batch_size=None,  # the loader's own collation would copy each batch
        num_workers=min(os.cpu_count() or 1, _MOST_PROCESSES),
        prefetch_factor=_AHEAD,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # the loader draws a number, which must not be the caller's
    )


def _may_fork() -> bool:
    """Whether processes can be started by fork, the only way that asks nothing of the caller's script.

    The other ways ("spawn", "forkserver") run the script again, which goes round in circles unless its main part is
    guarded by `if __name__ == "__main__"`. A fork copies the locks of all threads as they are, so a server's thread
    should not fork: a lock that another thread holds stays closed in the copy for ever. The processes of a
    `multiprocessing.Pool` may not have children, and macOS's own libraries do not survive a fork.
    """
    alone = threading.current_thread() is threading.main_thread()
    return sys.platform == "linux" and alone and not multiprocessing.current_process().daemon


class _Squares(Dataset["Tensor | ImageError"]):
    def __init__(self, items: Sequence[Item], config: DiffMICConfig) -> None:
        self.items, self.config = items, config

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Tensor | ImageError:
        try:
            return read_square(self.items[index], self.config)
        except ImageError as error:
            return error
