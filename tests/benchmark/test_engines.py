"""The exported file beside `predict`: the same pictures, taking turns."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from factories import run_command, small_model

from diffmiczoo.benchmark import engines
from diffmiczoo.benchmark.engines import compare_engines, engines_table, exported_engines
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.export.graph import ExportedModel, graph_settings
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import frozen


def answers_of(model: DiffMICv2):
    """Runs a model's graph as it is, in the place of the file."""
    graph = ExportedModel(model, graph_settings(model, None, None, None)).eval()

    def answers(squares: np.ndarray) -> dict[str, np.ndarray]:
        with frozen(graph):
            found = graph(torch.from_numpy(squares))
        return {name: each.numpy() for name, each in zip(graph.names, found, strict=True)}

    return answers


def test_engines_see_the_same_pictures_as_predict():
    model = small_model(trained=True, image_size=32, roi_size=16)
    rows = compare_engines(model, {"onnx": answers_of(model)}, batch_size=3, repeats=2)
    assert [row.engine for row in rows] == ["predict", "onnx"] and rows[0].ratio == 1 and rows[0].max_difference == 0
    assert rows[1].max_difference < 1e-5 and rows[1].ratio > 0
    assert rows[1].images_per_second == pytest.approx(3 / rows[1].seconds)
    assert "| onnx | " in engines_table(rows)


def test_engines_are_for_the_cpu():
    with pytest.raises(InvalidValueError, match="--engine times CPUs alone, the model is on meta"):
        exported_engines(small_model().to("meta"), ["onnx"])


def test_command(monkeypatch):
    monkeypatch.setattr(engines, "exported_engines", lambda model, names: {name: answers_of(model) for name in names})
    arguments = ("benchmark", "--model", "timm/test_resnet", "--batch-size", "1", "--repeats", "1", "--engine", "onnx")
    result = run_command(*arguments, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert [row["engine"] for row in json.loads(result.stdout)["batches"]["1"]] == ["predict", "onnx"]
    both = run_command(*arguments, "--train")
    assert both.exit_code == 2 and "--engine is a benchmark of its own" in both.stderr
