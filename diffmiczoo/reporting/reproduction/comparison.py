"""Tables of trained rows: comparisons, ablations and sweeps, from finished runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffmiczoo.metrics.table import find_metric
from diffmiczoo.reporting.reproduction.documents import Cell, Document, Section
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.methods import METHODS, OURS, PUBLISHED_SWEEPS, published
from diffmiczoo.reporting.reproduction.notes import (
    made_of,
    not_shown_by,
    row_notes,
    seeds_note,
    split_notes,
    tests_note,
)
from diffmiczoo.reporting.reproduction.planning import Target, points_of, rows_of
from diffmiczoo.reporting.reproduction.records import RunRecord, SplitRecord
from diffmiczoo.reporting.reproduction.summary import (
    SeedTests,
    Value,
    finished,
    main_test,
    tests_or_none,
    value_of,
)
from diffmiczoo.reporting.reproduction.variants import PROTOCOL_TITLES, Budget, Run, Variant

#: The paper's metrics of a task.
_METRICS = {"multiclass": ("accuracy", "macro_f1"), "multilabel": ("auroc",)}

#: What the JSON and CSV have beside the paper's metrics.
_MORE = ("balanced_accuracy", "auroc", "quadratic_kappa", "average_precision", "nll", "brier", "ece")

_POOLED = "pooled"


@dataclass(frozen=True)
class _Part:
    """The rows of one data set."""

    splits: tuple[SplitRecord, ...]
    rows: tuple[Variant, ...]
    found: dict[tuple[str, str, str], list[RunRecord]]

    @property
    def dataset(self) -> str:
        return self.splits[0].dataset

    @property
    def metrics(self) -> tuple[str, ...]:
        return _METRICS[self.splits[0].task]

    def records(self, split: SplitRecord, row: str) -> list[RunRecord]:
        return self.found.get((split.dataset, split.protocol, row), [])

    def value(self, split: SplitRecord, row: str, metric: str, pooled: bool = False) -> Value | None:
        return value_of(self.records(split, row), metric, pooled)

    def tests(self, split: SplitRecord, row: str) -> list[SeedTests]:
        ours, others = self.records(split, OURS), self.records(split, row)
        return [] if row == OURS else tests_or_none(split, ours, others) or []


def comparison_document(
    target: Target, budget: Budget, runs: Sequence[Run], methods: Sequence[str], ledger: Ledger
) -> Document:
    """Returns table 1 to 5 from what is finished.

    Args:
        target: the table.
        budget: of its runs.
        runs: all that are wanted.
        methods: keys of the rows of a comparison.
        ledger: with the finished runs.
    """
    found = finished(ledger, runs)
    rows = tuple(rows_of(target, budget, methods))
    parts = [
        part for dataset in dict.fromkeys(run.dataset for run in runs) if (part := _part(dataset, rows, found, ledger))
    ]
    records = [record for records in found.values() for record in records]
    sections = [section for part in parts for section in _sections(target, budget, part)]
    counts = [len(records) for records in found.values() if records]
    made = [*made_of(budget, records, len(runs)), seeds_note(counts)]
    made += [tests_note(task, METHODS[OURS].title) for task in dict.fromkeys(part.splits[0].task for part in parts)]
    made.append(
        "Labels are the class with the highest score of the row's own: of a diffusion the mean of ŷ_0, without the "
        "priors that the package's own prediction adds (a row of its own). The epoch is the one with the best "
        "validation AUROC; of a diffusion that or the last one, whichever has the better AUROC by its own scores on "
        "the validation pictures. Nothing is chosen by test pictures."
    )
    made += row_notes(rows)
    splits = [split for part in parts for split in part.splits]
    return Document(
        target.name,
        target.title,
        tuple(sections),
        tuple(made),
        tuple(not_shown_by(target, budget, splits, {record.imagenet for record in records})),
        tuple(cell for part in parts for cell in _cells(part)),
        tuple(test for part in parts for test in _tests(part)),
    )


def _part(
    dataset: str, rows: tuple[Variant, ...], found: dict[tuple[str, str, str], list[RunRecord]], ledger: Ledger
) -> _Part | None:
    protocols = list(dict.fromkeys(protocol for name, protocol, _ in found if name == dataset))
    splits = tuple(ledger.splits[dataset, each] for each in protocols if (dataset, each) in ledger.splits)
    return _Part(splits, rows, found) if splits else None


def _sections(target: Target, budget: Budget, part: _Part) -> list[Section]:
    notes = tuple(split_notes(part.splits))
    if target.kind != "sweep":
        return [_section(part.splits[0].title, "method", part, [(row.title, row) for row in part.rows], notes)]
    found = []
    points = points_of(budget)
    for axis in dict.fromkeys(point.axis for point in points):
        named = [(str(point.value), point.variant) for point in points if point.axis == axis]
        found.append(_section(f"{part.splits[0].title}: {axis}", axis, part, named, ()))
    return [*found, Section("The data", notes=(*notes, f"In words, {PUBLISHED_SWEEPS}."))]


def _section(
    heading: str, first: str, part: _Part, rows: Sequence[tuple[str, Variant]], notes: tuple[str, ...]
) -> Section:
    measured = [(split, metric) for split in part.splits for metric in part.metrics]
    columns = [first, "parameters", "start"]
    columns += [f"{find_metric(metric).short_label}, {PROTOCOL_TITLES[split.protocol]}" for split, metric in measured]
    columns += [f"p, {PROTOCOL_TITLES[split.protocol]}" for split in part.splits]
    stands_for = part.splits[0].stands_for
    quoted = any(published(stands_for, row.key, metric) for _, row in rows for metric in part.metrics)
    columns += [f"paper, {stands_for}: {' / '.join(map(_short, part.metrics))} (quoted)"] if quoted else []
    lines = []
    for title, row in rows:
        lines.append(_row(part, title, row, measured, quoted))
        if row.key == OURS and first == "method" and any(each.pooled for each in _all(part, row.key)):
            values = [_text(part.value(split, OURS, metric, True)) for split, metric in measured]
            rest = [""] * (len(columns) - 3 - len(values))
            lines.append((f"{title}, with its priors as the package predicts", "", "", *values, *rest))
    return Section(heading, tuple(columns), tuple(lines), notes)


def _row(
    part: _Part, title: str, row: Variant, measured: Sequence[tuple[SplitRecord, str]], quoted: bool
) -> tuple[str, ...]:
    records = _all(part, row.key)
    parameters = f"{records[0].parameters / 1e6:.2f} M" if records else "–"
    start = ("ImageNet" if records[0].imagenet else "random") if records else "–"
    values = [_text(part.value(split, row.key, metric)) for split, metric in measured]
    p_values = []
    for split in part.splits:
        test = main_test(part.tests(split, row.key), split.task)
        p_values.append("" if row.key == OURS else "–" if test is None else _p_text(test.largest))
    said = [published(part.splits[0].stands_for, row.key, metric) for metric in part.metrics]
    words = " / ".join("–" if value is None else f"{value:.3f}" for value in said)
    return (title, parameters, start, *values, *p_values, *([words if any(said) else "–"] if quoted else []))


def _all(part: _Part, row: str) -> list[RunRecord]:
    return [record for split in part.splits for record in part.records(split, row)]


def _short(metric: str) -> str:
    return find_metric(metric).short_label


def _text(value: Value | None) -> str:
    return "–" if value is None else str(value)


def _p_text(p_value: float) -> str:
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _cells(part: _Part) -> list[Cell]:
    cells = []
    metrics = tuple(dict.fromkeys((*part.metrics, *_MORE)))
    for row in part.rows:
        for split in part.splits:
            for metric in metrics:
                for pooled in (False, True):
                    value = part.value(split, row.key, metric, pooled)
                    key = f"{row.key}+{_POOLED}" if pooled else row.key
                    if value is not None:
                        cells.append(
                            Cell(
                                part.dataset, split.protocol, key, row.title, metric, value.mean, value.sd, value.seeds
                            )
                        )
        for metric in part.metrics:
            said = published(part.splits[0].stands_for, row.key, metric)
            if said is not None:
                cells.append(Cell(part.splits[0].stands_for, "", row.key, row.title, metric, said, quoted=True))
    return cells


def _tests(part: _Part) -> list[dict[str, Any]]:
    return [
        {
            "section": part.dataset,
            "protocol": split.protocol,
            "row": row.key,
            "against": OURS,
            "test": test.test,
            "what": test.what,
            "p_of_seeds": list(test.p_values),
        }
        for split in part.splits
        for row in part.rows
        for test in part.tests(split, row.key)
    ]
