"""Processes that tests start and kill: forks of one that has imported torch and the package once and done nothing else.

A fresh Python needs five seconds until it can do anything. What runs in such a process has to be a function of a
module that it can import: those at the end of this one.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent

_context = multiprocessing.get_context("forkserver")


class ForkedProcess:
    """A function that runs in another process: `send` is its first argument, and what it sends can be received here."""

    def __init__(self, function: Callable[..., None], *arguments: Any, environment: Mapping[str, str] = {}) -> None:
        _start_server()
        self._receiving, sending = _context.Pipe(duplex=False)
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self._process: BaseProcess = _context.Process(target=_run, args=(sending, variables, function, arguments))
        self._process.start()
        sending.close()

    def receive(self, timeout: float = 120) -> Any:
        """Returns the next thing that was sent; EOFError where there is none and the process has ended."""
        assert self._receiving.poll(timeout), "the process says nothing"
        return self._receiving.recv()

    def kill(self) -> None:
        """Kills it as the system does when memory runs out."""
        self._process.kill()

    def wait(self, timeout: float = 120) -> list[Any]:
        """Returns all that was sent and not received when the process has ended.

        A process that raised sends (name of the exception's type, its traceback) as its last word.
        """
        sent = []
        try:
            while True:
                sent.append(self.receive(timeout))
        except EOFError:
            pass
        self._process.join(timeout)
        return sent

    @property
    def exitcode(self) -> int | None:
        """0, 1 after an exception, -9 after a kill."""
        return self._process.exitcode


def outputs(processes: Sequence[ForkedProcess]) -> list[list[Any]]:
    """Waits for processes, all of which have to succeed, and returns what each sent."""
    sent = [process.wait() for process in processes]
    assert [process.exitcode for process in processes] == [0] * len(processes), sent
    return sent


def _start_server() -> None:
    # Its own search path is what the environment says, whatever this process has added since.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    try:
        _context.set_forkserver_preload(["processes", "factories"])
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run(sending: Connection, environment: dict[str, str], function: Callable[..., None], arguments: tuple) -> None:
    import torch

    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        function(sending.send, *arguments)
    except BaseException as error:
        sending.send((type(error).__name__, traceback.format_exc()))
        sys.exit(1)


# ---------------------------------------------------------------------- what runs there


def train(
    send: Callable[[Any], None], data: Path, output: Path, fields: dict[str, Any], dies_at: tuple | None = None
) -> None:
    """Trains the tiny model, sends "step" before each step and at last the losses; kills itself at a step if asked to.

    Args:
        send: called with what the other process is to know.
        data: a manifest.
        output: the run's directory.
        fields: of the recipe.
        dies_at: stage, epoch and batch of the step before which it dies.
    """
    from factories import OnStep, tiny_model

    import diffmiczoo
    from diffmiczoo.training.recipe import Recipe

    def tell(*place: Any) -> None:
        if place == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        send("step")

    result = diffmiczoo.fit(
        tiny_model(),
        data,
        recipe=Recipe.from_dict(fields),
        output=output,
        checkpoint_minutes=0,
        callbacks=[OnStep(tell)],
        progress=False,
    )
    send({"losses": [row["train_loss"] for row in result.history], "weights": weights_sum(result.model)})


def save_in_turns(send: Callable[[Any], None], target: Path, *sources: Path) -> None:
    """Saves several models into one directory, one after the other, for ever."""
    from diffmiczoo.model import DiffMICv2

    models = [DiffMICv2.from_pretrained(source) for source in sources]
    send("ready")
    while True:
        for model in models:
            model.save_pretrained(target)


def load_within(send: Callable[[Any], None], directories: Sequence[Path], limit: int) -> None:
    """Loads each directory, sends the error that this gives, and fails where more than `limit` bytes were taken."""
    from diffmiczoo.hub.serialization import load_model
    from diffmiczoo.model import DiffMICv2

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for directory in directories:
        try:
            load_model(directory, DiffMICv2)
        except ValueError as error:
            send(str(error))
        taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        assert taken < limit, f"{taken:,} bytes for {directory}"


def load_from_hub(send: Callable[[Any], None], environment: dict[str, str], repository: str) -> None:
    """Loads weights from the Hub that the environment names and sends their sum."""
    import diffmiczoo

    with _client_of(environment):
        send(weights_sum(diffmiczoo.create_model(f"hf-hub:{repository}", pretrained=True)))


def predict_from_hub(
    send: Callable[[Any], None], environment: dict[str, str], repository: str, picture: Path, pushed: Path | None
) -> None:
    """Pushes a directory to the Hub, or pulls what is there where `pushed` is None, and sends scores as bytes."""
    import diffmiczoo
    from diffmiczoo.model import DiffMICv2

    with _client_of(environment):
        if pushed is None:
            model = diffmiczoo.create_model(f"hf-hub:{repository}", pretrained=True)
        else:
            model = DiffMICv2.from_pretrained(pushed)
            model.push_to_hub(repository, pushed)
    send(model.predict(picture).scores.numpy().tobytes())


def command_line(send: Callable[[Any], None], *arguments: str) -> None:
    """Runs `diffmiczoo` with arguments."""
    from diffmiczoo.cli import main

    main(list(arguments))


@contextmanager
def _client_of(environment: dict[str, str]) -> Iterator[None]:
    import pytest
    from loopback.fixtures import reload_client_constants, use_client_environment

    with pytest.MonkeyPatch.context() as monkeypatch:
        use_client_environment(monkeypatch, environment)
        reload_client_constants(monkeypatch)
        yield


def weights_sum(model: Any) -> float:
    """Returns a number that another bit in any floating-point weight changes."""
    tensors = [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]
    return sum(float(place * tensor.double().abs().sum()) for place, tensor in enumerate(tensors, start=1))


def agent(
    send: Callable[[Any], None], node: int, port: int, data: Path, output: Path, fields: dict[str, Any], victim: str
) -> None:
    """Is one of two machines that train together as `torchrun` starts them, with two processes each.

    Args:
        send: called with "done".
        node: 0 or 1; the first also hosts the rendezvous.
        port: of the rendezvous on loopback.
        data: a manifest.
        output: the run's directory.
        fields: of the recipe.
        victim: rank of the process that is killed once, in the diffusion; "" for none.
    """
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # As torchrun's --nnodes 2 --nproc-per-node 2 --max-restarts 3. Forked, since this process has imported torch.
    config = LaunchConfig(
        min_nodes=2,
        max_nodes=2,
        nproc_per_node=2,
        run_id="two-agents",
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{port}",
        rdzv_configs={"is_host": node == 0},
        local_addr="127.0.0.1",
        max_restarts=3,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, _train_on_a_node)(data, output, fields, victim)
    send("done")


def _train_on_a_node(data: Path, output: Path, fields: dict[str, Any], victim: str) -> None:
    killed = output.parent / "killed"
    dies = os.environ["RANK"] == victim and not killed.exists()

    def ignore(_: Any) -> None:
        if dies and (output / "checkpoint.pt").exists():
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    train(ignore, data, output, fields)


def normalise_together(send: Callable[[Any], None], port: int, rank: int, ranks: int) -> None:
    """Runs BatchNorm layers over a process's share of eight rows, and sends outputs, gradients and statistics."""
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    send(normalised(rank, ranks))
    dist.destroy_process_group()


def normalised(rank: int, ranks: int) -> list[Any]:
    """Returns what each layer makes of rows rank / ranks … (rank + 1) / ranks of the same eight."""
    import torch
    from timm.layers import BatchNormAct2d
    from torch import nn

    from diffmiczoo.training.synced_norm import synced_norms

    found = []
    for build, shape in ((nn.BatchNorm1d, (8, 3)), (nn.BatchNorm2d, (8, 3, 4, 5)), (BatchNormAct2d, (8, 3, 4, 5))):
        generator = torch.Generator().manual_seed(0)
        layer = build(3)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, generator=generator)
        whole = torch.randn(shape, generator=generator) + 10
        weights = torch.randn(shape, generator=generator)
        part = slice(8 * rank // ranks, 8 * (rank + 1) // ranks)
        mine = whole[part].requires_grad_()
        with synced_norms(layer, ranks > 1):
            result = layer(mine)
            # The mean over processes of means over their rows is the mean over all rows.
            (result * weights[part]).flatten(1).sum(1).mean().backward()
        assert type(layer) is build
        gradients = [parameter.grad for parameter in layer.parameters()]
        tensors = [result.detach(), mine.grad / ranks, *gradients, layer.running_mean, layer.running_var]
        found.append([tensor.numpy() for tensor in tensors])
    return found


def compare_with_others(send: Callable[[Any], None], port: int, rank: int, ranks: int) -> None:
    """Compares with the other processes what is the same in all, and then what is not."""
    import torch
    import torch.distributed as dist

    from diffmiczoo.training.distributed import Processes

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    processes = Processes(torch.device("cpu"))
    processes.check_same("data", "0123", "share")
    send("the same")
    try:
        processes.check_same("checkpoints", ("none", "one")[rank], "share")
    except ValueError as error:
        send(str(error))
    dist.destroy_process_group()
