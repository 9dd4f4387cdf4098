"""`diffmiczoo evaluate` and `diffmiczoo compare`."""

from __future__ import annotations

import json

import numpy as np
from click.testing import CliRunner

from diffmiczoo.cli import main
from diffmiczoo.evaluation.results import LabelledPredictions


def test_the_commands_evaluate_and_compare(run_directory, manifest_csv, tmp_path) -> None:
    runner = CliRunner()
    command = ["evaluate", str(manifest_csv), "--model", f"local-dir:{run_directory}/best", "--bootstrap", "50"]
    files = ["--predictions", str(tmp_path / "m.csv"), "--dcg-predictions", str(tmp_path / "d.csv")]
    result = runner.invoke(main, [*command, *files, "--save"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for part in ("its DCG alone", "model - DCG: accuracy", "light"):
        assert part in result.output
    saved = json.loads((run_directory / "best" / "metrics.json").read_text())
    assert saved.keys() == {"val", "test"} and saved["test"].keys() == {"model", "dcg", "difference"}
    table = LabelledPredictions.load(tmp_path / "m.csv")
    assert len(table.names) == 8 and table.groups is not None
    assert saved["test"]["model"]["values"]["accuracy"] == table.metrics(0).values["accuracy"]
    result = runner.invoke(main, [*command, "--split", "val", "--format", "json"], catch_exceptions=False)
    assert json.loads(result.stdout)["model"]["num_images"] == 8
    result = runner.invoke(main, ["compare", str(tmp_path / "m.csv"), str(tmp_path / "d.csv")], catch_exceptions=False)
    assert result.exit_code == 0 and "| McNemar | accuracy |" in result.output
    result = runner.invoke(main, ["compare", str(tmp_path / "m.csv"), str(manifest_csv)])
    assert result.exit_code == 2 and "needs the columns name, target and prob_<class>" in result.output
    result = runner.invoke(main, ["evaluate", str(manifest_csv), "--model", "diffmicv2_ham10000", "--save"])
    assert result.exit_code == 2 and "--save needs the weights of a local-dir:" in result.output


def test_the_command_shows_subgroups_and_robustness_and_saves_them(run_directory, manifest_csv, monkeypatch) -> None:
    monkeypatch.setattr("diffmiczoo.evaluation.robustness.SEVERITIES", (3,))
    command = ["evaluate", str(manifest_csv), "--model", f"local-dir:{run_directory}/best", "--bootstrap", "0"]
    options = ["--by", "label", "--by", "SPLIT", "--robustness", "--save"]
    result = CliRunner().invoke(main, [*command, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    for part in ("dark 4 4 1 too few", "test 8 4 2 too few", "corruption severity", "blur 3", "colour_cast 3"):
        assert any(line[: len(part.split())] == part.split() for line in lines), part
    saved = json.loads((run_directory / "best" / "metrics.json").read_text())["test"]
    assert [table["column"] for table in saved["subgroups"]] == ["label", "split"]
    assert len(saved["robustness"]["rows"]) == 8
    assert saved["robustness"]["clean"]["values"]["accuracy"] == saved["model"]["values"]["accuracy"]
    path = run_directory / "best" / "metrics.json"
    assert CliRunner().invoke(main, [*command, "--by", "split", "--save"]).exit_code == 0
    again = json.loads(path.read_text())["test"]
    assert again["robustness"] == saved["robustness"] and [each["column"] for each in again["subgroups"]] == ["split"]
    other = {**again, "model": {**again["model"], "values": {**again["model"]["values"], "accuracy": 0.123}}}
    path.write_text(json.dumps({"test": other}))
    assert CliRunner().invoke(main, [*command, "--save"]).exit_code == 0
    assert json.loads(path.read_text())["test"].keys() == {"model", "dcg"}
    wrong = CliRunner().invoke(main, [*command, "--by", "sex"])
    assert wrong.exit_code == 2 and "has no column sex to divide images by; found ['file', 'label'" in wrong.output


def test_a_set_of_medmnist_by_name(weights, tmp_path) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8), np.array([[0], [1], [1], [0]], np.uint8)
    np.savez(tmp_path / "pneumoniamnist.npz", test_images=images, test_labels=labels)
    name, options = f"medmnist:pneumoniamnist:{tmp_path}", ["--model", weights]
    measured = ["--class-names", "dark,light", "--bootstrap", "0"]
    result = CliRunner().invoke(main, ["evaluate", name, *options, *measured, "--format", "json"])
    assert result.exit_code == 0, result.output
    found, csv = json.loads(result.stdout)["model"], tmp_path / "p.csv"
    assert found["medmnist"]["auc"] == found["values"]["auroc"]
    assert "pneumoniamnist: CC BY 4.0" in result.stderr and "4 in test instead of 624" in result.stderr
    result = CliRunner().invoke(main, ["predict", name, *options, "--output", str(csv)])
    assert result.exit_code == 0 and len(csv.read_text().splitlines()) == 5, result.output
    wrong = CliRunner().invoke(main, ["evaluate", "medmnist:pneumonia", *options])
    assert wrong.exit_code == 2 and "did you mean pneumoniamnist?" in wrong.output
    wrong = CliRunner().invoke(main, ["predict", name, "a.png", *options])
    assert wrong.exit_code == 2 and "a set of MedMNIST is predicted alone" in wrong.output
    wrong = CliRunner().invoke(main, ["recalibrate", name, *options, "--output", str(tmp_path / "r"), "--unlabelled"])
    assert wrong.exit_code == 2 and "is a set of MedMNIST, which has labels" in wrong.output
