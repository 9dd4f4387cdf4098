"""Scores → probabilities → labels, rows of a prediction, its tables and its figure."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import Item
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.probabilities import (
    SCORE_NOISE,
    UNCALIBRATED_TEMPERATURE,
    logits_to_probs,
    score_logits,
    scores_to_probs,
    uncertainty,
)

CONFIG = DiffMICConfig(
    num_classes=3, class_names=("cat", "dog", "eel"), image_size=64, roi_size=16, num_rois=2, temperature=0.7
)
SCORES = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.3, 0.9], [0.1, 0.8, 0.7], [0.4, 0.4, 0.4]])


def _prediction(config: DiffMICConfig = CONFIG, scores: torch.Tensor = SCORES, **changes: Any) -> Prediction:
    count = len(scores)
    generator = torch.Generator().manual_seed(0)
    dcg_scores = torch.randn(count, config.num_classes, generator=generator)
    probs = scores_to_probs(scores, config, dcg_scores)
    pixels = np.random.default_rng(0).integers(0, 255, (count, 80, 100, 3), dtype=np.uint8)
    names = [f"scan{index}.png" for index in range(count)]
    values: dict[str, Any] = {
        "names": names,
        "scores": scores,
        "dcg_scores": dcg_scores,
        "probs": probs,
        "uncertainty": uncertainty(probs, config.task),
        "rois": torch.tensor([[0.0, 0.0, 16.0, 16.0], [32.0, 48.0, 48.0, 64.0]]).repeat(count, 1, 1),
        "roi_attention": torch.tensor([[0.25, 0.75]]).repeat(count, 1),
        "saliency": torch.randn(count, config.num_classes, 4, 4, generator=generator),
        "items": [Item(name, array) for name, array in zip(names, pixels, strict=True)],
        "errors": {"bad.png": "bad.png: is empty"},
        "config": config,
        "steps": 10,
        "seed": 0,
        "num_samples": 1,
        "trained": True,
    }
    return Prediction(**values | changes)


MULTILABEL = CONFIG.replace(task="multilabel")

# ---------------------------------------------------------------------- probabilities


def test_multiclass_probabilities_by_hand() -> None:
    probs = scores_to_probs(torch.tensor([[0.2, 0.0]]), DiffMICConfig(num_classes=2, temperature=0.5))
    above, zero = math.log1p(math.exp(0.2 / SCORE_NOISE)), math.log(2)
    assert probs[0].tolist() == pytest.approx([above**2 / (above**2 + zero**2), zero**2 / (above**2 + zero**2)])


def test_multilabel_probabilities_by_hand() -> None:
    config = DiffMICConfig(num_classes=3, temperature=0.5, task="multilabel")
    probs = scores_to_probs(torch.tensor([[0.5, 0.9, 0.1]]), config)
    odds = (math.log1p(math.exp(0.9 / SCORE_NOISE)) / math.log1p(math.exp(0.1 / SCORE_NOISE))) ** 2
    assert probs[0].tolist() == pytest.approx([0.5, odds / (1 + odds), 1 / (1 + odds)])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_the_dcgs_logits_are_added_with_their_weight(task: str) -> None:
    config = DiffMICConfig(num_classes=3, temperature=0.5, prior_weight=0.3, task=task)
    dcg_scores = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [3.0, 1.0, 0.0], [0.1, 0.2, 0.3]])
    logits = score_logits(SCORES, config) / 0.5 + 0.3 * dcg_scores
    assert torch.equal(scores_to_probs(SCORES, config, dcg_scores), logits_to_probs(logits, task))
    ignored = scores_to_probs(SCORES, config.replace(prior_weight=0.0), dcg_scores)
    assert torch.equal(ignored, scores_to_probs(SCORES, config.replace(prior_weight=0.0)))
    with pytest.raises(ValueError, match=r"prior_weight=0\.3 needs dcg_scores"):
        scores_to_probs(SCORES, config)
    with pytest.raises(ValueError, match=r"expected dcg_scores of shape \(B, 3\), found \(4, 2\)"):
        scores_to_probs(SCORES, config, dcg_scores[:, :2])


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_scores_well_inside_the_range_are_taken_as_probabilities(task: str) -> None:
    scores = torch.tensor([[0.6, 0.25, 0.15], [0.3, 0.4, 0.3]])
    probs = scores_to_probs(scores, DiffMICConfig(num_classes=3, task=task))
    torch.testing.assert_close(probs, scores, atol=0.01, rtol=0)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_logits_grow_with_the_score_however_far_out(task: str) -> None:
    scores = torch.linspace(-1e4, 1e4, 20_001, dtype=torch.float64)[:, None]
    config = DiffMICConfig(num_classes=2, task=task)
    logits = score_logits(scores, config)
    assert logits.isfinite().all() and (logits.diff(dim=0) > 0).all()
    single = score_logits(torch.tensor([[-5.0, -2.001, -2.0, -1.999, 0.0, 1.0, 5.0]]), config)
    assert single.isfinite().all() and (single.diff() > 0).all()


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_without_a_fitted_temperature(task: str) -> None:
    fitted = DiffMICConfig(num_classes=3, task=task, temperature=UNCALIBRATED_TEMPERATURE)
    assert torch.equal(scores_to_probs(SCORES, fitted.replace(temperature=None)), scores_to_probs(SCORES, fitted))


@pytest.mark.parametrize("shape", [(3,), (2, 4), (2, 3, 1)])
def test_scores_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected scores of shape \(B, 3\)"):
        scores_to_probs(torch.zeros(shape), CONFIG)


def test_precision_of_probabilities() -> None:
    assert scores_to_probs(SCORES.half(), CONFIG).dtype == torch.float32
    assert scores_to_probs(SCORES.double(), CONFIG).dtype == torch.float64


@given(
    st.lists(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-3, 1e2),
    st.sampled_from(["multiclass", "multilabel"]),
)
@settings(deadline=None)
def test_probabilities_and_uncertainty_stay_in_range(rows: list[list[float]], temperature: float, task: str) -> None:
    scores = torch.tensor(rows)
    probs = scores_to_probs(scores, DiffMICConfig(num_classes=3, task=task, temperature=temperature))
    assert ((probs >= 0) & (probs <= 1)).all()
    if task == "multiclass":
        assert torch.allclose(probs.sum(-1), torch.ones(len(rows)), atol=1e-5)
    doubt = uncertainty(probs, task)
    assert doubt.shape == (len(rows),)
    assert ((doubt >= 0) & (doubt <= 1)).all()
    assert torch.allclose(uncertainty(probs.flip(-1), task), doubt, atol=1e-6)


def test_uncertainty_by_hand() -> None:
    probs = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]])
    assert uncertainty(probs, "multiclass").tolist() == pytest.approx([0, 1, 0.5])
    marks = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 1.0]])
    assert uncertainty(marks, "multilabel").tolist() == pytest.approx([0, 1, 0.5])


# ---------------------------------------------------------------------- labels and rows


def test_labels() -> None:
    prediction = _prediction()
    assert prediction.labels == ["cat", "eel", "dog", "cat"]
    assert prediction.class_names == ("cat", "dog", "eel")
    assert len(prediction) == 4
    assert _prediction(MULTILABEL).labels == [["cat"], ["eel"], ["dog", "eel"], []]
    half = torch.tensor([[0.5, 0.4, 0.6]])
    assert _prediction(MULTILABEL, half).labels == [["cat", "eel"]]


def test_top() -> None:
    prediction = _prediction()
    assert [name for name, _ in prediction.top(2)[1]] == ["eel", "dog"]
    assert prediction.top(1)[0][0][1] == pytest.approx(prediction.probs[0, 0].item())
    assert [name for name, _ in prediction.top(99)[3]] == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        prediction.top(0)


def test_calibrated_means_that_a_temperature_was_fitted() -> None:
    assert _prediction().calibrated
    assert not _prediction(CONFIG.replace(temperature=None)).calibrated


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        (0, [0]),
        (-1, [3]),
        (np.int64(2), [2]),
        ("scan2.png", [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        (slice(9, None), []),
    ],
)
def test_rows(key: Any, rows: list[int]) -> None:
    prediction = _prediction(scores=SCORES, seed=7)
    selected = prediction[key]
    assert selected.names == [prediction.names[row] for row in rows]
    assert [item.name for item in selected.items] == selected.names
    for field in ("scores", "dcg_scores", "probs", "uncertainty", "rois", "roi_attention", "saliency"):
        assert torch.equal(getattr(selected, field), getattr(prediction, field)[rows])
    assert (selected.seed, selected.errors) == (7, prediction.errors)
    assert selected.labels == [prediction.labels[row] for row in rows]


def test_rows_that_do_not_exist() -> None:
    prediction = _prediction()
    for index in (4, -5):
        with pytest.raises(IndexError, match="the prediction has 4"):
            prediction[index]
    with pytest.raises(KeyError, match=r"did you mean 'scan0\.png'"):
        prediction["scan0.pgn"]
    with pytest.raises(TypeError):
        prediction[1.5]


def test_is_iterated_row_by_row() -> None:
    assert [row.labels[0] for row in _prediction()] == ["cat", "eel", "dog", "cat"]


def test_repr_is_short() -> None:
    text = repr(_prediction(scores=SCORES.repeat(100, 1)))
    assert text.startswith("Prediction(400 images, 3 classes: scan0.png → cat 0.9")
    assert text.endswith("…)")
    assert len(text) < 200
    assert "not calibrated" in repr(_prediction(CONFIG.replace(temperature=None)))


# ---------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scores", torch.zeros(3, 3), r"scores has shape \(3, 3\); expected \(4, 3\) for 4 names"),
        ("probs", torch.zeros(4, 2), r"expected \(4, 3\)"),
        ("uncertainty", torch.zeros(4, 1), r"expected \(4,\)"),
        ("rois", torch.zeros(4, 3, 4), r"expected \(4, 2, 4\)"),
        ("roi_attention", torch.zeros(4), r"expected \(4, 2\)"),
        ("saliency", torch.zeros(4, 2, 4, 4), r"expected \(B, C, h, w\)"),
        ("saliency", torch.zeros(4, 3, 16), r"expected \(B, C, h, w\)"),
        ("saliency", torch.zeros(4, 3, 4, 4, 1), r"expected \(B, C, h, w\)"),
        ("names", ["a", "b"], "for 2 names"),
        ("items", [], "items has 0 entries for 4 names"),
    ],
)
def test_shapes_must_fit(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(_prediction(), **{field: value})


def test_answers_must_be_finite() -> None:
    scores = SCORES.clone()
    scores[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"not finite for scan2\.png;"):
        _prediction(scores=scores)


def test_tensors_must_be_float32() -> None:
    with pytest.raises(TypeError, match=r"saliency is torch\.float64"):
        _prediction(saliency=torch.zeros(4, 3, 4, 4).double())


# ---------------------------------------------------------------------- tables


def test_to_dict_through_json() -> None:
    prediction = _prediction(trained=False)
    values = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert len(values["images"]) == 4
    record = values["images"][1]
    assert (record["name"], record["label"]) == ("scan1.png", "eel")
    assert record["probs"] == pytest.approx(dict(zip(CONFIG.labels, prediction.probs[1].tolist(), strict=True)))
    assert record["scores"] == pytest.approx({"cat": 0.2, "dog": 0.3, "eel": 0.9})
    assert list(record["dcg_scores"].values()) == pytest.approx(prediction.dcg_scores[1].tolist())
    assert record["uncertainty"] == pytest.approx(prediction.uncertainty[1].item())
    assert record["rois"][1] == {"box": [32, 48, 48, 64], "attention": 0.75}
    rest = {key: value for key, value in values.items() if key != "images"}
    assert rest == {
        "errors": {"bad.png": "bad.png: is empty"},
        "task": "multiclass",
        "class_names": ["cat", "dog", "eel"],
        "image_size": 64,
        "steps": 10,
        "seed": 0,
        "num_samples": 1,
        "calibrated": True,
        "trained": False,
    }


def test_to_dict_of_several_labels() -> None:
    records = _prediction(MULTILABEL).to_dict()["images"]
    assert [record["labels"] for record in records] == [["cat"], ["eel"], ["dog", "eel"], []]
    assert "label" not in records[0]


def test_to_frame() -> None:
    pytest.importorskip("pandas")
    prediction = _prediction(MULTILABEL)
    frame = prediction.to_frame()
    assert list(frame.columns) == ["name", "label", "uncertainty", "prob_cat", "prob_dog", "prob_eel"]
    assert list(frame["label"]) == ["cat", "eel", "dog|eel", ""]
    assert list(frame["prob_dog"]) == pytest.approx(prediction.probs[:, 1].tolist())
    assert list(_prediction().to_frame()["label"]) == ["cat", "eel", "dog", "cat"]
    assert len(prediction[:0].to_frame()) == 0


def test_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pip install "diffmiczoo\[pandas\]"'):
        _prediction().to_frame()
    monkeypatch.delitem(sys.modules, "diffmiczoo.inference.overlay", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "diffmiczoo\[plot\]"'):
        _prediction().plot()


# ---------------------------------------------------------------------- the figure


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def _texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_overlay_is_a_png_with_the_picture_in_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source = tmp_path / "green.png"
    Image.new("RGB", (100, 80), (20, 160, 40)).save(source)
    prediction = dataclasses.replace(_prediction()[0], items=[Item("green.png", str(source))])
    prediction.save_overlay(tmp_path / "overlay.bin")
    with Image.open(tmp_path / "overlay.bin") as image:
        assert (image.format, image.size) == ("PNG", (900, 450))
        pixels = np.asarray(image.convert("RGB")).astype(int)
    left, right = pixels[:, :420], pixels[:, 440:]
    greenish = (left[..., 1] > left[..., 0] + 40).mean()
    assert greenish > 0.7
    assert (np.abs(right - (15, 123, 138)).sum(-1) < 10).sum() > 500, "the bar of the predicted class is missing"


def test_figure_says_label_probability_and_uncertainty() -> None:
    pytest.importorskip("matplotlib")
    prediction = _prediction(CONFIG.replace(temperature=None), trained=False)
    texts = _texts(prediction.plot("scan2.png"))
    probability = 100 * prediction.probs[2].max().item()
    for expected in (
        "dog",
        f"probability {probability:.1f} %",
        f"uncertainty {prediction.uncertainty[2].item():.2f}",
        "scan2.png",
        "not trained",
        "not calibrated",
    ):
        assert expected in texts
    assert "not" not in _texts(_prediction().plot(0))


def test_figure_of_several_labels_and_many_classes() -> None:
    pytest.importorskip("matplotlib")
    assert "dog + 1" in _texts(_prediction(MULTILABEL).plot(2))
    assert "no label reaches 50 %" in _texts(_prediction(MULTILABEL).plot(3))
    many = DiffMICConfig(num_classes=20, class_names=tuple(f"$x_{n}$" for n in range(20)), num_rois=2)
    figure = _prediction(many, torch.linspace(0, 1, 20)[None]).plot()
    assert "13 more classes" in _texts(figure)
    assert len(figure.axes[1].patches) == 7
    _pixels(figure)  # names are not read as formulas


def test_heat_map_and_boxes_are_where_they_belong() -> None:
    pytest.importorskip("matplotlib")
    saliency = torch.zeros(4, 3, 4, 4)
    saliency[0, 0, 3, 0] = 1  # of the predicted class, below on the left
    saliency[0, 1, 0, 3] = 1  # of another one
    black = [Item(f"scan{index}.png", np.zeros((64, 64, 3), np.uint8)) for index in range(4)]
    prediction = _prediction(saliency=saliency, items=black)
    figure, plain = prediction.plot(0), prediction.plot(0, show_saliency=False)
    heat = _pixels(figure) - _pixels(plain)
    rows, columns = heat[..., 2].nonzero()
    box = plain.axes[0].get_window_extent().extents
    assert columns.mean() < box[0] + 0.3 * (box[2] - box[0])
    assert rows.mean() > 450 - box[3] + 0.7 * (box[3] - box[1])
    boxes = plain.axes[0].patches
    assert [patch.get_bbox().extents.tolist() for patch in boxes] == [[0, 0, 16, 16], [32, 48, 48, 64]]
    assert boxes[1].get_linewidth() > boxes[0].get_linewidth()
    assert boxes[1].get_alpha() > boxes[0].get_alpha()
    ranks = {text.get_text(): text.xy for text in plain.axes[0].texts}
    assert ranks == {"1": (32, 48), "2": (0, 0)}


def test_pictures_may_be_handed_in_again() -> None:
    pytest.importorskip("matplotlib")
    prediction = _prediction(saliency=torch.zeros(4, 3, 4, 4))
    white = [np.full((64, 64, 3), 255, np.uint8)] * 4
    shown = prediction.plot(1, images=white).axes[0].images[0].get_array()
    assert (np.asarray(shown) == 255).all()
    with pytest.raises(ValueError, match="images holds 1 images; expected 4"):
        prediction.plot(1, images=white[0])
    with pytest.raises(IndexError):
        prediction.plot(4)


def test_constant_saliency_and_attention_of_zero_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    prediction = _prediction(saliency=torch.zeros(4, 3, 4, 4), roi_attention=torch.zeros(4, 2))
    assert np.isfinite(_pixels(prediction.plot())).all()


def test_plotting_needs_no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "diffmiczoo.inference.overlay", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    _pixels(_prediction().plot())
