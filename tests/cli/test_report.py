"""`diffmiczoo report`."""

from __future__ import annotations

import json

import pytest
from factories import run_command
from made_reports import Page

import diffmiczoo


def test_the_page_and_its_numbers_are_written(manifest_csv, tmp_path, weights) -> None:
    output, quick = tmp_path / "new" / "report", ["--bootstrap", 20, "--pictures", 1]
    result = run_command("report", manifest_csv, "--model", weights, "--output", output, "--against", weights, *quick)
    assert result.exit_code == 0, result.output
    assert str(output / "report.html") in result.stdout and sorted(path.name for path in output.iterdir()) == [
        "report.html", "report.json"
    ]  # fmt: skip
    found = json.loads((output / "report.json").read_text())
    model = diffmiczoo.create_model(weights, pretrained=True)
    metrics = diffmiczoo.evaluate(model, manifest_csv, bootstrap=20, progress=False)
    assert found["quality"]["model"]["values"] == pytest.approx(metrics.values)
    assert found["quality"]["model"]["num_groups"] == 4 and found["training"] is None
    assert found["data"]["split"] == "test" and len(found["model"]["weights_sha256"]) == 64
    (other,) = found["against"]
    shown = found["model"]["name"]
    assert (
        other["name"] == shown
        and shown.endswith("/weights")
        and str(tmp_path) not in (output / "report.json").read_text()
    )
    assert set(map(tuple, other["difference"].values())) == {(0, 0, 0)}
    page = Page((output / "report.html").read_text())
    assert len(page.images) == 4 and page.column("The same pictures, other models", f"model − {shown}")


def test_what_is_wrong_is_said_before_anything_is_predicted(manifest_csv, tmp_path, weights, monkeypatch) -> None:
    monkeypatch.setattr("diffmiczoo.reporting.report.predict_with_dcg", lambda *_, **__: pytest.fail("predicted"))
    (tmp_path / "file").write_text("")
    for arguments, message in [
        (["--output", tmp_path / "file"], "cannot be a directory"),
        (["--output", tmp_path / "out", "--by", "eyes"], "has no column eyes to divide images by"),
        (["--output", tmp_path / "out", "--split", "val", "--members"], "members are calibrated on split 'val'"),
        (["--output", tmp_path / "out", "--pictures", "-1"], "-1 is not in the range x>=0"),
    ]:
        result = run_command("report", manifest_csv, "--model", weights, *arguments)
        assert result.exit_code == 2 and message in result.stderr, (arguments, result.output)
    assert not (tmp_path / "out").exists()
