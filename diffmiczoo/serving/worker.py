"""The process that decodes and computes, and the end of the pipe that the server holds.

Decoders of foreign files are what can take a process down; here that costs a restart and the batch in work, not the
server and everybody's connections.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from diffmiczoo.errors import DiffMICError, InvalidValueError
from diffmiczoo.serving.answers import PictureAnswer, ServedModel, picture_answers, served_model
from diffmiczoo.serving.settings import WorkerSettings

if TYPE_CHECKING:
    from diffmiczoo.engines.predictor import Answers, BatchPredictor


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A picture that a client sent.

    Attributes:
        name: as the client calls it; nothing is opened by it.
        content: the file.
        drawn: whether a picture of where the model looked is wanted as well.
    """

    name: str
    content: bytes
    drawn: bool = False


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer, and the PNG file of where the model looked; b"" where none was wanted or the picture is unusable."""

    answer: PictureAnswer
    drawing: bytes = b""


@dataclass(frozen=True)
class Failure:
    """What the worker could not do; `traceback` for a fault of the program, empty for what a person can set right."""

    message: str
    traceback: str = ""


class WorkerEndedError(DiffMICError, RuntimeError):
    """The process that computes is gone, with what it had in work."""


class WorkerFaultError(DiffMICError, RuntimeError):
    """The process that computes met a fault of the program; it goes on."""


class Worker:
    """A process that answers one batch after the other, as the server sees it; not for several threads at once."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self._process: Any = None
        self._pipe: Connection | None = None

    def start(self) -> ServedModel:
        """Starts the process and waits until it has loaded the weights.

        Raises:
            ValueError: the weights cannot be loaded, as the worker says.
            WorkerEndedError: it ended meanwhile.
        """
        # Spawned: a fork would inherit the server's sockets and its threads' locks.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=work, args=(theirs, self.settings), name="diffmiczoo-worker", daemon=True
        )
        self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        found = self._received()
        if isinstance(found, Failure):
            self.stop()
            raise InvalidValueError(found.message + (f"\n{found.traceback}" if found.traceback else ""))
        model: ServedModel = found
        return model

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process ends."""
        return int(self._process.sentinel)

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and bool(self._process.is_alive())

    def answer(self, uploads: Sequence[Upload]) -> list[Answered]:
        """Answers pictures; waits until that is done.

        Raises:
            WorkerEndedError: the process ended before.
            WorkerFaultError: a fault of the program; the process goes on.
        """
        if self._pipe is None:
            raise WorkerEndedError("the process that computes was stopped")
        try:
            self._pipe.send(list(uploads))
        except OSError as error:
            raise self._ended() from error
        found = self._received()
        if isinstance(found, Failure):
            raise WorkerFaultError(found.message + "\n" + found.traceback)
        answers: list[Answered] = found
        return answers

    def stop(self) -> None:
        """Ends the process when it is done with what it has; kills it where that takes too long."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None
        if self._process is not None:
            self._process.join(10)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()

    def ending(self) -> str:
        """Returns how the process ended, in words."""
        self._process.join(5)
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"was ended by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit status {code}"

    def _received(self) -> Any:
        if self._pipe is None:
            raise WorkerEndedError("the process that computes was stopped")
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._ended() from error

    def _ended(self) -> WorkerEndedError:
        return WorkerEndedError(f"the process that computes {self.ending()}")


# ---------------------------------------------------------------------- within the process


def work(pipe: Connection, settings: WorkerSettings) -> None:
    """Loads the weights, says what they are, and answers until the pipe ends.

    Signals that end a server go to all its processes: this one goes on until the server is done with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    import traceback

    try:
        predictor = _loaded(settings)
        first: Any = served_model(predictor, settings.name)
    except DiffMICError as error:
        first = Failure(str(error))
    except Exception as error:
        first = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
    try:
        pipe.send(first)
    except OSError:  # the server was stopped meanwhile
        return
    if isinstance(first, Failure):
        return
    while True:
        try:
            uploads = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            found: Any = answered(predictor, uploads)
        except Exception as error:
            found = Failure(f"{type(error).__name__}: {error}", traceback.format_exc())
        try:
            pipe.send(found)
        except OSError:  # the server is gone
            return


def _loaded(settings: WorkerSettings) -> BatchPredictor:
    import io

    from PIL import Image

    from diffmiczoo.engines.predictor import BatchPredictor
    from diffmiczoo.images import pixels

    pixels.MAX_PIXELS = settings.max_pixels
    predictor = BatchPredictor(
        settings.name,
        settings.steps,
        precision=settings.precision,
        device=settings.device,
        batch_size=settings.batch_size,
        threads=settings.threads,
        exact=settings.exact,
    )
    # The first pictures would wait for what is computed once, such as packed weights.
    side, buffer = predictor.model.config.input_size, io.BytesIO()
    Image.new("RGB", (side, side), "grey").save(buffer, format="PNG")
    answered(predictor, [Upload(name="warm-up", content=buffer.getvalue())] * settings.batch_size)
    return predictor


def answered(predictor: BatchPredictor, uploads: Sequence[Upload]) -> list[Answered]:
    """Answers pictures with a predictor of this process."""
    from diffmiczoo.engines.pictures import Picture

    answers = predictor.answer([Picture(upload.name, upload.content) for upload in uploads])
    drawings = _drawings(answers, uploads)
    pairs = zip(picture_answers(answers), drawings, strict=True)
    return [Answered(answer=answer, drawing=drawing) for answer, drawing in pairs]


def _drawings(answers: Answers, uploads: Sequence[Upload]) -> list[bytes]:
    from diffmiczoo.serving.drawing import drawing_of

    rows = iter(range(len(uploads)))
    places = [next(rows) if each.square is not None else None for each in answers.read]
    return [
        drawing_of(answers.prediction, place) if upload.drawn and place is not None and answers.prediction else b""
        for upload, place in zip(uploads, places, strict=True)
    ]
