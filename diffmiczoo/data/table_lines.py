"""The lines of a table while they become images: which are left out, which are joined, and that none is lost."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffmiczoo.data.manifest import Skipped
from diffmiczoo.data.rows import Table
from diffmiczoo.data.split_names import SKIP
from diffmiczoo.errors import InvalidValueError


@dataclass(frozen=True)
class Line:
    """What one row says of an image.

    Attributes:
        number: of the line.
        cell: the file as it is written.
        labels: None where they are missing.
        split, group: None where there are none.
        path: of the file, once it was found.
        columns: all cells of the row.
    """

    number: int
    cell: str
    labels: tuple[str, ...] | None
    split: str | None
    group: str | None
    path: Path = Path()
    columns: Mapping[str, str] = field(default_factory=dict)


class Lines:
    """All lines of a table.

    Args:
        table: that they come from.
        lines: one for each of its rows.

    Attributes:
        kept: those that are still images.
        skipped: those that were left out, and why.
    """

    def __init__(self, table: Table, lines: Sequence[Line]) -> None:
        self.table = table
        self.kept = list(lines)
        self.skipped: list[Skipped] = []
        self._total = len(lines)
        self._joined: dict[Path, int] = {}
        self.drop(f"rows whose split is mapped to {SKIP}", lambda line: line.split == SKIP)

    def drop(self, reason: str, wrong: Callable[[Line], bool]) -> None:
        """Leaves out lines."""
        left = [line for line in self.kept if wrong(line)]
        if left:
            self.kept = [line for line in self.kept if not wrong(line)]
            names = tuple(f"{self.table.unit} {line.number} ({line.cell.strip()})" for line in left)
            self.skipped.append(Skipped(reason, names))

    def drop_unlabelled(self, task: str | None) -> None:
        """Leaves out lines that say their labels are missing, and validation and test splits without any label.

        Raises:
            ValueError: a cell is empty although every image has one label, or no line has a label.
        """
        several = task == "multilabel" or any(len(line.labels or ()) > 1 for line in self.kept)
        if not several:
            labelled = {line.split for line in self.kept if line.labels}
            without = {"val", "test"} - labelled if labelled else set()
            self.drop("rows of splits in which no row has a label", lambda line: line.split in without)
        self.drop("rows without a label", lambda line: line.labels is None)
        if not self.kept:
            raise InvalidValueError(f"{self.table.path}: no row has a label")
        empty = next((line for line in self.kept if not line.labels), None)
        if empty is not None and not several:
            raise InvalidValueError(
                f"{self.table.where(empty.number)}: {empty.cell.strip()} has no label; give it one, write NA for a row "
                "to be left out, or set the task to multilabel if no label applies"
            )

    def set_paths(self, paths: Sequence[Path]) -> None:
        """Sets where the files are."""
        self.kept = [replace(line, path=path) for line, path in zip(self.kept, paths, strict=True)]

    def join_repeats(self, task: str | None, *, keep_faults: bool = False) -> None:
        """Takes each file once: where its rows say the same, or with `task` "multilabel" where each gives one label.

        Args:
            task: "multiclass", "multilabel" or None.
            keep_faults: keep all rows of a file that contradict each other.

        Raises:
            ValueError: the rows of a file contradict each other; the message names two of them.
        """
        of_file: dict[str, list[Line]] = defaultdict(list)
        for line in self.kept:
            of_file[os.path.normpath(line.path)].append(line)
        repeated: set[int] = set()
        self.kept = []
        for lines in of_file.values():
            first = lines[0]
            others = [line for line in lines[1:] if _says(line) != _says(first)]
            if not others:
                repeated |= {line.number for line in lines[1:]}
            elif keep_faults and not _joins(lines, task):
                repeated |= {line.number for line in lines[1:] if line not in others}
                self.kept += others
            else:
                first = self._one_label_each(lines, others[0], task)
            self.kept.append(first)
        names = tuple(f"{self.table.unit} {number}" for number in sorted(repeated))
        if names:
            self.skipped.append(Skipped("rows that say of a file what another row says", names))

    def _one_label_each(self, lines: Sequence[Line], other: Line, task: str | None) -> Line:
        """Returns the rows of a file as one, each of which gives one label."""
        first = lines[0]
        labels = list(dict.fromkeys(label for line in lines for label in line.labels or ()))
        same = _one_place(lines)
        if _joins(lines, task):
            self._joined[first.path] = len(lines)
            return replace(first, labels=tuple(labels))
        advice = (
            "remove one of them, or join the labels by | in one row; with the task multilabel, rows of one label each "
            "are joined"
            if same
            else "remove one of them"
        )
        raise InvalidValueError(
            f"{self.table.path}: {first.cell.strip()} is listed more than once: in {self.table.unit} {first.number} as "
            f"{_shown(first)}, in {self.table.unit} {other.number} as {_shown(other)}; {advice}"
        )

    def account(self) -> tuple[str, ...]:
        """Returns sentences on how many rows became images, after checking that none was lost.

        Raises:
            ValueError: the sum is wrong, which is a fault of this reader.
        """
        left = sum(len(each.names) for each in self.skipped)
        joined = sum(self._joined.values()) - len(self._joined)
        if len(self.kept) + joined + left != self._total:
            raise InvalidValueError(
                f"{self.table.path}: {self._total} rows, of which {len(self.kept) + joined} were read and {left} left "
                "out; this is a fault of the reader, please report it"
            )
        notes = []
        if joined:
            notes.append(
                f"{sum(self._joined.values())} rows of one label each are joined to {len(self._joined)} images"
            )
        if left:
            notes.append(f"{self._total:,} rows: {self._total - left:,} read, {left:,} left out")
        return tuple(notes)


def _one_place(lines: Sequence[Line]) -> bool:
    return len({(line.split, line.group) for line in lines}) == 1


def _joins(lines: Sequence[Line], task: str | None) -> bool:
    """Whether the rows of a file are one image, each of which gives one label of it."""
    return task == "multilabel" and _one_place(lines) and all(len(line.labels or ()) == 1 for line in lines)


def _says(line: Line) -> tuple[object, ...]:
    return frozenset(line.labels or ()), line.split, line.group


def _shown(line: Line) -> str:
    given = {"split": line.split, "group": line.group}
    return " ".join(["|".join(line.labels or ()) or "without label", *(f"({k} {v})" for k, v in given.items() if v)])
