"""Batches of training images, by this process or by workers that cannot leave it waiting for ever."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch import Tensor
from torch.utils.data import DataLoader

from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.errors import DiffMICError, warn
from diffmiczoo.training.sampler import BatchSampler

#: Where torch's workers put their batches.
SHARED_MEMORY = Path("/dev/shm")

# Batches that a worker is ahead, and seconds after which it is given up.
_AHEAD, _PATIENCE = 2, 300


class WorkerError(DiffMICError, RuntimeError):
    """A worker process of the training images ended or says nothing any more."""


def training_batches(
    dataset: ImageDataset, sampler: BatchSampler, workers: int, pin: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (images, targets) for each batch of a sampler.

    The images are the same whoever augments them: each has a seed of its own. Workers are forked where that is
    possible, because images in memory then need no copy and the caller's script is not run again.

    Args:
        dataset: of the training images.
        sampler: of the batches.
        workers: processes that augment; 0 for none.
        pin: put batches into memory that a GPU reads directly.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=_AHEAD if workers else None,
        timeout=_PATIENCE if workers else 0,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        worker_init_fn=_outlive_one_signal,
    )
    batches = iter(loader)
    try:
        yield from batches
    except RuntimeError:
        _kill(getattr(batches, "_workers", ()))
        raise


def _kill(workers: Iterable[BaseProcess]) -> None:
    """Ends workers that may be stuck: one that passes over a signal would be waited for at the end of the program."""
    for worker in workers:
        with suppress(RuntimeError):  # torch raises where a worker ends
            worker.kill()
            worker.join()


def _outlive_one_signal(worker: int) -> None:
    """Lets a worker pass over its first SIGTERM: what ends a batch job signals all of its processes at once.

    Without its workers the run could not finish its step. A worker that is asked again ends, and all end with the run.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))


@contextmanager
def worker_errors(workers: int) -> Iterator[None]:
    """Says within the context what to do where a worker ended: torch raises that wherever the process is just then.

    Raises:
        WorkerError: a worker was killed, or gave nothing for minutes.
    """
    try:
        yield
    except RuntimeError as error:
        if not workers or "DataLoader" not in str(error):
            raise
        found = " ".join(str(error).split())
        raise WorkerError(
            f"{found} Go on with fewer workers: num_workers={workers // 2} in the recipe, and the same output"
        ) from error


def possible_workers(wanted: int, batch_size: int, image_size: int) -> int:
    """Returns how many workers there can be here: as many as are wanted, or none.

    Args:
        wanted: number of processes.
        batch_size: images per batch.
        image_size: S, pixels.

    Warns:
        UserWarning: why there are none.
    """
    if not wanted:
        return 0
    if multiprocessing.current_process().daemon:
        warn(f"num_workers={wanted}: a process of a pool may not start others; images are augmented within it")
        return 0
    needed = wanted * (_AHEAD + 1) * batch_size * 3 * image_size**2 * 4
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else needed
    if free < needed:
        warn(
            f"num_workers={wanted}: batches need {needed / 2**20:,.0f} MiB of shared memory, {SHARED_MEMORY} has "
            f"{free / 2**20:,.0f} (docker run --shm-size gives it more); images are augmented without workers"
        )
        return 0
    return wanted
