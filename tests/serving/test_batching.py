"""Batches of pictures of many requests, and what becomes of them where the process that computes ends."""

import asyncio
import os
import threading
from dataclasses import replace

import pytest

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.serving.answers import PictureAnswer, ServedModel
from diffmiczoo.serving.batching import Batcher, BusyError
from diffmiczoo.serving.settings import ServerSettings, WorkerSettings
from diffmiczoo.serving.worker import Answered, Upload, Worker, WorkerEndedError, WorkerFaultError

SETTINGS = ServerSettings(worker=WorkerSettings(name="tiny", batch_size=4), max_waiting=10, wait=0.01)


class FakeWorker:
    """Answers pictures by their names; ends at a picture "end" and meets a fault at "fault"."""

    def __init__(self, starts: int = 9) -> None:
        self.batches: list[list[str]] = []
        self.alive, self.starts = True, starts
        self._new_pipe()

    def _new_pipe(self) -> None:
        self.sentinel, self._end = os.pipe()

    def start(self) -> None:
        self.starts -= 1
        if self.starts < 0:
            raise InvalidValueError("the weights are gone")
        self.alive = True
        self._new_pipe()

    def end(self) -> None:
        if self.alive:
            self.alive = False
            os.close(self._end)

    def ending(self) -> str:
        return "was ended by signal 9 (SIGKILL)"

    def stop(self) -> None:
        self.end()

    def answer(self, uploads: list[Upload]) -> list[Answered]:
        names = [upload.name for upload in uploads]
        self.batches.append(names)
        assert threading.current_thread() is not threading.main_thread()
        if "end" in names:
            self.end()
            raise WorkerEndedError(f"the process that computes {self.ending()}")
        if "fault" in names:
            raise WorkerFaultError("ZeroDivisionError")
        return [Answered(answer=PictureAnswer(name=name)) for name in names]


def uploads(*names: str) -> list[Upload]:
    return [Upload(name=name, content=b"") for name in names]


def run(
    scenario, worker: FakeWorker | None = None, settings: ServerSettings = SETTINGS
) -> tuple[FakeWorker, list[str]]:
    """Runs a coroutine of a batcher with a fake worker; returns the worker and why the batcher gave up."""
    worker, reasons = worker or FakeWorker(), []

    async def whole() -> None:
        batcher = Batcher(worker, ServedModel(model="tiny", weights_sha256=""), settings, reasons.append)
        batcher.start()
        try:
            await asyncio.wait_for(scenario(batcher), 10)
        finally:
            await batcher.stop()

    asyncio.run(whole())
    return worker, reasons


def test_pictures_of_several_requests_share_batches_and_each_gets_its_own_answer() -> None:
    async def scenario(batcher: Batcher) -> None:
        requests = [batcher.submit(uploads(*names)) for names in ("ab", "c", "defg")]
        found = await asyncio.gather(*requests)
        assert [[each.answer.name for each in part] for part in found] == [["a", "b"], ["c"], ["d", "e", "f", "g"]]

    worker, reasons = run(scenario)
    assert worker.batches == [["a", "b", "c", "d"], ["e", "f", "g"]] and not reasons


def test_too_many_waiting_pictures_are_sent_away() -> None:
    async def scenario(batcher: Batcher) -> None:
        first = asyncio.ensure_future(batcher.submit(uploads(*"abcdefgh")))
        await asyncio.sleep(0)
        with pytest.raises(BusyError, match="8 pictures wait already"):
            await batcher.submit(uploads("i", "j", "k"))
        assert len(await first) == 8

    run(scenario)


def test_requests_that_are_gone_are_not_computed() -> None:
    async def scenario(batcher: Batcher) -> None:
        gone = asyncio.ensure_future(batcher.submit(uploads("gone")))
        await asyncio.sleep(0)
        gone.cancel()
        assert [each.answer.name for each in await batcher.submit(uploads("here"))] == ["here"]

    worker, _ = run(scenario)
    assert worker.batches == [["here"]]


def test_a_worker_that_ends_takes_its_batch_along_and_nothing_else(capsys) -> None:
    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(WorkerEndedError, match="signal 9"):
            await batcher.submit(uploads("end"))
        assert [each.answer.name for each in await batcher.submit(uploads("next"))] == ["next"]
        assert batcher.healthy

    _, reasons = run(scenario)
    assert not reasons and "signal 9 (SIGKILL); a new one is started" in capsys.readouterr().err


def test_an_idle_worker_that_ends_is_started_again_before_anybody_asks() -> None:
    worker = FakeWorker()

    async def scenario(batcher: Batcher) -> None:
        await asyncio.sleep(0.05)
        worker.end()
        while not worker.alive:
            await asyncio.sleep(0.01)

    run(scenario, worker)
    assert worker.starts == 8 and worker.batches == []


def test_a_fault_is_an_error_of_its_batch_only() -> None:
    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(WorkerFaultError):
            await batcher.submit(uploads("fault"))
        assert len(await batcher.submit(uploads("next"))) == 1

    worker, _ = run(scenario)
    assert worker.starts == 9


def test_a_worker_that_ends_again_and_again_ends_the_server() -> None:
    async def scenario(batcher: Batcher) -> None:
        for _ in range(3):
            with pytest.raises(WorkerEndedError):
                await batcher.submit(uploads("end"))
        await asyncio.sleep(0.1)
        assert not batcher.healthy

    _, reasons = run(scenario)
    assert len(reasons) == 1 and "3 times within 60 seconds; the server ends" in reasons[0]


def test_a_worker_that_does_not_start_again_ends_the_server() -> None:
    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(WorkerEndedError):
            await batcher.submit(uploads("end"))
        await asyncio.sleep(0.1)
        assert not batcher.healthy

    _, reasons = run(scenario, FakeWorker(starts=0))
    assert "a new one did not start: the weights are gone; the server ends" in reasons[0]


def test_what_waits_when_the_server_ends_is_told_so() -> None:
    async def scenario(batcher: Batcher) -> None:
        waiting = asyncio.ensure_future(batcher.submit(uploads("a")))
        await asyncio.sleep(0)
        await batcher.stop()
        with pytest.raises(WorkerEndedError, match="the server ends"):
            await waiting

    run(scenario, settings=replace(SETTINGS, wait=1.0))


def test_weights_that_cannot_be_loaded_are_one_sentence(tmp_path) -> None:
    worker = Worker(WorkerSettings(name=f"local-dir:{tmp_path / 'nowhere'}"))
    with pytest.raises(InvalidValueError, match="nowhere") as caught:
        worker.start()
    assert "\n" not in str(caught.value) and not worker.alive
