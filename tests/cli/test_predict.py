"""`diffmiczoo predict`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from factories import animal_prediction, run_command, small_model, tiny_model, write_images
from PIL import Image

import diffmiczoo
from diffmiczoo.cli.group import CommandGroup
from diffmiczoo.cli.output import echo_prediction, note
from diffmiczoo.cli.predict import format_of
from diffmiczoo.cli.shards import Shard
from diffmiczoo.images.items import Item


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


def test_shards_hold_each_image_once_whatever_else_is_there(weights, image_folder, tmp_path) -> None:
    whole = [f"scan {number}.png" for number in range(1000)]
    shards = [Shard.parse(f"{number}/7") for number in range(1, 8)]
    parts = [[item.name for item in shard.of([Item(name, name) for name in whole])] for shard in shards]
    assert sorted(name for part in parts for name in part) == sorted(whole) and min(map(len, parts)) > 100
    some = [item.name for item in shards[2].of([Item(name, name) for name in whole[::2]])]
    assert some == [name for name in whole[::2] if name in parts[2]]
    rows = []
    for number in (1, 2):
        result = run_command(
            "predict",
            image_folder,
            "--model",
            weights,
            "--shard",
            f"{number}/2",
            "--output",
            tmp_path / f"{number}.csv",
        )
        assert result.exit_code == 0 and f"shard {number}/2: " in result.stderr
        rows += [row["name"] for row in csv.DictReader((tmp_path / f"{number}.csv").open())]
    assert sorted(rows) == sorted(diffmiczoo.create_model(weights, pretrained=True).predict(image_folder).names)


def test_a_folder_is_never_listed_whole_where_predictions_are_written_one_by_one(
    weights, image_folder, tmp_path, monkeypatch
) -> None:
    expected = diffmiczoo.create_model(weights, pretrained=True).predict(image_folder).names
    monkeypatch.setattr("diffmiczoo.images.items.scan_folder", None)
    common = ("predict", image_folder, "--model", weights, "--output", tmp_path / "out.csv", "--resume")
    half = run_command(*common, "--shard", "1/2")
    kept = [row["name"] for row in csv.DictReader((tmp_path / "out.csv").open())]
    assert half.exit_code == 0 and kept == [name for name in expected if name in kept] and 0 < len(kept) < 12
    for path in image_folder.rglob("*.png"):
        os.utime(path, (0, 0))
    os.utime(kept[1])
    whole = run_command(*common)
    assert f"has {len(kept)} of 12 images already" in whole.stderr
    assert f"1 of them have changed since, first {kept[1]}" in whole.stderr
    rows = [row["name"] for row in csv.DictReader((tmp_path / "out.csv").open())]
    assert rows == [*kept, *(name for name in expected if name not in kept)]
    again = run_command(*common, "--shard", "1/2")
    assert f"also has {12 - len(kept)} images that are not among these" in again.stderr


def test_a_shard_without_images_is_no_error(weights, image_folder) -> None:
    file = next(image_folder.glob("dark/*.png"))
    codes = [run_command("predict", file, "--model", weights, "--shard", f"{part}/2") for part in (1, 2)]
    assert [code.exit_code for code in codes] == [0, 0]
    said = [code.stderr.splitlines()[0] for code in codes]
    assert sorted(line.partition(": ")[2] for line in said) == ["0 of 1 images", "1 of 1 images"]


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    result = run_command("predict", "x.png", "--shard", text)
    assert result.exit_code == 2 and f"'{text}' is no shard; expected I/N" in result.stderr


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


# ---------------------------------------------------------------------- what is written, and when it is refused


@pytest.fixture
def few(tmp_path):
    """Two pictures, in a folder of their own."""
    rng = np.random.default_rng(0)
    (tmp_path / "few").mkdir()
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(tmp_path / "few" / f"{name}.png")
    return tmp_path / "few"


@pytest.fixture
def no_model(monkeypatch) -> None:
    """What is refused has to be refused before a model is built."""
    monkeypatch.setattr(diffmiczoo, "create_model", lambda *_, **__: pytest.fail("a model was built"))


@pytest.mark.parametrize(
    ("name", "style"),
    [("a.csv", "csv"), ("a.CSV", "csv"), ("a.jsonl", "jsonl"), ("a.json", "json"), ("a.txt", "table"), (None, "table")],
)
def test_a_file_is_written_as_it_is_called(name: str | None, style: str) -> None:
    assert format_of(None if name is None else Path(name)) == style


def test_what_would_write_over_what_is_read_is_refused_before(few, no_model, tmp_path) -> None:
    (few / "list.csv").write_text("file\na.png\nb.png\n")
    (few / "link.csv").symlink_to("list.csv")
    before = {path.name: path.read_bytes() for path in few.iterdir()}
    for arguments, message in [
        ([few / "a.png", "--output", few / "a.png"], "would replace"),
        ([few, "--format", "csv", "--output", few / "b.png"], "would replace"),
        ([few / "list.csv", "--format", "csv", "--output", few / "list.csv"], "would replace"),
        ([few / "list.csv", "--format", "csv", "--output", few / "link.csv"], "would replace"),
        ([few, "--overlay", few], "would replace"),
        ([few / "list.csv", "--overlay", few / ".." / "few"], "would replace"),
        ([few, "--overlay", few / "a.png" / "overlays"], "cannot be a directory"),
        ([few, "--output", few], "is a directory"),
        ([few, "--output", few / "a.png" / "out.csv"], "is not a directory; --output needs one"),
        ([few, "--output", tmp_path / "out", "--resume"], "--resume needs --output FILE with --format csv or jsonl"),
        ([few, "--output", "/dev/null", "--resume", "--format", "csv"], "--resume needs"),
        ([few / "c.png"], "none could be read: no such file: "),
        ([few / "c.png", few / "d.png", "--output", few / "list.csv", "--format", "csv"], "no such file"),
    ]:
        result = run_command("predict", *arguments, "--model", "m")
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.stderr)
        # Beside it only what the folder holds besides, which is said of each folder.
        assert len([line for line in result.stderr.splitlines() if "are no images and passed over" not in line]) == 1
    assert {path.name: path.read_bytes() for path in few.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["evaluate", "few", "--model", "m", "--predictions", "nowhere/a.csv"],
            "nowhere is not a directory; --predictions",
        ),
        (["evaluate", "few", "--model", "m", "--dcg-predictions", "nowhere/a.csv"], "--dcg-predictions needs one"),
        (["evaluate", "few", "--model", "local-dir:lost", "--save"], "lost is not a directory; --save needs one"),
        (["convert", "few/a.png", "--output", "few/a.png/model"], "few/a.png/model cannot be a directory: "),
    ],
)
def test_other_commands_check_what_they_write_before(few, no_model, monkeypatch, arguments, message: str) -> None:
    monkeypatch.chdir(few.parent)
    result = run_command(*arguments)
    assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr


def test_missing_files_are_told_before_and_the_others_predicted(weights, few) -> None:
    result = run_command("predict", few / "a.png", few / "typo.png", "--model", weights, "--format", "csv")
    assert result.exit_code == 1 and len(result.stdout.splitlines()) == 2
    first, last = result.stderr.splitlines()
    assert "1 of 2 files do not exist, first" in first and last.startswith("skipped ")


def test_the_model_may_stand_in_the_environment_and_the_output_be_the_screen(weights, few, monkeypatch) -> None:
    monkeypatch.setenv("DIFFMICZOO_MODEL", weights)
    monkeypatch.chdir(few)
    result = run_command("predict", few, "--format", "csv", "--output", "-")
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 3
    assert {path.name for path in few.iterdir()} == {"a.png", "b.png"}


@pytest.mark.parametrize("charset", ["latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize("style", ["table", "csv", "jsonl", "json"])
def test_a_screen_that_cannot_show_a_name_costs_no_predictions(charset: str, style: str) -> None:
    """A Latin-1 terminal, and a name that no encoding has; another program gets the bytes that a file gets."""
    names = ["ß…→.png", "bad\udcff.png", "c.png", "d.png"]
    prediction = dataclasses.replace(animal_prediction(), names=names)

    @click.group(cls=CommandGroup)
    def group() -> None: ...

    @group.command()
    def show() -> None:
        echo_prediction(prediction, style, None)
        note(f"skipped {names[0]} and {names[1]}")

    shown = CliRunner(charset=charset).invoke(group, ["show"])
    assert shown.exit_code == 0, shown.exception
    assert shown.stdout_bytes.count(b".png") >= 4 and shown.stderr_bytes.startswith(b"skipped ")
    if style == "csv":
        assert shown.stdout_bytes == prediction.to_csv().encode("utf-8", "surrogateescape")


def test_nobody_who_reads_the_messages_is_no_reason_to_stop(weights, few, tmp_path, monkeypatch) -> None:
    """`diffmiczoo predict … --output out.csv 2>&1 | head -1`."""
    own = click.echo

    def closed(message=None, err=False, **options) -> None:
        if err:
            raise BrokenPipeError(32, "Broken pipe")
        own(message, err=err, **options)

    monkeypatch.setattr(click, "echo", closed)
    arguments = [
        "predict",
        few,
        few / "typo.png",
        "--model",
        weights,
        "--format",
        "csv",
        "--output",
        tmp_path / "o.csv",
    ]
    assert run_command(*arguments).exit_code == 1
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 3


def test_where_a_whole_file_cannot_be_written_the_prediction_is_elsewhere(weights, few, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if not os.path.exists("/dev/full"):
        pytest.skip("no device that is full here")
    result = run_command("predict", few, "--model", weights, "--format", "json", "--output", "/dev/full")
    assert result.exit_code == 2 and "/dev/full: No space left on device; the prediction is in" in result.stderr
    (found,) = tmp_path.glob("diffmiczoo-*/full")
    assert len(json.loads(found.read_text())["images"]) == 2


def test_the_table_shows_labels_by_their_thresholds(few, tmp_path) -> None:
    model = tiny_model(class_names=("effusion", "mass"), task="multilabel", thresholds=(0.999, 0.999))
    model.trained = True
    model.save_pretrained(tmp_path / "many")
    header, *rows = run_command("predict", few, "--model", f"local-dir:{tmp_path}/many").stdout.splitlines()
    assert header.endswith("prediction (labels by their thresholds: effusion 0.999, mass 0.999)")
    assert len(rows) == 2 and all("no finding above its threshold (highest: " in row for row in rows)
    line = run_command("predict", few, "--model", f"local-dir:{tmp_path}/many", "--format", "jsonl").stdout.split("\n")[
        0
    ]
    assert json.loads(line)["labels"] == [] and json.loads(line)["thresholds"] == {"effusion": 0.999, "mass": 0.999}


def test_addresses_are_neither_patterns_nor_missing_files(tmp_path: Path) -> None:
    write_images(tmp_path, ["1.png", "2.png"])
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        archive.write(tmp_path / "1.png", "in/1.png")
    small_model(trained=True).save_pretrained(tmp_path / "weights")
    inside, file = f"zip://in/*.png::{tmp_path}/scans.zip", (tmp_path / "2.png").as_uri()
    result = run_command("predict", inside, file, "--model", f"local-dir:{tmp_path}/weights", "--format", "csv")
    names = [line.split(",")[0] for line in result.stdout.splitlines()[1:]]
    assert names == [inside.replace("*", "1"), str(tmp_path / "2.png")] and result.exit_code == 0
