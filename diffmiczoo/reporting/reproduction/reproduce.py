"""`reproduce`: a table or figure of the paper from labelled images, by runs that go on where they were stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import check_directory
from diffmiczoo.reporting.reproduction.costs import cost_rows, measure_cost
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.planning import Target, find_target, rows_of, runs_of
from diffmiczoo.reporting.reproduction.sources import Source, sources_of
from diffmiczoo.reporting.reproduction.variants import BUDGETS, PROTOCOLS, Budget, Run
from diffmiczoo.reporting.reproduction.workspace import Say, Workspace
from diffmiczoo.reporting.reproduction.writing import write_target
from diffmiczoo.training.lock import exclusive


@dataclass(frozen=True)
class Plan:
    """What a table needs.

    Attributes:
        target: table or figure.
        budget: of its runs.
        sources: the data sets.
        protocols: of the splits.
        runs: all of them, in order.
        methods: keys of the rows; () for the budget's own.
    """

    target: Target
    budget: Budget
    sources: tuple[Source, ...]
    protocols: tuple[str, ...]
    runs: tuple[Run, ...]
    methods: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reproduction:
    """What `reproduce` returns; `print` says where it lies.

    Attributes:
        target: table or figure.
        files: what was written, the Markdown first.
        finished, wanted: runs.
        text: the Markdown.
    """

    target: Target
    files: tuple[Path, ...]
    finished: int
    wanted: int
    text: str

    def __str__(self) -> str:
        runs = f"{self.finished} of {self.wanted} runs finished; " if self.wanted else ""
        return f"{runs}{self.target.name} is in {', '.join(map(str, self.files))}"


def plan_reproduction(
    table: str,
    data: str | os.PathLike[str] | None,
    *,
    budget: str | Budget = "small",
    seeds: int = 3,
    methods: Sequence[str] = (),
    protocols: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> Plan:
    """Finds the data and lists all runs of a table; no picture is read. Arguments are those of `reproduce`.

    Raises:
        ValueError, FileNotFoundError: as `reproduce` does.
    """
    target, chosen = find_target(table), _budget(budget)
    unknown = [name for name in protocols if name not in PROTOCOLS]
    if unknown:
        raise InvalidValueError(f"protocol {unknown[0]!r} is not one of {', '.join(PROTOCOLS)}")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise InvalidValueError(f"seeds={seeds!r} must be a whole number of at least 1")
    rows_of(target, chosen, methods)
    if target.kind == "cost":
        return Plan(target, chosen, (), (), (), tuple(methods))
    if data is None:
        raise InvalidValueError(f"{target.name} needs labelled images; give the folder that they lie in (--data)")
    sources = tuple(sources_of(target, data, datasets))
    splits = tuple(name for name in PROTOCOLS if name in (tuple(protocols) or target.protocols))
    runs = runs_of(target, chosen, [source.dataset for source in sources], splits, seeds, methods)
    return Plan(target, chosen, sources, splits, tuple(runs), tuple(methods))


def _budget(budget: str | Budget) -> Budget:
    if isinstance(budget, Budget):
        return budget
    if budget not in BUDGETS:
        raise InvalidValueError(f"budget={budget!r} is not one of {', '.join(BUDGETS)}")
    return BUDGETS[budget]


def reproduce(
    table: str,
    data: str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] = "reproduction",
    *,
    budget: str | Budget = "small",
    seeds: int = 3,
    methods: Sequence[str] = (),
    protocols: Sequence[str] = (),
    datasets: Sequence[str] = (),
    jobs: int = 1,
    device: str = "cpu",
    tables_only: bool = False,
    progress: bool | None = None,
    say: Say | None = None,
) -> Reproduction:
    """Trains and tests what a table or figure of the paper needs, and writes it.

    Runs that `output` has finished are not done again, one that was killed goes on, and every finished run writes the
    table anew. `output` may hold several tables of one budget: they share the runs that are the same.

    Writes to `output`: `results.jsonl`, all that tables are made from; `TABLE.md`, `.csv` and `.json`, of figures
    `.png` too; `splits/`, which picture is in which split; `runs/`, the weights of each run.

    Args:
        table: "table1" to "table6" or "fig3" to "fig6", see `planning.TARGETS`.
        data: a folder of data sets, or one of them; table6 needs none.
        output: the directory, made if need be.
        budget: "small", "full", or one of one's own.
        seeds: runs of each row.
        methods: rows of a comparison, keys of `methods.METHODS`; by default those of the budget.
        protocols: "paper" and "grouped"; by default the table's.
        datasets: of the table's data sets, those to use; or names of other folders in `data`.
        jobs: runs at once.
        device: where models are trained.
        tables_only: make the table from what `output` has; nothing is trained.
        progress: show bars; by default where the standard error is a terminal.
        say: takes lines of progress; by default they go to the standard error.

    Raises:
        ValueError: a name is unknown, or `output` belongs to another budget, version or data.
        FileNotFoundError: the data are not there; the message says what was looked for and where.
        ImportError: matplotlib is not installed, for figures.
        KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    directory = Path(output)
    check_directory(directory)
    if jobs < 1:
        raise InvalidValueError(f"jobs={jobs} must be at least 1")
    plan = plan_reproduction(
        table, data, budget=budget, seeds=seeds, methods=methods, protocols=protocols, datasets=datasets
    )
    directory.mkdir(parents=True, exist_ok=True)
    # Another process may be training there while tables are looked at.
    with nullcontext() if tables_only else exclusive(directory):
        ledger = Ledger(directory)
        if tables_only and ledger.budget is None:
            raise InvalidValueError(f"{ledger.path} holds no runs; leave --tables-only out to do them")
        ledger.begin(plan.budget)
        space = Workspace(directory, ledger, device, jobs, progress, say or _to_stderr, {})
        if tables_only:
            _read_again(plan, space)
        else:
            _fill(plan, space)
        return _written(plan, space)


def _read_again(plan: Plan, space: Workspace) -> None:
    """Reads the pictures that figures show; nothing is added to what is recorded."""
    if plan.target.kind in ("maps", "embedding"):
        for source in plan.sources:
            if all((source.dataset, protocol) in space.ledger.splits for protocol in plan.protocols):
                space.take(source, plan.protocols, plan.budget.pictures)


def _fill(plan: Plan, space: Workspace) -> None:
    """Does what is missing."""
    for source in plan.sources:
        space.take(source, plan.protocols, plan.budget.pictures)
    if plan.target.kind == "cost":
        for variant, budget in cost_rows(rows_of(plan.target, plan.budget, plan.methods), plan.budget):
            if variant.key not in space.ledger.costs:
                space.say(f"{variant.title}: counting and timing")
                timed = budget == plan.budget
                space.ledger.add(measure_cost(variant, budget, space.device, timed))

    def after() -> None:
        if not plan.target.is_figure:
            _written(plan, space)

    space.execute(plan.runs, after)


def _written(plan: Plan, space: Workspace) -> Reproduction:
    files, text = write_target(plan.target, plan.budget, plan.runs, plan.methods, space)
    done = sum(run.id in space.ledger.runs for run in plan.runs)
    return Reproduction(plan.target, files, done, len(plan.runs), text)


def _to_stderr(line: str) -> None:
    if sys.stderr is not None:
        print(line, file=sys.stderr, flush=True)
