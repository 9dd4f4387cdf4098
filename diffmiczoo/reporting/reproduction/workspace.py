"""`Workspace`: the output directory: pictures and splits on their way in, runs on their way out."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffmiczoo.data.copies import shared_names
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.split_table import write_split
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import read_json_object, write_text
from diffmiczoo.reporting.reproduction.execution import Job, execute
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.protocols import Pictures, copied_names, read_pictures, record_of, split_by
from diffmiczoo.reporting.reproduction.records import RunRecord
from diffmiczoo.reporting.reproduction.sources import Source
from diffmiczoo.reporting.reproduction.variants import Run, file_name

Say = Callable[[str], None]


@dataclass
class Workspace:
    """An output directory in use.

    Attributes:
        output: the directory.
        ledger: what was found there.
        device: of the training.
        jobs: runs at once.
        progress: show bars.
        say: takes a line of progress.
        manifests: (data set, protocol) → pictures with their splits.
    """

    output: Path
    ledger: Ledger
    device: str
    jobs: int
    progress: bool | None
    say: Say
    manifests: dict[tuple[str, str], Manifest]

    def take(self, source: Source, protocols: Sequence[str], most: int) -> None:
        """Reads a data set, splits it by each protocol, and records the splits.

        Raises:
            FileNotFoundError, ValueError: as `as_manifest` does; or the directory has runs of other pictures.
        """
        self.say(f"{source.title}: reading {source.data} and looking for copies")
        pictures = read_pictures(source, most, self._stored_copies)
        for protocol in protocols:
            self._split(pictures, protocol)

    def _split(self, pictures: Pictures, protocol: str) -> None:
        split, rule = split_by(pictures, protocol)
        record = record_of(pictures, split, protocol, rule)
        self.ledger.add(record)
        name = pictures.source.dataset
        self.manifests[name, protocol] = split
        path = self.output / "splits" / f"{file_name(name)}-{protocol}.csv"
        path.parent.mkdir(exist_ok=True)
        # By their names, so that the list is of use on other machines.
        names = shared_names(split.records)
        named = [replace(r, path=Path(n), source=r.path) for r, n in zip(split.records, names, strict=True)]
        write_split(split.with_records(named), path)
        leaks, counts = record.leaks, record.counts
        self.say(
            f"{record.title}, {protocol}: {counts['train']:,} train, {counts['val']:,} val, {counts['test']:,} test; "
            f"{leaks.either:,} of the test pictures have a relative in training or validation"
        )

    def _stored_copies(self, manifest: Manifest) -> Sequence[Sequence[str]]:
        """Returns the copies among pictures, from the directory where they were looked for before."""
        path, digest = self.output / f"copies-{file_name(manifest.name)}.json", manifest.digest()
        known = read_json_object(path) if path.is_file() else {}
        if known.get("digest") == digest:
            names: list[list[str]] = known["names"]
            return names
        found = copied_names(manifest, self.progress)
        write_text(path, json.dumps({"digest": digest, "names": found}))
        return found

    def execute(self, runs: Sequence[Run], after: Callable[[], None]) -> None:
        """Does the runs that are not finished, and records each.

        Args:
            runs: in this order, `jobs` at once.
            after: called when a run is recorded.
        """
        left = [run for run in runs if run.id not in self.ledger.runs]
        done = len(runs) - len(left)
        for record in self._records(left):
            done += 1
            self.ledger.add(record)
            accuracy = record.metrics.get("accuracy")
            shown = "" if accuracy is None else f", accuracy {accuracy:.3f}"
            self.say(f"[{done}/{len(runs)}] {record.id}: {record.seconds:,.0f} s{shown}")
            after()

    def _records(self, runs: Sequence[Run]) -> Iterator[RunRecord]:
        if self.jobs == 1 or len(runs) < 2:
            for run in runs:
                self.say(f"{run.id}: {'going on' if self.directory(run).is_dir() else 'begins'}")
                yield execute(self._job(run))
            return
        if any(record.source is not None for manifest in self.manifests.values() for record in manifest.records):
            raise InvalidValueError(f"jobs={self.jobs} is for pictures that are files; take jobs=1 for arrays")
        threads = max(1, torch.get_num_threads() // self.jobs)
        context = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads
        with ProcessPoolExecutor(self.jobs, context) as pool:
            waiting = [pool.submit(execute, replace(self._job(run), threads=threads)) for run in runs]
            try:
                for finished in as_completed(waiting):
                    yield finished.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def directory(self, run: Run) -> Path:
        """Returns where a run leaves its weights."""
        return self.output / "runs" / run.id

    def _job(self, run: Run) -> Job:
        key = (run.dataset, run.protocol)
        return Job(
            run, self.ledger.splits[key], self.manifests[key], self.directory(run), self.device, None, self.progress
        )
