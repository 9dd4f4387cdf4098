"""Two processes over gloo train as one with the doubled batch does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.sampler import Rank

SCRIPT = """
import sys, json
import torch
import diffmiczoo
from diffmiczoo.training.recipe import Recipe
sys.path.insert(0, {tests!r})
from factories import tiny_model
torch.set_num_threads(1)
recipe = Recipe.from_dict(json.loads({recipe!r}))
result = diffmiczoo.fit(tiny_model(), {data!r}, recipe=recipe, output={output!r}, progress=False)
print(json.dumps([row["train_loss"] for row in result.history]))
"""


def launch(data: Path, output: Path, processes: int, **fields) -> list[str]:
    """Trains with a number of processes and returns what each printed."""
    fields = {"dcg_epochs": 3, "diffusion_epochs": 3, "rotation": 10.0, "dcg_lr": 3e-3, "seed": 3, **fields}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1]), recipe=json.dumps(fields), data=str(data), output=str(output)
    )
    cluster = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**os.environ, **cluster, "RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    outputs = [process.communicate(timeout=240) for process in started]
    assert all(process.returncode == 0 for process in started), outputs
    return [output.strip().splitlines()[-1] for output, _ in outputs]


def losses(text: str) -> torch.Tensor:
    return torch.tensor(json.loads(text))


def metrics_of(output: Path) -> list[str]:
    return (output / "metrics.csv").read_text().splitlines()


def test_with_frozen_statistics_two_processes_equal_one(manifest_csv, tmp_path) -> None:
    """BatchNorm of the encoders is per process; frozen, all that is left is the order of sums."""
    (alone,) = launch(manifest_csv, tmp_path / "one", 1, batch_size=8, freeze="backbones")
    first, second = launch(manifest_csv, tmp_path / "two", 2, batch_size=4, freeze="backbones")
    assert first == second
    torch.testing.assert_close(losses(first)[:3], losses(alone)[:3], rtol=1e-3, atol=1e-4)
    names = {path.name for path in (tmp_path / "two").iterdir()}
    assert {"best", "last", "metrics.csv", "recipe.json", "README.md", "checkpoint.pt"} <= names
    one, two = (metrics_of(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 7
    columns = one[0].split(",")
    for mine, other in zip(one[1:4], two[1:4], strict=True):  # of all validation images, each counted once
        values = [dict(zip(columns, line.split(","), strict=True)) for line in (mine, other)]
        assert abs(float(values[0]["nll"]) - float(values[1]["nll"])) < 1e-3


def test_the_loss_curve_of_two_processes_is_that_of_one(manifest_csv, tmp_path) -> None:
    (alone,) = launch(manifest_csv, tmp_path / "one", 1, batch_size=16, rotation=0.0)
    first, second = launch(manifest_csv, tmp_path / "two", 2, batch_size=8, rotation=0.0)
    assert first == second
    torch.testing.assert_close(losses(first), losses(alone), rtol=0.25, atol=0.05)


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
