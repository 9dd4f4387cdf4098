"""`diffmiczoo fit`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from factories import SMALL_ENCODERS, TINY, run_command

from diffmiczoo.cli import main
from diffmiczoo.cli.common import Names, assignments
from diffmiczoo.errors import warn


def test_fit_and_predict(image_folder, tmp_path, weights) -> None:
    rows = [f"{p.relative_to(tmp_path)},{p.parent.name},{'val' if p.stem in '45' else 'train'}"
            for p in sorted(image_folder.glob("*/*.png"))]  # fmt: skip
    (tmp_path / "labels.csv").write_text("file,label,split\n" + "\n".join(rows) + "\n")
    fields = [f"--config={key}={json.dumps(value)}" for key, value in {**TINY, **SMALL_ENCODERS}.items()]
    recipe = [
        "dcg_epochs=3",
        "diffusion_epochs=4",
        "batch_size=4",
        "dcg_lr=0.01",
        "diffusion_lr=0.01",
        "precision=fp32",
    ]
    result = run_command(
        "fit", "--model", "diffmicv2_nano", "--train", tmp_path / "labels.csv", "--output", tmp_path / "run",
        *fields, *(f"--set={text}" for text in recipe),
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "weights:" in result.output and (tmp_path / "run" / "best" / "model.safetensors").is_file()
    report = json.loads((tmp_path / "run" / "report-val" / "report.json").read_text())
    saved = json.loads((tmp_path / "run" / "best" / "metrics.json").read_text())["val"]["model"]
    assert report["quality"]["model"]["values"] == pytest.approx(saved["values"]) and report["data"]["split"] == "val"
    assert list(report["training"]["stages"]) == ["global", "local", "diffusion"]
    result = run_command("predict", image_folder, "--model", f"local-dir:{tmp_path}/run/best", "--format", "csv")
    answers = {Path(row["name"]): row["label"] for row in csv.DictReader(io.StringIO(result.stdout))}
    assert all(label in ("dark", "light") for label in answers.values()) and len(answers) == 12
    result = run_command("fit", "--model", weights, "--pretrained", "--train", tmp_path / "labels.csv", "--output",
                 tmp_path / "tuned", "--no-report", *(f"--set={text}" for text in recipe))  # fmt: skip
    assert result.exit_code == 0 and not list((tmp_path / "tuned").glob("report*")), result.output


def test_fit_errors_are_one_line(image_folder, tmp_path) -> None:
    common = ["fit", "--train", image_folder, "--output", tmp_path / "run"]
    for arguments, message in [
        (["--model", "diffmicv2_nono"], "did you mean diffmicv2_nano"),
        (["--model", "diffmicv2_nano", "--set", "epochs=3"], "did you mean dcg_epochs"),
        (["--model", "diffmicv2_nano", "--set", "seed"], "expected FIELD=VALUE"),
        (["--model", "diffmicv2_nano", "--config", "latent=3"], "did you mean latent_dim"),
        (["--model", "diffmicv2_nano", "--set", "crop_mode=squash"], "give it as --config crop_mode=…"),
        (["--model", "diffmicv2_nano", "--config", "dcg_lr=1"], "give it as --set dcg_lr=…"),
        (["--model", "diffmicv2_resnet18", "--pretrained"], "has no published weights"),
    ]:
        result = run_command(*common, *arguments)
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)


def test_what_the_data_tell_is_not_set_by_hand(image_folder, tmp_path) -> None:
    result = run_command(
        "fit", "--model", "diffmicv2_nano", "--train", image_folder, "--output", tmp_path / "run", "--config", "task=x"
    )
    assert result.exit_code == 2 and "config field task comes from the data" in result.stderr


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a,b", ["a", "b"]),
        ("a, b c ", ["a", "b c"]),
        ('"light, or so",dark', ["light, or so", "dark"]),
        ("1=a,2=b", {1: "a", 2: "b"}),
        ("a=1,b=2", ["a=1", "b=2"]),
    ],
)
def test_names_joined_by_commas(text: str, names: object) -> None:
    assert Names().convert(text, None, None) == names


def test_names_and_some_of_the_classes_are_checked_before_training(image_folder, tmp_path) -> None:
    command = ["fit", "--model", "diffmicv2_nano", "--train", image_folder, "--output", tmp_path / "run"]
    for options, message in [
        (["--classes", "dark,green"], "has no ['green']; its classes are ['dark', 'light']"),
        (["--classes", "dark"], "needs at least two, not ['dark']"),
        (["--class-names", "dark,green"], "labels ['light'] are not among the classes ['dark', 'green']"),
        (["--class-names", "dark,dark"], "class_names repeats 'dark'"),
    ]:
        result = run_command(*command, *options)
        assert result.exit_code == 2 and message in result.stderr, result.output
    assert not (tmp_path / "run").exists()


def test_other_programs_words_are_understood(image_folder, tmp_path) -> None:
    common = ["fit", "--train", image_folder, "--output", tmp_path / "run", "--model", "diffmicv2_nano"]
    for given, meant in [
        ("epochs=3", "did you mean dcg_epochs, diffusion_epochs"),
        ("num_epochs=3", "did you mean dcg_epochs, diffusion_epochs"),
        ("learning_rate=1", "did you mean dcg_lr, diffusion_lr, encoder_lr"),
        ("workers=1", "did you mean num_workers"),
    ]:
        result = run_command(*common, "--set", given)
        assert result.exit_code == 2 and meant in result.stderr, result.output


def test_what_is_wrong_is_said_before_a_model_is_built(image_folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("diffmiczoo.training.prepare.create_model", lambda *_, **__: pytest.fail("built"))
    (tmp_path / "file").write_text("")
    model = ["--model", "diffmicv2_nano", "--train", image_folder]
    for arguments, message in [
        (["--output", tmp_path / "file" / "run"], "cannot be a directory"),
        (["--output", tmp_path / "run", "--set", "select=kappa"], "select"),
        (["--output", tmp_path / "run", "--set", "batch_size=64"], "do not fill one batch of 64"),
    ]:
        result = run_command("fit", *model, *arguments)
        assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr, result.output


def test_warnings_are_a_line_and_threads_are_set(weights, monkeypatch) -> None:
    import torch

    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(main.commands["info"], "callback", lambda **_: warn("a\nword"))
    warn_line = run_command("info", weights).stderr
    assert warn_line == "warning: a\nword\n"
    result = run_command("evaluate", "/no/such/data", "--model", "diffmicv2_nano", "--threads", "1")
    assert result.exit_code == 2 and counts == [1]


def test_none_is_a_value() -> None:
    assert assignments(("start_size=None", "tta=none", "seed=3")) == {"start_size": None, "tta": "none", "seed": 3}
