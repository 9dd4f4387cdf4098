"""`--format pt2` and `--format openvino`: files that answer as the model does, in batches of 1, 2 and 7."""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

import pytest
from export.conftest import Exported, pictures

from diffmiczoo.errors import InvalidValueError, MissingExtraError
from diffmiczoo.export import formats
from diffmiczoo.inference.certificate import Certificate


def check(found: Certificate, exported: Exported) -> None:
    """The certificate is of the bytes that were written, run as others run them."""
    assert found.passed and found.batch_sizes == (1, 2, 7) and found.images == 9
    assert set(found.differences) == set(exported.certificate.differences)
    assert found.differences["probs"] <= 1e-5 and found.differences["spread"] <= 1e-5
    assert not found.labels_differ and not found.other_ties_differ and not found.roi_ties_split


def test_a_program_of_torch_export(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_captured", lambda graph: exported.program)
    path = tmp_path / "small.pt2"
    found = exported.model.export(path, format="pt2", verify=list(pictures()), defer_error=0.05)
    with zipfile.ZipFile(path) as archive:  # nobody is to learn where the package lay
        folder = str(Path(formats.__file__).parent).encode()
        assert not any(folder in archive.read(name) for name in archive.namelist())
    check(found, exported)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() and found.size == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        facts = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist() if "extra/" in name}
    assert json.loads(facts["labels"]) == ["cat", "dog", "eel"]
    assert facts["weights_sha256"].decode() == found.weights_sha256


def test_the_files_of_openvino(exported, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setattr(formats, "onnx_content", lambda *_: exported.path.read_bytes())
    path = tmp_path / "small.xml"
    found = exported.model.export(path, format="openvino", verify=list(pictures()), defer_error=0.05)
    check(found, exported)
    weights = path.with_suffix(".bin")
    assert found.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found.size == path.stat().st_size + weights.stat().st_size
    assert sorted(each.name for each in tmp_path.iterdir()) == ["small.bin", "small.xml", "small.xml.certificate.json"]


def test_what_openvino_does_not_convert_is_told_in_a_line(exported, tmp_path, monkeypatch):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    monkeypatch.setattr(formats, "onnx_content", lambda *_: b"no model")
    with pytest.raises(InvalidValueError, match=r"OpenVINO .* cannot convert this model \(.*\); use format='onnx'$"):
        exported.model.export(tmp_path / "a.xml", format="openvino")
    assert list(tmp_path.iterdir()) == []


def test_openvino_that_is_missing_is_named_with_its_extra(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "onnx_content", lambda *_: exported.path.read_bytes())
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r'export needs openvino: pip install "diffmiczoo\[openvino\]"'):
        exported.model.export(tmp_path / "a.xml", format="openvino")
    assert list(tmp_path.iterdir()) == []
