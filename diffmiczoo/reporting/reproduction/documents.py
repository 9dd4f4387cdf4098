"""`Document`: a table or figure with what belongs to it, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        section: the data set or setting.
        protocol: of the split; "" for none.
        row: key of the row.
        title: of the row.
        metric: its name.
        mean: over the seeds, or the only value.
        sd: standard deviation over the seeds; None for one seed.
        seeds: how many; 0 where nothing was run.
        quoted: whether it is the paper's word, not measured.
    """

    section: str
    protocol: str
    row: str
    title: str
    metric: str
    mean: float
    sd: float | None = None
    seeds: int = 0
    quoted: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a document.

    Attributes:
        heading: its name.
        columns: headings of its table; () for no table.
        rows: texts.
        notes: sentences below it.
        pictures: file name and what it shows.
    """

    heading: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()

    def markdown(self) -> str:
        """Returns the section as Markdown."""
        parts = [f"## {self.heading}"]
        parts += [f"![{text}]({file})" for file, text in self.pictures]
        if self.columns:
            lines = [self.columns, ("---",) * len(self.columns), *self.rows]
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
        if self.notes:
            parts.append("\n".join(f"- {note}" for note in self.notes))
        return "\n\n".join(parts)


@dataclass(frozen=True)
class Document:
    """A table or figure.

    Attributes:
        name: "table1", …
        title: what it shows.
        sections: its parts.
        made: how it was made: budget, time, machine, seeds, tests.
        not_shown: what is not to be read out of it.
        cells: every number.
        tests: every p-value: section, protocol, row, test, what, and p of each seed.
    """

    name: str
    title: str
    sections: tuple[Section, ...]
    made: tuple[str, ...]
    not_shown: tuple[str, ...]
    cells: tuple[Cell, ...] = ()
    tests: tuple[dict[str, Any], ...] = ()

    def markdown(self) -> str:
        """Returns the document as Markdown."""
        parts = [f"# {self.name}: {self.title}", *(section.markdown() for section in self.sections)]
        for heading, lines in (("How it was made", self.made), ("What it does not show", self.not_shown)):
            parts += [f"## {heading}", "\n".join(f"- {line}" for line in lines)]
        return "\n\n".join(parts) + "\n"

    def csv(self) -> str:
        """Returns every number as a row."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        names = [each.name for each in dataclasses.fields(Cell)]
        writer.writerow(names)
        writer.writerows([_plain(getattr(cell, name)) for name in names] for cell in self.cells)
        return table.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values."""
        return dataclasses.asdict(self)


def _plain(value: Any) -> Any:
    return "" if value is None else round(value, 6) if isinstance(value, float) else value
