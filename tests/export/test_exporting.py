"""An exported file: what it holds, that it answers as its model in any batch, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from export.conftest import SMALL, pictures
from factories import run_command, small_model

import diffmiczoo
from diffmiczoo.errors import InvalidTypeError, InvalidValueError, MissingExtraError
from diffmiczoo.export import exporting, formats
from diffmiczoo.export.graph import OUTPUTS
from diffmiczoo.export.reduced import reduce_precision
from diffmiczoo.hub.companions import weights_digest
from diffmiczoo.inference.certificate import CertificateError

onnx = pytest.importorskip("onnx")


def test_the_file_answers_as_its_model_in_any_batch(exported):
    answers = formats.onnx_answers(str(exported.path))
    squares = pictures(23)
    known = exported.model.predict(list(squares), defer_error=0.05)
    for size in (1, 3, 23):
        found = [answers(squares[start : start + size]) for start in range(0, 23, size)]
        joined = {name: np.concatenate([each[name] for each in found]) for name in OUTPUTS}
        np.testing.assert_allclose(joined["probs"], known.probs, atol=1e-6)
        np.testing.assert_allclose(joined["saliency"], known.saliency, atol=1e-4)
        np.testing.assert_array_equal(joined["rois"], known.rois.numpy().astype(int))
        np.testing.assert_allclose(joined["ood_score"], known.ood_score, rtol=1e-4)
        np.testing.assert_array_equal(joined["deferred"], known.deferred)


def test_the_file_says_what_it_is(exported):
    proto = onnx.load(exported.path)
    facts = {each.key: each.value for each in proto.metadata_props}
    config = exported.model.config
    assert json.loads(facts["labels"]) == ["cat", "dog", "eel"] and facts["task"] == "multiclass"
    assert json.loads(facts["mean"]) == list(config.mean) and json.loads(facts["image_size"]) == 32
    assert facts["weights_sha256"] == weights_digest(exported.model) and facts["version"] == diffmiczoo.__version__
    assert facts["calibration"].startswith("temperature 0.7000, weights of the priors 0.4000, 0.2000, offsets of the")
    assert json.loads(facts["alphas"]) == [0.1, 0.2] and json.loads(facts["defer_error"]) == 0.05
    assert "not for clinical use" in facts["warning"] and json.loads(facts["outputs"]).keys() == OUTPUTS.keys()
    assert [each.name for each in proto.graph.output] == list(OUTPUTS)
    (given,) = proto.graph.input
    shape = [each.dim_param or each.dim_value for each in given.type.tensor_type.shape.dim]
    assert (given.name, shape) == ("pictures", ["batch", 32, 32, 3])
    first = {(each.type.tensor_type.shape.dim[0].dim_param) for each in proto.graph.output}
    assert first == {"batch"}
    assert not any(each.data_location for each in proto.graph.initializer)  # nothing lies in another file


def test_the_file_holds_no_paths_of_this_machine_and_no_rows_that_are_not_used(exported):
    proto = onnx.load(exported.path)
    assert b"stack_trace" in exported.traced and b".py" not in exported.path.read_bytes()
    assert not any(each.metadata_props for each in (*proto.graph.node, *proto.graph.value_info))
    steps = exported.model.config.num_train_timesteps
    assert not any(steps <= size <= steps + 1 for each in proto.graph.initializer for size in each.dims)


def test_the_certificate_lies_beside_the_file(exported):
    found = json.loads(exported.path.with_name("small.onnx.certificate.json").read_text())
    assert found["passed"] and found["images"] == 9 and found["batch_sizes"] == [1, 2, 7]
    assert found["differences"]["probs"] <= 1e-5 and found["pictures"] == "the caller's"
    assert found["sha256"] == hashlib.sha256(exported.path.read_bytes()).hexdigest()
    assert exported.certificate.summary().startswith("small.onnx answers as the model does: 9 pictures")
    own = Path(exporting.__file__).with_name("runner.py")
    assert exported.path.with_name("runner.py").read_bytes() == own.read_bytes()


def test_the_unets_softplus_is_quick_and_that_of_the_probabilities_exact(exported):
    proto = onnx.load(exported.path)
    kinds = [node.op_type for node in proto.graph.node]
    assert kinds.count("Softplus") == 1 and kinds.count("Exp") == 3 * 2  # three layers in two steps


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_reduced_precisions_touch_what_predict_computes_in_them(exported, precision):
    proto = onnx.load_from_string(exported.traced)
    reduce_precision(proto, precision)
    answers = formats.onnx_answers(proto.SerializeToString())
    found = answers(pictures())
    known = exported.model.predict(list(pictures()))
    np.testing.assert_allclose(found["probs"], known.probs, atol=0.05)
    np.testing.assert_allclose(found["saliency"], known.saliency, atol=1e-5)  # the DCG stays as it is
    assert np.abs(found["scores"] - known.scores.numpy()).max() > 1e-7
    types = {each.data_type for each in proto.graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if precision == "fp16" else onnx.TensorProto.UINT8) in types
    if precision == "int8":  # the ranges are of rows: no picture's answer depends on the others
        np.testing.assert_allclose(answers(pictures()[-1:])["probs"], found["probs"][-1:], atol=1e-6)


class Other:
    """Writes the file of another model than the one that is asked for."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __call__(self, *_args) -> bytes:
        return self.content


def test_a_file_that_answers_otherwise_is_not_written(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "onnx_content", Other(exported.path.read_bytes()))
    torch.manual_seed(1)
    other = small_model(trained=True, class_names=("cat", "dog", "eel"), **SMALL)
    for parameter in other.dcg.parameters():
        parameter.data += 0.02
    with pytest.raises(CertificateError, match=r"other.onnx was not written: it has a largest \|Δp\| of") as caught:
        other.export(tmp_path / "other.onnx", verify=list(pictures()), with_runner=True)
    assert not caught.value.certificate.passed and "NOT" in caught.value.certificate.summary()
    assert list(tmp_path.iterdir()) == []


def test_other_labels_pass_where_they_are_allowed_and_are_told(exported):
    found = dataclasses.replace(exported.certificate, precision="int8", labels_differ=2)
    assert not found.passed
    found = dataclasses.replace(found, allowed_labels=2)
    assert found.passed and "gives OTHER LABELS than the model, as was allowed" in found.summary()
    assert not dataclasses.replace(found, rois_differ=1).passed


def test_nothing_is_replaced_unasked(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "onnx_content", Other(exported.path.read_bytes()))
    target = tmp_path / "a.onnx"
    target.with_name("runner.py").write_text("mine")
    with pytest.raises(InvalidValueError, match=r"runner.py is there already; choose another name, or force"):
        exported.model.export(target, with_runner=True)
    assert [path.name for path in tmp_path.iterdir()] == ["runner.py"]
    exported.model.export(target, verify=list(pictures(2)), with_runner=True, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "a.onnx.certificate.json", "runner.py"]
    assert target.read_bytes() == exported.path.read_bytes() and target.with_name("runner.py").read_text() != "mine"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "tflite"}, InvalidValueError, "format='tflite' is not one of onnx, openvino, pt2"),
        ({"precision": "fp8"}, InvalidValueError, "precision='fp8' is not one of fp32, fp16, int8"),
        ({"format": "pt2", "precision": "fp16"}, InvalidValueError, "format='pt2' is fp32 alone"),
        ({"format": "pt2", "with_runner": True}, InvalidValueError, "with_runner is for format='onnx'"),
        ({"format": "openvino"}, InvalidValueError, "OpenVINO's files end in .xml"),
        ({"allow_labels": 1}, InvalidValueError, "allow_labels=1 must be at least 0, and is for fp16 and int8"),
        ({"allow_labels": -1, "precision": "int8"}, InvalidValueError, "allow_labels=-1 must be at least 0"),
        ({"steps": 2.5}, InvalidTypeError, "steps=2.5 must be a whole number"),
        ({"steps": 0}, InvalidValueError, "steps=0 must be within 1"),
        ({"num_samples": 0}, InvalidValueError, "num_samples=0 must be at least 1"),
        ({"defer_error": 0.05}, InvalidValueError, "these weights can promise no error"),
    ],
)
def test_what_is_refused(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        small_model(trained=True, **SMALL).export(tmp_path / "a.onnx", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_other_types_and_folders_are_refused(tmp_path):
    with pytest.raises(InvalidTypeError, match="export needs weights in float32"):
        small_model(trained=True, **SMALL).bfloat16().export(tmp_path / "a.onnx")
    with pytest.raises(InvalidValueError, match="is a directory; path needs a file"):
        small_model(trained=True, **SMALL).export(tmp_path)


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r'export needs onnxruntime: pip install "diffmiczoo\[onnx\]"'):
        small_model(trained=True, **SMALL).export(tmp_path / "a.onnx")


def test_command(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "onnx_content", Other(exported.path.read_bytes()))
    exported.model.save_pretrained(tmp_path / "weights")
    name, file = f"local-dir:{tmp_path / 'weights'}", tmp_path / "a.onnx"
    result = run_command("export", name, str(file), "--defer-error", "0.05")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("a.onnx answers as the model does: 14 pictures (made from seed 0)")
    assert "a.onnx.certificate.json" in result.stderr and file.is_file()
    again = run_command("export", name, str(file))
    assert again.exit_code == 2 and "is there already" in again.stderr
