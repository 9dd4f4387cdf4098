"""Two processes over gloo train as one with the doubled batch does."""

from __future__ import annotations

import csv
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from processes import ForkedProcess, outputs, train
from torch import nn

from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.sampler import Rank


def start(data: Path, output: Path, ranks: int, **fields) -> list[ForkedProcess]:
    """Trains with a number of processes."""
    fields = {"dcg_epochs": 3, "diffusion_epochs": 3, "rotation": 10.0, "dcg_lr": 3e-3, "seed": 3, **fields}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks), "GLOO_SOCKET_IFNAME": "lo"}
    return [
        ForkedProcess(train, data, output, fields, environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]


def results(processes: list[ForkedProcess]) -> list[dict[str, Any]]:
    return [sent[-1] for sent in outputs(processes)]


def validation_losses(output: Path) -> list[float]:
    return [float(row["nll"]) for row in csv.DictReader((output / "metrics.csv").open())]


def test_with_frozen_statistics_two_processes_equal_one(manifest_csv, tmp_path) -> None:
    """BatchNorm of the encoders is per process; frozen, all that is left is the order of sums."""
    (alone,) = results(start(manifest_csv, tmp_path / "one", 1, batch_size=8, freeze="backbones"))
    first, second = results(start(manifest_csv, tmp_path / "two", 2, batch_size=4, freeze="backbones"))
    assert first == second
    assert first["losses"][:3] == pytest.approx(alone["losses"][:3], rel=1e-3, abs=1e-4)
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert {"best", "last", "metrics.csv", "recipe.json", "README.md", "checkpoint.pt"} <= names
    one, two = (validation_losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 6
    assert one[:3] == pytest.approx(two[:3], abs=1e-3)  # of all validation images, each counted once


def test_two_processes_with_statistics_of_their_own_learn_one_model(manifest_csv, tmp_path) -> None:
    """BatchNorm sees other batches in each, but what a rank says of the losses and keeps as weights is the same."""
    first, second = results(start(manifest_csv, tmp_path / "two", 2, batch_size=8, rotation=0.0))
    assert first == second
    assert first["losses"][2] < 0.9 * first["losses"][0], "the first stage has not learned"


@pytest.mark.parametrize(("count", "processes"), [(10, 3), (2, 4), (7, 1)])
def test_validation_rows_are_counted_once(count: int, processes: int) -> None:
    rows = []
    for rank in range(processes):
        part = Processes(torch.device("cpu"))
        part.rank = Rank(rank, processes)
        rows += list(part.shard(count))
    assert rows == list(range(count))


def test_one_process_joins_no_group() -> None:
    processes = Processes(torch.device("cpu"))
    assert not dist.is_initialized() and not processes.distributed and processes.is_main
    module, values = nn.Linear(2, 2), torch.tensor([1.0, 2.0])
    assert processes.prepare(module) is module
    assert processes.mean(values) is values and processes.gather(values) is values
    processes.barrier()


def test_a_process_group_of_the_caller_is_used_and_stays(tmp_path) -> None:
    """As in a program that has joined one already, or has an Accelerator of its own."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        processes = Processes(torch.device("cpu"))
        assert processes.rank == Rank(0, 1) and processes.is_main and not processes.distributed
        processes.barrier()
        assert dist.is_initialized()
    finally:
        dist.destroy_process_group()
