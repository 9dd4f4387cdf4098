"""Tables from a file of results that is written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from diffmiczoo.reporting.reproduction.comparison import comparison_document
from diffmiczoo.reporting.reproduction.cost_table import cost_document
from diffmiczoo.reporting.reproduction.costs import cost_rows
from diffmiczoo.reporting.reproduction.documents import Document
from diffmiczoo.reporting.reproduction.ledger import Ledger
from diffmiczoo.reporting.reproduction.methods import METHODS, OURS
from diffmiczoo.reporting.reproduction.planning import find_target, rows_of, runs_of
from diffmiczoo.reporting.reproduction.records import CostRecord, Leaks, RunRecord, SplitRecord
from diffmiczoo.reporting.reproduction.variants import SMALL, Run

COUNT = 20
LABELS = tuple(("light",) if row % 2 else ("dark",) for row in range(COUNT))


def split_record(protocol: str, either: int, digest: str = "d") -> SplitRecord:
    return SplitRecord(
        dataset="busi",
        stands_for="pmg2000",
        protocol=protocol,
        title="BUSI in place of PMG2000",
        rule="80:20",
        digest=digest,
        task="multiclass",
        ordinal=False,
        class_names=("dark", "light"),
        counts={"train": 60, "val": 20, "test": COUNT},
        leaks=Leaks(COUNT, 3, 2, either),
        names=tuple(f"{row}.png" for row in range(COUNT)),
        labels=LABELS,
        groups=tuple(f"c{row // 2}" for row in range(COUNT)),
    )


def run_record(run: Run, right: int) -> RunRecord:
    """A run with so many of the test pictures right, the first ones."""
    probs = [[0.9, 0.1] if (labels == ("dark",)) == (row < right) else [0.1, 0.9] for row, labels in enumerate(LABELS)]
    diffusion = run.variant == OURS
    return RunRecord(
        id=run.id, dataset=run.dataset, protocol=run.protocol, variant=run.variant, model=run.model, seed=run.seed,
        split="d", imagenet=run.variant != "plain", metrics={"accuracy": right / COUNT, "macro_f1": right / COUNT},
        pooled={"accuracy": 0.95, "macro_f1": 0.94} if diffusion else {}, probs=probs,
        curves={"diffusion": [[1, 0.5, 0.6], [2, 0.4, 0.7 + run.seed / 10]]}, select="auroc", parameters=1_500_000,
        epochs={"dcg": 1, "diffusion": 1}, seconds=1800.0, hardware="a computer", version="0", commit="abc",
    )  # fmt: skip


def runs(seeds: int = 3) -> list[Run]:
    return runs_of(find_target("table1"), SMALL, ["busi"], ["paper", "grouped"], seeds, ["plain", OURS])


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(tmp_path)
    found.begin(SMALL)
    found.add(split_record("paper", 4))
    found.add(replace(split_record("grouped", 0), whole=Leaks(100, None, 7, 9)))
    return found


@pytest.fixture
def table(ledger: Ledger) -> Callable[..., Document]:
    def make(runs: list[Run]) -> Document:
        return comparison_document(find_target("table1"), SMALL, runs, ["plain", OURS], ledger)

    return make


def test_means_deviations_tests_leaks_and_quotations(ledger: Ledger, table: Callable[..., Document]) -> None:
    for run in runs():
        ledger.add(run_record(run, (8 if run.variant == "plain" else 18) + run.seed))
    text = table(runs()).markdown()
    plain, ours, pooled = (line for line in text.splitlines() if line.startswith(("| EfficientNet", "| DiffMIC")))
    # 8, 9, 10 of 20: mean 0.45, sample standard deviation 0.05.
    assert "| 0.450 ± 0.050 | 0.450 ± 0.050 | 0.450 ± 0.050 |" in plain and "1.50 M | random" in plain
    assert "0.950 ± 0.050" in ours and "0.935 / 0.933" in ours and "pmg2000: accuracy / macro F1 (quoted)" in text
    assert "0.950 ± 0.000" in pooled and "priors" in pooled
    # Ten pictures are right in ours alone, none in the other alone: 2 · 0.5¹⁰ for each seed.
    p_value = 2 * 0.5**10
    assert f"| {p_value:.3f} | {p_value:.3f} |" in plain
    assert "**4 of 20 test pictures (20.0%) have a relative in training or validation**" in text
    assert "leak-free: 80:20; 60 train, 20 val, 20 test; none of 20 test pictures has a relative" in text
    assert "Of all pictures of the data set, split so: **9 of 100 test pictures (9.0%)" in text
    assert "12 of 12 runs are finished, 6.00 hours" in text and "a computer" in text and "commit abc" in text
    assert "over 3 seeds" in text and "Fewer than" not in text
    assert "Anything about PMG2000" in text and "start from random" in text and "McNemar" in text


def test_every_number_is_in_the_csv_and_every_p_in_the_json(ledger: Ledger, table: Callable[..., Document]) -> None:
    for run in runs():
        ledger.add(run_record(run, 10 if run.variant == "plain" else 18))
    document = table(runs())
    rows = document.csv().splitlines()
    assert "busi,paper,plain,EfficientNet-Lite0,accuracy,0.5,0.0,3,False" in rows
    assert f"pmg2000,,{OURS},DiffMIC-v2,accuracy,0.935,,0,True" in rows
    assert f"busi,grouped,{OURS}+pooled,DiffMIC-v2,macro_f1,0.94,0.0,3,False" in rows
    tests = json.loads(json.dumps(document.to_dict()))["tests"]
    assert {test["test"] for test in tests} == {"paired t-test", "McNemar", "DeLong"}
    assert all(len(test["p_of_seeds"]) == 3 and test["row"] == "plain" for test in tests)


def test_a_table_that_is_not_finished_says_so(ledger: Ledger, table: Callable[..., Document]) -> None:
    assert "No run is finished (12 are wanted)" in table(runs()).markdown()
    for run in runs()[:3]:
        ledger.add(run_record(run, 12))
    text = table(runs()).markdown()
    assert "3 of 12 runs are finished" in text and "It is not finished" in text
    assert "**Fewer than 3 seeds: a difference between rows may be chance.**" in text and "| – |" in text


def test_a_torn_line_is_forgotten_and_written_over(ledger: Ledger, tmp_path: Path) -> None:
    first, second, *_ = runs()
    ledger.add(run_record(first, 10))
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + b'{"kind": "run", "id": "half')
    again = Ledger(tmp_path)
    assert list(again.runs) == [first.id] and again.splits.keys() == ledger.splits.keys()
    again.add(run_record(second, 10))
    assert ledger.path.read_bytes().startswith(whole) and b"half" not in ledger.path.read_bytes()
    assert list(Ledger(tmp_path).runs) == [first.id, second.id]
    assert Ledger(tmp_path).runs[second.id] == run_record(second, 10)


def test_a_line_that_is_no_record_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger.path.write_bytes(ledger.path.read_bytes() + b'{"kind": "run"}\n')
    with pytest.raises(ValueError, match=r"results.jsonl, line 4: no record"):
        Ledger(tmp_path)


def test_other_budgets_versions_and_data_are_not_mixed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"made with pictures=300, asked for is 80; take another --output"):
        ledger.begin(replace(SMALL, pictures=80))
    with pytest.raises(ValueError, match="other pictures, labels or splits of busi"):
        ledger.add(split_record("paper", 4, digest="other"))
    ledger.version = "0.0.1"
    with pytest.raises(ValueError, match=r"made by version 0\.0\.1"):
        ledger.begin(SMALL)


def test_costs_are_counted_and_quoted(ledger: Ledger) -> None:
    target = find_target("table6")
    rows = cost_rows(rows_of(target, SMALL, ["ldam", OURS]), SMALL)
    assert [variant.key for variant, _ in rows] == [OURS, "gmic-paper", "diffmic_v1-paper", f"{OURS}-paper"]
    stages = dict.fromkeys(("condition", "unet", "total"), 1500000000)
    ledger.add(CostRecord(OURS, METHODS[OURS].title, "m", 64, 2_000_000, stages, 10, 0.0123, 5, "a computer", "0"))
    ledger.add(CostRecord(f"{OURS}-paper", "big", "m", 224, 150_000_000, stages, 10, None, 0, "", "0"))
    text = cost_document(target, SMALL, ["ldam", OURS], ledger).markdown()
    assert "| DiffMIC-v2 | 64 | 2.00 M | 1.500 | 1,500.00 | 10 | 1.500 | 12 |" in text
    assert "| big | 224 | 150.00 M | 1.500 | 1,500.00 | 10 | 1.500 | – |" in text
    assert "7.65 GMAC in each of 10 steps" in text and "quoted" in text
