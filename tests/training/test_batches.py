"""Workers of the training images: none where there can be none, and none that is waited for for ever."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections import namedtuple
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from diffmiczoo.errors import DiffMICError
from diffmiczoo.training import batches
from diffmiczoo.training.batches import possible_workers, training_batches, worker_errors

Usage = namedtuple("Usage", "total used free")


class Numbers(Dataset):
    """Item n is (n, n); at one of them its process gets a signal, such as SIGKILL where memory runs out."""

    def __init__(self, dies_at: int | None = None, number: int = signal.SIGKILL) -> None:
        self.dies_at, self.number, self.parent = dies_at, number, os.getpid()

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index == self.dies_at and os.getpid() != self.parent:
            os.kill(os.getpid(), self.number)
        return torch.tensor(index), torch.tensor(index)


PAIRS: Any = [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_order(workers: int) -> None:
    found = [images.tolist() for images, _ in training_batches(Numbers(), PAIRS, workers, pin=False)]
    assert found == PAIRS
    assert not multiprocessing.active_children()


def test_a_worker_that_is_killed_is_an_error_that_says_what_to_do() -> None:
    with (
        pytest.raises(DiffMICError, match=r"exited unexpectedly.*Go on with fewer workers: num_workers=1"),
        worker_errors(2),
    ):
        list(training_batches(Numbers(dies_at=3), PAIRS, 2, pin=False))


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match=r"^something else$"), worker_errors(2):
        raise RuntimeError("something else")


def test_the_end_of_a_batch_job_leaves_workers_until_the_run_has_stopped() -> None:
    """Its SIGTERM is for every process of the job."""
    found = [images.tolist() for images, _ in training_batches(Numbers(3, signal.SIGTERM), PAIRS, 1, pin=False)]
    assert found == PAIRS
    assert not multiprocessing.active_children()


def test_no_workers_within_a_process_of_a_pool(monkeypatch) -> None:
    assert possible_workers(2, 4, 64) == 2
    monkeypatch.setitem(multiprocessing.current_process()._config, "daemon", True)
    with pytest.warns(UserWarning, match="num_workers=2: a process of a pool may not start others"):
        assert possible_workers(2, 4, 64) == 0
    assert possible_workers(0, 4, 64) == 0


def test_no_workers_where_shared_memory_is_too_small(monkeypatch, tmp_path) -> None:
    """Docker gives 64 MiB: two workers with three batches of 32 images of 224 pixels need 110."""
    monkeypatch.setattr(batches, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**26, 0, 2**26))
    with pytest.warns(UserWarning, match="need 110 MiB of shared memory, .* has 64 .*--shm-size"):
        assert possible_workers(2, 32, 224) == 0
    assert possible_workers(2, 8, 224) == 2
