"""Options on columns, and the lines that tell what was read; a stand-in takes the place of training and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import run_command

import diffmiczoo
from diffmiczoo.cli import common
from diffmiczoo.cli.predict import image_files
from diffmiczoo.data.rows import SPREADSHEETS, TABLE_EXTENSIONS


@pytest.fixture
def table(tmp_path) -> Path:
    for number in range(12):
        (tmp_path / f"img{number}.png").touch()
    rows = [f"img{n},{'ab'[n % 2]},{('in', 'in', 'out')[n % 3]},{n // 3},x" for n in range(12)]
    (tmp_path / "t.csv").write_text("pic,kind,Part,who,note\n" + "\n".join(rows) + "\n\n")
    return tmp_path / "t.csv"


COLUMNS = ["--file-column", "pic", "--split-column", "Part", "--map-split", "in=train", "--map-split", "out=test"]
LABELLED = [*COLUMNS, "--label-column", "kind", "--group-column", "who"]


def test_fit_tells_what_it_trains_on_before_it_starts(table, tmp_path, monkeypatch) -> None:
    reached: dict[str, Any] = {}

    def stand_in(model: Any, plan: Any, **options: Any) -> None:
        reached["plan"] = plan
        raise KeyboardInterrupt

    monkeypatch.setattr(diffmiczoo, "fit", stand_in, raising=False)
    small = ["--config", "image_size=64", "--set", "batch_size=2", "--output", tmp_path / "run"]
    result = run_command("fit", "--model", "diffmicv2_nano", "--train", table, *LABELLED, *small)
    assert result.stderr.splitlines()[:8] == [
        "t: 12 images, 2 classes, multiclass",
        *(line for line in result.stderr.splitlines() if line.startswith(("  train ", "  val ", "  test "))),
        "no image had split val: took 12% of train, stratified; groups stay together",
        "columns used: pic as file, who as group, Part as split, kind as label",
        "columns not used: note",
        "12 files are found by an id without extension, first img0 → " + str(tmp_path / "img0.png"),
    ]
    assert {record.split for record in reached["plan"].whole.records} == {"train", "val", "test"}
    result = run_command("fit", "--model", "diffmicv2_nano", "--train", table, "--map-split", "in", *small)
    assert result.exit_code == 2 and "expected WORD=SPLIT, such as holdout=test" in result.stderr


def test_predict_tells_which_rows_it_takes(table, capsys) -> None:
    from diffmiczoo.data.columns import ColumnChoice

    choice = ColumnChoice("pic", (), None, "Part", {"in": "train", "out": "test"})
    files = image_files((str(table),), "test", choice)
    assert [Path(file).name for file in files] == ["img2.png", "img5.png", "img8.png", "img11.png"]
    said = capsys.readouterr().err
    assert "column pic is used as file" in said and "12 rows: 4 read, 8 left out" in said
    with pytest.raises(ValueError, match="--file-column, --split-column and --map-split need a table"):
        image_files((str(table.parent),), None, choice)


def test_evaluate_takes_the_same_options(table, weights) -> None:
    result = run_command("evaluate", table, "--model", weights, *LABELLED)
    assert result.exit_code == 2 and "['a', 'b']" in result.stderr and "'dark', 'light'" in result.stderr


def test_endings_of_tables_are_those_that_are_read() -> None:
    assert (*TABLE_EXTENSIONS, *SPREADSHEETS) == common.TABLES
