"""`Ledger`: `results.jsonl`, to which each finished piece adds a line; what a kill tore off is forgotten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from diffmiczoo._version import __version__
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import naming
from diffmiczoo.reporting.reproduction.records import CostRecord, RunRecord, SplitRecord, from_line, to_line
from diffmiczoo.reporting.reproduction.variants import Budget

FILE = "results.jsonl"
_FORMAT = 1
_OTHER = "take another --output, or the same settings again"


class Ledger:
    """Everything that was found in an output directory, and what is added to it.

    Args:
        output: the directory, which exists.

    Attributes:
        splits: (data set, protocol) → the pictures.
        runs: id → finished run.
        costs: key → what a model costs.

    Raises:
        ValueError: a line in the middle of the file is no record.
    """

    def __init__(self, output: Path) -> None:
        self.path = output / FILE
        self.budget: dict[str, Any] | None = None
        self.version = ""
        self.splits: dict[tuple[str, str], SplitRecord] = {}
        self.runs: dict[str, RunRecord] = {}
        self.costs: dict[str, CostRecord] = {}
        self._whole = 0
        for number, line in enumerate(self._lines(), start=1):
            try:
                self._take(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidValueError(f"{self.path}, line {number}: no record of this program ({error!r})") from error

    def _lines(self) -> list[bytes]:
        """Returns the whole lines; what comes after the last line break was being written when a run was killed."""
        if not self.path.is_file():
            return []
        content = self.path.read_bytes()
        self._whole = content.rfind(b"\n") + 1
        return content[: self._whole].splitlines()

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "plan":
            self.budget, self.version = line["budget"], line["version"]
        elif line["kind"] == "split":
            split = from_line(SplitRecord, line)
            self.splits[split.dataset, split.protocol] = split
        elif line["kind"] == "run":
            run = from_line(RunRecord, line)
            self.runs[run.id] = run
        else:
            cost = from_line(CostRecord, line)
            self.costs[cost.key] = cost

    def begin(self, budget: Budget) -> None:
        """Writes what all lines belong to, or refuses an output that belongs to something else.

        Raises:
            ValueError: the output was made with another budget or version.
        """
        asked = json.loads(json.dumps(budget.to_dict()))
        if self.budget is None:
            self._append({"kind": "plan", "format": _FORMAT, "version": __version__, "budget": asked})
            self.budget, self.version = asked, __version__
            return
        if self.version != __version__:
            raise InvalidValueError(
                f"{self.path} was made by version {self.version}, this is {__version__}; their numbers are not mixed, "
                f"so {_OTHER}"
            )
        changed = sorted(name for name in asked if self.budget.get(name) != asked[name])
        if changed:
            name = changed[0]
            raise InvalidValueError(
                f"{self.path} was made with {name}={self.budget.get(name)!r}, asked for is {asked[name]!r}; {_OTHER}"
            )

    def add(self, record: SplitRecord | RunRecord | CostRecord) -> None:
        """Adds a record; it is on the disk when this returns.

        Raises:
            ValueError: a split is not that of the runs that are there.
            OSError: the disk is full.
        """
        if isinstance(record, SplitRecord):
            key = (record.dataset, record.protocol)
            known = self.splits.get(key)
            if known is not None and known.digest != record.digest:
                raise InvalidValueError(
                    f"{self.path} was made with other pictures, labels or splits of {record.dataset} ({known.title}, "
                    f"{sum(known.counts.values()):,} pictures; now {record.title}, "
                    f"{sum(record.counts.values()):,}); take another --output, or the same data again"
                )
            if known is not None:
                return
            self.splits[key] = record
        elif isinstance(record, RunRecord):
            self.runs[record.id] = record
        else:
            self.costs[record.key] = record
        self._append(to_line(record))

    def _append(self, line: dict[str, Any]) -> None:
        text = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")
        with naming(self.path), self.path.open("r+b" if self.path.exists() else "w+b") as file:
            file.truncate(self._whole)
            file.seek(self._whole)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._whole += len(text)
