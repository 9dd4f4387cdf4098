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
