"""From finished runs to what a table says of a row: means and standard deviations over seeds, and paired tests."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from diffmiczoo.errors import MissingExtraError
from diffmiczoo.evaluation.significance import PairedTest, paired_tests
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.records import RunRecord, SplitRecord
from diffmiczoo.reporting.reproduction.variants import Run

#: Seeds that a mean needs before its standard deviation says something.
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Value:
    """A metric over the seeds of a row.

    Attributes:
        mean: over the seeds.
        sd: sample standard deviation; None for one seed.
        seeds: how many.
    """

    mean: float
    sd: float | None
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.sd is None else f"{self.mean:.3f} ± {self.sd:.3f}"


@dataclass(frozen=True)
class SeedTests:
    """A paired test of two rows, once for each seed that both have.

    Attributes:
        test: its name.
        what: what was compared.
        p_values: of the seeds.
    """

    test: str
    what: str
    p_values: tuple[float, ...]

    @property
    def largest(self) -> float:
        """Of the seed that is the least convincing."""
        return max(self.p_values)


def value_of(records: Sequence[RunRecord], metric: str, pooled: bool = False) -> Value | None:
    """Returns a metric over runs; None where no run has it.

    Args:
        records: of a row, a seed each.
        metric: its name.
        pooled: of the package's own prediction in place of the sampler's scores.
    """
    values = [(record.pooled if pooled else record.metrics).get(metric) for record in records]
    numbers = [value for value in values if value is not None and not math.isnan(value)]
    if not numbers:
        return None
    return Value(statistics.mean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def finished(ledger: Ledger, runs: Sequence[Run]) -> dict[tuple[str, str, str], list[RunRecord]]:
    """Returns (data set, protocol, row) → its finished runs, in order of their seeds; rows without one have none."""
    found: dict[tuple[str, str, str], list[RunRecord]] = {}
    for run in runs:
        records = found.setdefault((run.dataset, run.protocol, run.variant), [])
        if run.id in ledger.runs:
            records.append(ledger.runs[run.id])
    return {key: sorted(records, key=lambda record: record.seed) for key, records in found.items()}


def tests_of(split: SplitRecord, ours: Sequence[RunRecord], other: Sequence[RunRecord]) -> list[SeedTests]:
    """Tests one row against another on the same test pictures, for each seed that both have.

    McNemar's exact test on which pictures are right (one label), paired t-test on the Brier score and on the NLL per
    cluster of related pictures, DeLong's test on the AUROC of each class; see `evaluation.significance.paired_tests`.

    Raises:
        ImportError: SciPy is not installed.
    """
    theirs = {record.seed: record for record in other}
    both = [(record, theirs[record.seed]) for record in ours if record.seed in theirs]
    per_seed = [paired_tests(split.predictions(a.probs), split.predictions(b.probs)) for a, b in both]
    found: dict[tuple[str, str], list[PairedTest]] = {}
    for tests in per_seed:
        for test in tests:
            found.setdefault((test.test, test.what), []).append(test)
    return [SeedTests(*key, tuple(test.p_value for test in tests)) for key, tests in found.items()]


def main_test(tests: Sequence[SeedTests], task: str) -> SeedTests | None:
    """Returns the test that a table shows: McNemar's, for several labels the t-test on the Brier score."""
    wanted = "McNemar" if task == "multiclass" else "paired t-test"
    return next((test for test in tests if test.test == wanted), None)


def tests_or_none(split: SplitRecord, ours: Sequence[RunRecord], other: Sequence[RunRecord]) -> list[SeedTests] | None:
    """Returns `tests_of`; None where SciPy is not installed."""
    try:
        return tests_of(split, ours, other)
    except MissingExtraError:
        return None
