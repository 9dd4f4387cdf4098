"""`diffmiczoo predict`."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from factories import run_command
from PIL import Image

import diffmiczoo


def test_predict_formats_agree(weights, image_folder) -> None:
    expected = diffmiczoo.create_model(weights, pretrained=True).predict(image_folder)
    rows = list(
        csv.DictReader(io.StringIO(run_command("predict", image_folder, "--model", weights, "--format", "csv").stdout))
    )
    assert [row["name"] for row in rows] == expected.names and [row["label"] for row in rows] == expected.labels
    probs = np.array([[float(row["prob_dark"]), float(row["prob_light"])] for row in rows])
    np.testing.assert_allclose(probs, expected.probs.numpy(), atol=2e-6)
    answer = json.loads(run_command("predict", image_folder, "--model", weights, "--format", "json").stdout)
    assert [image["name"] for image in answer["images"]] == expected.names
    table = run_command("predict", image_folder, "--model", weights).stdout.splitlines()
    assert len(table) == len(expected) + 1 and table[0].split() == ["image", "uncertainty", "prediction"]


def test_predict_takes_files_patterns_and_manifests(weights, image_folder, tmp_path) -> None:
    files = sorted(image_folder.glob("dark/*.png"))
    for arguments in ([*files], [f"{image_folder}/dark/*.png"], [image_folder / "dark"]):
        result = run_command("predict", *arguments, "--model", weights, "--format", "csv")
        assert result.exit_code == 0 and len(result.stdout.splitlines()) == len(files) + 1
    lines = [f"pictures/dark/{path.name},dark,{'test' if n else 'train'}" for n, path in enumerate(files)]
    (tmp_path / "list.csv").write_text("file,label,split\n" + "\n".join(lines) + "\npictures/light/0.png,light,train\n")
    result = run_command("predict", tmp_path / "list.csv", "--split", "test", "--model", weights, "--format", "csv")
    assert len(result.stdout.splitlines()) == len(files)
    result = run_command("predict", f"{image_folder}/*.tif", "--model", weights)
    assert result.exit_code == 2 and "no file matches this pattern" in result.stderr


def test_predict_reports_what_it_skips(weights, image_folder) -> None:
    (image_folder / "dark" / "broken.png").write_bytes(b"nothing")
    result = run_command("predict", image_folder, "--model", weights, "--format", "csv")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 13
    assert "skipped" in result.stderr and "broken.png" in result.stderr
    result = run_command("predict", image_folder, "--model", weights, "--on-error", "raise")
    assert result.exit_code == 2 and "broken.png" in result.stderr and result.stdout == ""


def test_predict_writes_files_and_overlays(weights, image_folder, tmp_path) -> None:
    Image.open(image_folder / "dark" / "1.png").save(image_folder / "light" / "1.png")
    result = run_command(
        "predict", image_folder, "--model", weights, "--output", tmp_path / "answers.csv", "--format", "csv",
        "--overlay", tmp_path / "overlays",
    )  # fmt: skip
    assert result.exit_code == 0 and result.stdout == ""
    assert len((tmp_path / "answers.csv").read_text().splitlines()) == 14
    overlays = sorted((tmp_path / "overlays").iterdir())
    assert len(overlays) == 13 and {"1.png", "1-2.png"} <= {path.name for path in overlays}
    assert all(np.asarray(Image.open(path)).std() > 10 for path in overlays)


def test_predict_errors_are_one_line(image_folder, tmp_path) -> None:
    for arguments, message in [
        (["--model", "diffmicv2_resnet18"], "has no published weights"),
        (["--model", f"local-dir:{tmp_path}/nowhere"], "is not a directory"),
    ]:
        result = run_command("predict", image_folder, *arguments)
        assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1


def test_a_list_of_files_needs_no_labels(weights, image_folder, tmp_path) -> None:
    files = sorted(image_folder.rglob("*.png"))
    lines = [f"{file},{'test' if index < 2 else 'train'}" for index, file in enumerate(files[:5])]
    (tmp_path / "files.csv").write_text("file,split\n" + "\n".join(lines) + "\n")
    whole = run_command("predict", tmp_path / "files.csv", "--model", weights, "--format", "csv")
    assert len(whole.stdout.splitlines()) == 6
    part = run_command("predict", tmp_path / "files.csv", "--split", "test", "--model", weights, "--format", "csv")
    assert len(part.stdout.splitlines()) == 3
    (tmp_path / "none.csv").write_text("picture\na.png\n")
    result = run_command("predict", tmp_path / "none.csv", "--model", weights)
    assert result.exit_code == 2 and "has no column file; found ['picture']" in result.stderr


def test_a_split_of_a_folder_is_not_ignored(weights, image_folder) -> None:
    result = run_command("predict", image_folder, "--split", "test", "--model", weights)
    assert result.exit_code == 2 and "--split test needs a CSV with a column split" in result.stderr


def test_output_is_checked_before_and_replaced_whole(weights, image_folder, tmp_path) -> None:
    result = run_command("predict", image_folder, "--model", weights, "--output", tmp_path / "nowhere" / "out.csv")
    assert result.exit_code == 2 and "nowhere is not a directory; --output needs one" in result.stderr
    strange = image_folder / "dark" / "bad\udcff.png"
    try:
        strange.write_bytes(next(image_folder.rglob("*.png")).read_bytes())
    except (OSError, UnicodeEncodeError):
        pytest.skip("this file system takes UTF-8 names only")
    for style in ("csv", "table", "json"):
        target = tmp_path / f"out.{style}"
        result = run_command("predict", image_folder, "--model", weights, "--output", target, "--format", style)
        assert result.exit_code == 0, result.stderr
        assert len(target.read_bytes().splitlines()) >= 13
    assert b"bad\xff.png" in (tmp_path / "out.csv").read_bytes()
    assert run_command("predict", image_folder, "--model", weights).exit_code == 0


def test_half_precision_on_the_command_line(weights, image_folder) -> None:
    result = run_command("predict", image_folder, "--model", weights, "--precision", "bf16", "--format", "csv")
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 13
