"""`PredictionFile`: a CSV or JSON Lines file that grows batch by batch beside the one that it replaces at the end."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from diffmiczoo.cli.names_on_disk import NamesOnDisk
from diffmiczoo.cli.output import json_lines, note
from diffmiczoo.cli.run_record import RunRecord
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import beside, is_stream, naming, opened_stream, put_in_place

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

#: Formats of predictions whose lines stand for themselves, so that a file can grow batch by batch.
STREAMED = ("csv", "jsonl")


class PredictionFile:
    """Grows as PATH.partial by whole lines, each batch on the disk before the next is computed, and then becomes PATH.

    PATH.run.json beside it says what made the predictions. A run that stops, is killed or predicts nothing leaves PATH
    as it was; PATH.partial is what a resumed run goes on with. A device or pipe is written to as it is.

    Args:
        path: of the file.
        style: "csv" or "jsonl".
        config: of the model, for its classes.
        record: of the run.
        resume: keep the predictions that the file or its partial file has, where they were made in the same way.

    Attributes:
        names: of the images that are kept from before; they are held on the disk.
        rows: number of predictions in the file.
        made: when the file that is kept was written, in seconds as `os.stat` gives them; 0 without one.

    Raises:
        ValueError: the file that is to go on has other classes, is no such file, or another run is writing it.
    """

    def __init__(self, path: Path, style: str, config: DiffMICConfig, record: RunRecord, resume: bool) -> None:
        self.path, self.style, self.config, self.record = path, style, config, record
        self.names = NamesOnDisk()
        self.rows, self.made, self._sets_aside = 0, 0.0, False
        self._stream = is_stream(path)
        self._begun = False
        self._target = path if self._stream else Path(os.path.realpath(path))
        self._partial = beside(self._target, ".partial")
        with naming(path):
            self._file = opened_stream(path) if self._stream else self._opened(resume)

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Closing writes once more what a full disk did not take.
        with naming(self.path), self._file, closing(self.names):
            if fcntl is None:
                self._file.close()  # where there are no locks, nothing that is open can be moved
            if self._stream:
                return
            if kind is None:
                self._finish()
            elif self._partial.stat().st_size:  # a batch that was just being written is not counted yet
                done = f"{self.rows:,} predictions" if self.rows else "a first batch"
                note(f"{self._partial} has {done}; the same command with --resume goes on from them")
            else:
                self._partial.unlink(missing_ok=True)
                RunRecord.path_for(self._partial).unlink(missing_ok=True)

    def write(self, prediction: Prediction) -> None:
        """Adds the predictions of a batch.

        Raises:
            OSError: the disk is full, or nobody reads the pipe any more.
        """
        text = json_lines(prediction) if self.style == "jsonl" else prediction.to_csv(header=not self._begun)
        with naming(self.path):
            self._file.write(text.encode("utf-8", "surrogateescape"))
            self._file.flush()
            if not self._stream:
                os.fsync(self._file.fileno())
        self._begun = True
        self.rows += len(prediction)

    # ------------------------------------------------------------------ begin and end

    def _opened(self, resume: bool) -> BinaryIO:
        """Opens the partial file behind what is kept of an earlier run."""
        if not self._partial.exists():  # when an old one was written says which images have changed since
            self._partial.touch()
        file: BinaryIO = self._partial.open("r+b")
        try:
            self._lock(file)
            kept = self._kept() if resume else None
            if (kept is None or not kept.size) and next(whole_records(file, self.style), None) is not None:
                self._set_aside(self._partial)
            if kept is not None and kept.path == self._partial:
                file.truncate(kept.size)
            else:
                file.seek(0)
                file.truncate()
                if kept is not None:
                    kept.copy_to(file)
            file.seek(0, os.SEEK_END)
            file.flush()
            self.record.save_for(self._partial)
        except BaseException:
            file.close()
            if not self._partial.stat().st_size:
                self._partial.unlink()
            raise
        return file

    def _lock(self, file: BinaryIO) -> None:
        try:
            if fcntl is not None:
                # Not lockf: its lock is gone when this process closes the file anywhere else, as after reading it.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InvalidValueError(
                f"{self.path}: another run is writing it; wait for it, or choose another"
            ) from error
        except OSError:
            pass  # a file system without locks

    def _kept(self) -> _Kept | None:
        """Returns the newest file that was made as this one is to be, and takes over its names."""
        files = [file for file in (self._partial, self._target) if file.exists() and file.stat().st_size]
        for path in files:
            kept = _Kept(path, path.stat().st_mtime)
            names = NamesOnDisk()
            with path.open("rb") as file:
                names.update(self._names(path, kept.counted(whole_records(file, self.style))))
            if not self.record.differences(path):
                header = self.style == "csv" and kept.records > 0
                self.names.close()
                self.names, self.rows, self._begun = names, kept.records - header, bool(kept.size)
                self.made = kept.made
                return kept
            names.close()
        if files:
            differences = "; ".join(self.record.differences(files[0]))
            note(f"{files[0]} was made otherwise ({differences}): none of it is kept, all images are predicted anew")
            self._sets_aside = True
        return None

    def _set_aside(self, file: Path) -> None:
        """Copies a file that is about to be written over, so that no work is lost."""
        endings = (".old" + (str(number) if number > 1 else "") for number in count(1))
        old = next(other for other in (beside(file, ending) for ending in endings) if not other.exists())
        shutil.copy2(file, old)
        with suppress(FileNotFoundError):
            shutil.copy2(RunRecord.path_for(file), RunRecord.path_for(old))
        note(f"{old} has what {file} had before")

    def _finish(self) -> None:
        if self._sets_aside and self._target.exists():
            self._set_aside(self._target)
        with naming(self.path, self._partial):
            # In this order: whenever it is stopped, no file has the record of another one.
            RunRecord.path_for(self._target).unlink(missing_ok=True)
            put_in_place(self._partial, self._target)
            os.replace(RunRecord.path_for(self._partial), RunRecord.path_for(self._target))

    def _names(self, file: Path, records: Iterator[str]) -> Iterator[str]:
        """Yields the names of the images that a file has predictions for.

        Raises:
            ValueError: it is no such file.
        """
        if self.style == "csv":
            yield from self._names_of_rows(file, csv.reader(records))
            return
        try:
            for line in records:
                yield json.loads(line)["name"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InvalidValueError(f"{file}: holds no predictions in JSON Lines ({error})") from error

    def _names_of_rows(self, file: Path, rows: Iterator[list[str]]) -> Iterator[str]:
        from diffmiczoo.inference.limits import LIMIT_COLUMNS
        from diffmiczoo.inference.table import table_columns

        header = next(rows, None)
        if header is None:
            return
        if [name for name in header if name not in LIMIT_COLUMNS] != table_columns(self.config):
            raise InvalidValueError(f"{file}: holds no predictions of this model, its columns are {header}")
        for number, row in enumerate(rows, 2):
            if len(row) != len(header):
                raise InvalidValueError(f"{file}: row {number} is not whole; mend or remove the file")
            yield row[0]


@dataclass
class _Kept:
    """What is kept of a file that an earlier run has left.

    Attributes:
        path: of the file.
        made: when it was written, in seconds.
        size: bytes of its whole lines.
        records: how many these are, the header included.
    """

    path: Path
    made: float
    size: int = 0
    records: int = 0

    def counted(self, records: Iterator[bytes]) -> Iterator[str]:
        """Yields records as text, and counts them."""
        for record in records:
            self.size += len(record)
            self.records += 1
            yield record.decode("utf-8", "surrogateescape")

    def copy_to(self, file: BinaryIO) -> None:
        """Copies its whole lines."""
        left = self.size
        with self.path.open("rb") as source:
            while left and (content := source.read(min(left, 1 << 20))):
                file.write(content)
                left -= len(content)


def whole_records(file: Iterable[bytes], style: str) -> Iterator[bytes]:
    """Yields the records of a CSV or JSON Lines file, without a last one that is not whole.

    A line of CSV ends where quotes are even: a file's name may hold line breaks, which lie within quotes.
    """
    begun: list[bytes] = []
    quotes = 0
    for line in file:
        begun.append(line)
        quotes += line.count(b'"')
        if line.endswith(b"\n") and not (style == "csv" and quotes % 2):
            yield b"".join(begun)
            begun.clear()
