"""Two processes over gloo train as one with the doubled batch does."""

from __future__ import annotations

import csv
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from processes import ForkedProcess, agent, compare_with_others, normalise_together, normalised, outputs, train
from safetensors.torch import load_file
from torch import nn

from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.sampler import Rank
from diffmiczoo.training.synced_norm import synced_norms


def start(data: Path, output: Path, ranks: int, **fields) -> list[ForkedProcess]:
    """Trains with a number of processes."""
    fields = {"dcg_epochs": 3, "diffusion_epochs": 3, "rotation": 10.0, "dcg_lr": 3e-3, "seed": 3, **fields}
    group = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return [
        ForkedProcess(train, data, output, fields, environment={**group, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(ranks)
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def results(processes: list[ForkedProcess]) -> list[dict[str, Any]]:
    return [sent[-1] for sent in outputs(processes)]


def validation_losses(output: Path) -> list[float]:
    return [float(row["nll"]) for row in csv.DictReader((output / "metrics.csv").open())]


def test_two_processes_with_statistics_of_their_own_learn_one_model(manifest_csv, tmp_path) -> None:
    """BatchNorm sees other batches in each, but what a rank says of the losses and keeps as weights is the same."""
    first, second = results(start(manifest_csv, tmp_path / "two", 2, batch_size=8, rotation=0.0))
    assert first == second
    assert first["losses"][2] < 0.9 * first["losses"][0], "the first stage has not learned"


def test_two_machines_equal_one_process_also_after_a_kill(manifest_csv, tmp_path) -> None:
    """Two agents of torchrun with two processes each; one of the four is killed, and all go on from the checkpoint."""
    # Where a gradient is nothing but rounding errors, as of a bias before a BatchNorm, Adam makes whole steps from it.
    rates = {"dcg_lr": 3e-6, "diffusion_lr": 3e-6}
    fields = {"dcg_epochs": 1, "diffusion_epochs": 1, "rotation": 10.0, "seed": 3, **rates}
    together = {**fields, "batch_size": 2, "sync_batchnorm": True}
    port, (alone,) = free_port(), start(manifest_csv, tmp_path / "one", 1, batch_size=8, **fields)
    # By default the agents share one store, whose keys of before the kill are waited for after it.
    environment = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    agents = [
        ForkedProcess(agent, node, port, manifest_csv, tmp_path / "four", together, "3", environment=environment)
        for node in range(2)
    ]
    assert outputs(agents) == [["done"], ["done"]]
    assert outputs([alone]) and (tmp_path / "killed").exists()
    one, four = (load_file(tmp_path / name / "last" / "model.safetensors") for name in ("one", "four"))
    assert one.keys() == four.keys()
    assert max(float((one[key] - four[key]).abs().max()) for key in one if one[key].is_floating_point()) < 1e-5
    names = {path.name for path in (tmp_path / "four").iterdir()}
    assert {"best", "last", "metrics.csv", "recipe.json", "README.md", "checkpoint.pt"} <= names
    # Of all validation images, each counted once.
    losses = [validation_losses(tmp_path / name) for name in ("one", "four")]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5) and len(losses[0]) == 2


def test_statistics_of_all_batches_are_those_of_one_batch() -> None:
    """Outputs, gradients and running statistics, of torch's layers and of timm's."""
    port = free_port()
    ranks = [ForkedProcess(normalise_together, port, rank, 2) for rank in range(2)]
    parts = [sent[-1] for sent in outputs(ranks)]
    for whole, first, second in zip(normalised(0, 1), *parts, strict=True):
        rows, inputs, scale, shift, mean, variance = whole
        both = list(zip(first, second, strict=True))
        np.testing.assert_allclose(np.concatenate(both[0]), rows, atol=2e-5)
        np.testing.assert_allclose(np.concatenate(both[1]), inputs, atol=2e-5)
        for each, expected in zip(both[2:4], (scale, shift), strict=True):
            np.testing.assert_allclose(sum(each) / 2, expected, rtol=1e-4, atol=1e-5)
        for each, expected in zip(both[4:], (mean, variance), strict=True):
            np.testing.assert_array_equal(*each)
            np.testing.assert_allclose(each[0], expected, rtol=1e-5)


def test_processes_that_see_other_files_are_refused() -> None:
    """As on two machines without a common file system, one of which finds a checkpoint."""
    port = free_port()
    found = "checkpoints differ between processes: process 0 has none, process 1 has one; share"
    for sent in outputs([ForkedProcess(compare_with_others, port, rank, 2) for rank in range(2)]):
        assert sent == ["the same", found]


def test_a_layer_that_cannot_be_synced_is_named() -> None:
    layers = nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm3d(2))
    expected = "sync_batchnorm=True does not know layers of the type BatchNorm3d"
    with pytest.raises(ValueError, match=expected), synced_norms(layers, True):
        pytest.fail("it went on")


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
