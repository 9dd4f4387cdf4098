"""`--format pt2` and `--format openvino`: files that answer as the model does, in batches of 1, 2 and 7."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
import torch
from export.conftest import Exported, pictures

from diffmiczoo.errors import MissingExtraError
from diffmiczoo.export import certify, formats


def check(answers: formats.Answers, exported: Exported) -> None:
    squares = pictures()
    known = exported.model.predict(list(squares), defer_error=0.05)
    for size in (1, 2, 7):
        found = certify.run_in_batches(answers, squares, size)
        np.testing.assert_allclose(found["probs"], known.probs, atol=1e-5)
        np.testing.assert_allclose(found["spread"], known.spread, atol=1e-5)
        np.testing.assert_array_equal(found["rois"], known.rois)
        np.testing.assert_array_equal(found["in_distribution"], known.in_distribution)
        np.testing.assert_array_equal(found["deferred"], known.deferred)
        assert found["sets"].shape == (9, 2, 3)


def test_a_program_of_torch_export(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_captured", lambda graph: exported.program)
    path = tmp_path / "small.pt2"
    found = exported.model.export(path, format="pt2", verify=list(pictures()), defer_error=0.05)
    assert found.passed and found.format == "pt2" and found.size == path.stat().st_size
    facts = {"labels": "", "outputs": "", "weights_sha256": ""}
    torch.export.load(io.BytesIO(path.read_bytes()), extra_files=facts)
    assert json.loads(facts["labels"]) == ["cat", "dog", "eel"] and facts["weights_sha256"] == found.weights_sha256
    check(formats.pt2_answers(path.read_bytes(), list(json.loads(facts["outputs"]))), exported)


def test_the_files_of_openvino(exported, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setattr(formats, "onnx_content", lambda *_: exported.path.read_bytes())
    path = tmp_path / "small.xml"
    found = exported.model.export(path, format="openvino", verify=list(pictures()), defer_error=0.05)
    weights = path.with_suffix(".bin")
    assert found.passed and found.size == path.stat().st_size + weights.stat().st_size
    assert sorted(each.name for each in tmp_path.iterdir()) == ["small.bin", "small.xml", "small.xml.certificate.json"]
    check(formats.openvino_answers(path.read_bytes(), weights.read_bytes()), exported)


def test_openvino_that_is_missing_is_named_with_its_extra(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "onnx_content", lambda *_: exported.path.read_bytes())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'export needs openvino: pip install "diffmiczoo\[openvino\]"'):
        exported.model.export(tmp_path / "a.xml", format="openvino")
    assert list(tmp_path.iterdir()) == []
