"""One table and its figures from pictures to files: stopped, gone on with, made again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from factories import SMALL_ENCODERS, TINY, run_command, write_manifest

from diffmiczoo.reporting.reproduction.methods import OURS
from diffmiczoo.reporting.reproduction.reproduce import reproduce
from diffmiczoo.reporting.reproduction.variants import Budget
from diffmiczoo.training.fit import fit

SIZES = {name: value for name, value in TINY.items() if name != "image_size"} | {"roi_size": 16}
BUDGET = Budget(
    "small",
    architecture="diffmicv2_nano",
    pictures=36,
    epochs=(1, 1),
    image_size=32,
    config={**SIZES, **SMALL_ENCODERS},
    recipe={"batch_size": 8, "precision": "fp32"},
    start="packaged",
)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Two rows of table 2, killed once in the middle of the second run."""
    data, output = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out")
    (data / "ham10000").mkdir()
    write_manifest(data / "ham10000")
    options = {"budget": BUDGET, "seeds": 1, "methods": ["plain", OURS], "protocols": ["paper"], "progress": False}
    lines: list[str] = []
    trained: list[int] = []

    def stopped(model, train, **arguments):
        trained.append(1)
        if len(trained) == 2:
            callback = arguments["callbacks"][0]
            callback.on_step = lambda stage, epoch, batch: _kill(stage)
        return fit(model, train, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffmiczoo.reporting.reproduction.execution.fit", stopped)
        with pytest.raises(KeyboardInterrupt):
            reproduce("table2", data, output, say=lines.append, **options)
    first = (output / "results.jsonl").read_text()
    result = reproduce("table2", data, output, say=lines.append, **options)
    return SimpleNamespace(data=data, output=output, options=options, lines=lines, first=first, result=result)


def _kill(stage: str) -> None:
    if stage == "diffusion":
        raise KeyboardInterrupt


def test_a_killed_run_goes_on_and_finished_ones_stay(done: SimpleNamespace) -> None:
    kinds = [json.loads(line)["kind"] for line in done.first.splitlines()]
    assert kinds == ["plan", "split", "run"]
    text = (done.output / "results.jsonl").read_text()
    assert text.startswith(done.first) and text.count('"kind": "run"') == 2
    assert sum("going on" in line for line in done.lines) == 1 and (done.result.finished, done.result.wanted) == (2, 2)
    run = json.loads(text.splitlines()[-1])
    # The DCG's epoch of the first start is still there, once.
    assert {stage: len(rows) for stage, rows in run["curves"].items()} == {"dcg": 1, "diffusion": 1}
    assert run["pooled"] and len(run["probs"]) == 10 and run["seconds"] > 0
    assert not list(done.output.glob("runs/*/checkpoint.pt"))
    kept = {path.name for run in done.output.glob("runs/*") for path in run.iterdir() if path.is_dir()}
    assert (
        kept <= {"best", "last"} and (done.output / "runs" / run["id"] / run["tested"] / "model.safetensors").is_file()
    )


def test_the_table_and_the_lists_are_there(done: SimpleNamespace) -> None:
    text = done.result.text
    assert (done.output / "table2.md").read_text() == text
    assert "| DiffMIC-v2 |" in text and "| test_resnet |" in text and "0.909 / 0.839" in text
    lists = (done.output / "splits" / "ham10000-paper.csv").read_text().splitlines()
    assert lists[0] == "file,label,split,group" and len(lists) == 37
    assert sum(",test," in line for line in lists) == 10 and not any(line.startswith("/") for line in lists[1:])


def test_tables_are_made_again_without_training_or_pictures(done: SimpleNamespace) -> None:
    before = (done.output / "results.jsonl").read_bytes()
    (done.output / "table2.md").unlink()
    again = reproduce("table2", done.data, done.output, tables_only=True, **done.options)
    assert again.text == done.result.text and (done.output / "results.jsonl").read_bytes() == before


def test_figures_are_drawn_from_the_runs_that_are_there(done: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib")
    options = {**done.options, "methods": (), "tables_only": True, "datasets": ["ham10000"], "say": lambda line: None}
    for name, wanted in (("fig3", 2), ("fig5", 1), ("fig6", 1), ("fig4", 1)):
        made = reproduce(name, done.data, done.output, **options)
        drawn = [path for path in made.files if path.suffix == ".png"]
        assert len(drawn) == wanted and all(path.stat().st_size > 5000 for path in drawn), name
        assert all(f"]({path.name})" in made.text for path in drawn)
    assert "Fewer than 3 seeds" in made.text and "10" in made.text


def test_the_command_lists_and_refuses(done: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffmiczoo.reporting.reproduction.dry_run._seconds", lambda *given: 600.0)
    listed = run_command("reproduce", "table2", "--data", done.data, "--output", tmp_path / "x", "--dry-run")
    assert listed.exit_code == 0 and "36 of 36 runs to do, about 6.0 hours" in listed.output
    refused = run_command("reproduce", "table2", "--data", done.data, "--output", done.output, "--tables-only")
    assert refused.exit_code == 2 and "asked for is" in refused.output
    empty = run_command("reproduce", "table2", "--data", done.data, "--output", tmp_path / "x", "--tables-only")
    assert empty.exit_code == 2 and "holds no runs" in empty.output
