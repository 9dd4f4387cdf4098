"""Pictures of all requests → batches for the process that computes, which is started again where it ends."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from diffmiczoo.errors import DiffMICError
from diffmiczoo.serving.answers import ServedModel
from diffmiczoo.serving.settings import ServerSettings
from diffmiczoo.serving.worker import Answered, Upload, Worker, WorkerEndedError

#: After so many ends within so many seconds the server gives up: it would start for ever.
_MOST_ENDS, _WITHIN = 3, 60.0


class BusyError(DiffMICError, RuntimeError):
    """As many pictures wait as may wait."""


class Batcher:
    """Collects the pictures of all requests, hands them to the worker in batches, and gives each its answer.

    While the worker computes, the pictures that come wait, and are the next batch: under load no time is lost. Only the
    first picture of an idle server waits `ServerSettings.wait` for others. One batch is at work at a time.

    Args:
        worker: that was started.
        model: what it said of its weights.
        settings: of the server.
        give_up: called with the reason where the worker cannot be kept alive.
    """

    def __init__(
        self, worker: Worker, model: ServedModel, settings: ServerSettings, give_up: Callable[[str], None]
    ) -> None:
        self.model = model
        self._worker, self._settings, self._give_up = worker, settings, give_up
        self._waiting: deque[tuple[Upload, asyncio.Future[Answered]]] = deque()
        self._some = asyncio.Event()
        self._ends: deque[float] = deque(maxlen=_MOST_ENDS)
        # The pipe is read in a thread of its own, for the server to go on.
        self._thread = ThreadPoolExecutor(1, "diffmiczoo-worker")
        self._task: asyncio.Task[None] | None = None
        self._ready = True

    @property
    def healthy(self) -> bool:
        """Whether pictures are answered at the moment."""
        return self._ready and self._worker.alive and self._task is not None and not self._task.done()

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    def start(self) -> None:
        """Begins to answer; within the server's loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Ends the worker; pictures that wait are told so."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for _, future in self._waiting:
            _fail(future, WorkerEndedError("the server ends"))
        await asyncio.get_running_loop().run_in_executor(None, self._worker.stop)
        self._thread.shutdown(wait=False)

    async def submit(self, uploads: list[Upload]) -> list[Answered]:
        """Answers the pictures of a request, in their order.

        Raises:
            BusyError: too many wait.
            WorkerEndedError: the worker ended with one of them in work.
            WorkerFaultError: a fault of the program.
        """
        if len(self._waiting) + len(uploads) > self._settings.max_waiting:
            raise BusyError(f"{len(self._waiting)} pictures wait already; send yours again in a few seconds")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Answered]] = [loop.create_future() for _ in uploads]
        self._waiting.extend(zip(uploads, futures, strict=True))
        self._some.set()
        found = await asyncio.gather(*futures, return_exceptions=True)
        for each in found:
            if isinstance(each, BaseException):
                raise each
        return [each for each in found if isinstance(each, Answered)]

    # ------------------------------------------------------------------ the loop

    async def _work(self) -> None:
        while True:
            await self._something_to_do()
            if not self._worker.alive and not await self._started_again(f"the process that computes {self._how()}"):
                return
            if batch := await self._batch():
                await self._answer(batch)

    async def _something_to_do(self) -> None:
        """Returns when a picture waits, or when the worker is gone."""
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        with contextlib.suppress(OSError, ValueError):
            loop.add_reader(self._worker.sentinel, gone.set)
        tasks = [loop.create_task(self._some.wait()), loop.create_task(gone.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(OSError, ValueError):
                loop.remove_reader(self._worker.sentinel)

    async def _batch(self) -> list[tuple[Upload, asyncio.Future[Answered]]]:
        size = self._settings.worker.batch_size
        if self._waiting and len(self._waiting) < size:
            await asyncio.sleep(self._settings.wait)
        batch: list[tuple[Upload, asyncio.Future[Answered]]] = []
        while self._waiting and len(batch) < size:
            upload, future = self._waiting.popleft()
            if not future.done():  # its request may be gone
                batch.append((upload, future))
        if not self._waiting:
            self._some.clear()
        return batch

    async def _answer(self, batch: list[tuple[Upload, asyncio.Future[Answered]]]) -> None:
        uploads = [upload for upload, _ in batch]
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.answer, uploads)
        except DiffMICError as error:
            _log(str(error))
            for _, future in batch:
                _fail(future, error)
            return
        for (_, future), answered in zip(batch, found, strict=True):
            if not future.done():
                future.set_result(answered)

    def _how(self) -> str:
        return self._worker.ending()

    async def _started_again(self, reason: str) -> bool:
        """Starts the worker again; gives up where it ends too often, or does not start."""
        now = time.monotonic()
        self._ends.append(now)
        if len(self._ends) == _MOST_ENDS and now - self._ends[0] < _WITHIN:
            self._end(f"{reason}, {_MOST_ENDS} times within {_WITHIN:.0f} seconds; the server ends")
            return False
        _log(f"{reason}; a new one is started")
        self._ready = False
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.start)
        except DiffMICError as error:
            self._end(f"{reason}, and a new one did not start: {error}; the server ends")
            return False
        _log("the new process is ready")
        self._ready = True
        return True

    def _end(self, reason: str) -> None:
        for _, future in self._waiting:
            _fail(future, WorkerEndedError(reason))
        self._waiting.clear()
        self._give_up(reason)


def _fail(future: asyncio.Future[Answered], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _log(line: str) -> None:
    print(f"diffmiczoo serve: {line}", file=sys.stderr, flush=True)
