"""`predict --output`: answers come batch by batch, and an interrupted file goes on without loss or repetition."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from factories import tiny_model
from PIL import Image
from processes import ForkedProcess, command_line

from diffmiczoo.cli import main


@pytest.fixture
def weights(tmp_path) -> str:
    model = tiny_model(class_names=("dark", "light, or so"))
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    return f"local-dir:{tmp_path}/weights"


@pytest.fixture
def pictures(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(30):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    return tmp_path / "pictures"


def run(*arguments) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def rows_of(path: Path) -> dict[str, list[float]]:
    """Returns name → numbers; fails where a name comes twice."""
    if path.suffix == ".csv":
        found = [(row[0], [float(value) for value in row[2:]]) for row in list(csv.reader(path.open()))[1:]]
    else:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        found = [(record["name"], [record["uncertainty"], *record["probs"].values()]) for record in records]
    assert len(dict(found)) == len(found)
    return dict(found)


@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_the_file_holds_what_the_screen_shows(weights, pictures, tmp_path, style: str) -> None:
    common = ["predict", pictures, "--model", weights, "--format", style, "--batch-size", "7"]
    code, shown, _ = run(*common)
    assert code == 0
    assert run(*common, "--output", tmp_path / f"out.{style}")[0] == 0
    written = (tmp_path / f"out.{style}").read_text()
    if style == "csv":
        assert written == shown
    assert len(rows_of(tmp_path / f"out.{style}")) == 30


@pytest.mark.parametrize("style", ["csv", "jsonl"])
def test_a_cut_file_goes_on(weights, pictures, tmp_path, style: str) -> None:
    output = tmp_path / f"out.{style}"
    common = ["predict", pictures, "--model", weights, "--format", style, "--batch-size", "7", "--output", output]
    run(*common)
    whole = rows_of(output)
    content = output.read_bytes()
    for length in (0, 3, len(content) // 3, len(content) - 5, len(content)):
        output.write_bytes(content[:length])
        code, _, said = run(*common, "--resume")
        assert code == 0 and (length < 200 or "images already" in said)
        again = rows_of(output)
        assert again.keys() == whole.keys()
        for name, values in whole.items():
            assert again[name] == pytest.approx(values, abs=2e-6)


def test_killed_in_the_middle_nothing_is_lost_or_repeated(weights, pictures, tmp_path) -> None:
    output = tmp_path / "out.csv"
    command = ["predict", pictures, "--model", weights, "--format", "csv", "--batch-size", "1", "--output", output]
    partial = tmp_path / "out.csv.partial"
    process = ForkedProcess(command_line, *map(str, command))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not partial.exists() or partial.read_bytes().count(b"\n") < 5):
        time.sleep(0.002)
    process.kill()
    process.wait()
    begun = partial.read_bytes().count(b"\n") - 1
    assert 0 < begun < 30 and not output.exists(), "the kill came too late"
    assert run(*command, "--resume")[0] == 0
    assert len(rows_of(output)) == 30 and not partial.exists()


def test_unreadable_files_are_named_and_tried_again(weights, pictures, tmp_path) -> None:
    good = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(b"no picture")
    output = tmp_path / "out.csv"
    common = ["predict", pictures, "--model", weights, "--format", "csv", "--batch-size", "1", "--output", output]
    code, _, said = run(*common)
    assert code == 1 and "skipped" in said and "3.png" in said and len(rows_of(output)) == 29
    (pictures / "3.png").write_bytes(good)
    assert run(*common, "--resume")[0] == 0 and len(rows_of(output)) == 30


def test_a_file_of_another_model_is_left_alone(weights, pictures, tmp_path) -> None:
    output = tmp_path / "out.csv"
    output.write_text("name,label,uncertainty,prob_cat,prob_dog\na.png,cat,0.1,0.9,0.1\n")
    code, _, said = run("predict", pictures, "--model", weights, "--format", "csv", "--output", output, "--resume")
    assert code == 2 and "holds no predictions of this model" in said and "cat" in output.read_text()
    code, _, said = run("predict", pictures, "--model", weights, "--resume")
    assert code == 2 and "--resume needs --output" in said


def test_nothing_that_can_be_read_leaves_no_file(weights, tmp_path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    output = tmp_path / "out.csv"
    code, _, said = run("predict", tmp_path / "bad", "--model", weights, "--format", "csv", "--output", output)
    assert code == 2 and "none could be read" in said and not output.exists()
