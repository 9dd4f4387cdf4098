"""Shipped weights: their file, and what the runner makes of it, answer as `predict` does on pictures of their kind."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from factories import SHARED, animal_prediction

from diffmiczoo.inference.records import record_of

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

PATH = Path(__file__).resolve().parents[2] / "tools" / "exported_answers.py"
spec = importlib.util.spec_from_file_location("exported_answers", PATH)
assert spec is not None and spec.loader is not None
tool = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = tool
spec.loader.exec_module(tool)


@pytest.mark.release
@pytest.mark.parametrize("name", tool.FOLDERS)
def test_file_and_runner_answer_as_predict(name, tmp_path):
    data = SHARED / "data" / tool.FOLDERS[name]
    if not data.is_dir():
        pytest.skip(f"{data} is absent")
    certificate, runner = tool.check(name, data, 20, "fp32", tmp_path)
    assert certificate.passed and certificate.images == 20
    assert runner.same and runner.pictures == 20


def test_what_a_runner_says_otherwise_is_counted():
    known = animal_prediction()
    records = [record_of(known, row, label, {"in_distribution": None}) for row, label in enumerate(known.labels)]
    assert tool.compare(known, records).same
    records[0]["probs"]["cat"] += 0.01
    records[0]["rois"][0]["box"][0] += 1
    records[-1]["label"] = "another"
    found = tool.compare(known, records)
    assert (found.labels, found.rois, found.sets, found.same) == (1, 1, 0, False)
    assert found.probs == pytest.approx(0.01, abs=1e-6)
