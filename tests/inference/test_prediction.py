"""Rows of a prediction, its checks and its tables."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from factories import ANIMALS, ANIMALS_MULTILABEL, SCORES, animal_prediction

from diffmiczoo.inference.prediction import Prediction


def test_labels() -> None:
    prediction = animal_prediction()
    assert prediction.labels == ["cat", "eel", "dog", "cat"]
    assert prediction.class_names == ("cat", "dog", "eel")
    assert len(prediction) == 4
    assert animal_prediction(ANIMALS_MULTILABEL).labels == [["cat"], ["eel"], ["dog", "eel"], []]
    half = torch.tensor([[0.5, 0.4, 0.6]])
    assert animal_prediction(ANIMALS_MULTILABEL, half).labels == [["cat", "eel"]]


def test_top() -> None:
    prediction = animal_prediction()
    assert [name for name, _ in prediction.top(2)[1]] == ["eel", "dog"]
    assert prediction.top(1)[0][0][1] == pytest.approx(prediction.probs[0, 0].item())
    assert [name for name, _ in prediction.top(99)[3]] == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="k=0 must be at least 1"):
        prediction.top(0)


#: A rare finding is given from a probability at which a frequent one is not.
UNEQUAL = ANIMALS_MULTILABEL.replace(thresholds=(0.6, 0.5, 0.2))
UNEQUAL_PROBS = torch.tensor([[0.55, 0.1, 0.3], [0.7, 0.55, 0.1], [0.3, 0.6, 0.25], [0.59, 0.49, 0.19]])
UNEQUAL_LABELS = [["eel"], ["cat", "dog"], ["dog", "eel"], []]


def unequal_prediction() -> Prediction:
    return animal_prediction(UNEQUAL, probs=UNEQUAL_PROBS)


def test_several_labels_are_those_that_reach_their_thresholds_everywhere() -> None:
    prediction = unequal_prediction()
    limits = {"cat": 0.6, "dog": 0.5, "eel": 0.2}
    assert prediction.labels == UNEQUAL_LABELS and prediction.thresholds == limits
    for row, labels in enumerate(UNEQUAL_LABELS):
        assert sorted(name for name, _ in prediction.top(max(len(labels), 1))[row][: len(labels)]) == labels
    assert [name for name, _ in prediction.top(3)[0]] == ["eel", "cat", "dog"]
    assert [name for name, _ in prediction.top(3)[2]] == ["dog", "eel", "cat"]
    assert dict(prediction.top(3)[0])["eel"] == UNEQUAL_PROBS[0, 2].item()
    assert [prediction.summary(row) for row in range(4)] == [
        "eel 0.300",
        "cat 0.700  dog 0.550",
        "dog 0.600  eel 0.250",
        "no finding above its threshold (highest: cat 0.590)",
    ]
    assert prediction.summary(1, 1) == "cat 0.700  + 1"
    text = repr(prediction)
    assert "scan0.png → eel 0.300" in text and "cat 0.5" not in text
    assert "no finding above its threshold" in repr(prediction[3])
    values = prediction.to_dict()
    assert values["thresholds"] == limits and [record["labels"] for record in values["images"]] == UNEQUAL_LABELS
    rows = list(csv.DictReader(io.StringIO(prediction.to_csv())))
    assert [row["label"] for row in rows] == ["eel", "cat|dog", "dog|eel", ""]


def test_a_threshold_that_is_reached_exactly_counts() -> None:
    """In the numbers that are kept, float32, whatever the caller's default type is."""
    prediction = animal_prediction(UNEQUAL, SCORES[:1], probs=torch.tensor([[0.6, 0.5, 0.2]]))
    assert prediction.labels == [["cat", "dog", "eel"]]
    torch.set_default_dtype(torch.float64)
    try:
        assert prediction.labels == [["cat", "dog", "eel"]]
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_adjusted_label_comes_first_everywhere_and_probabilities_stay() -> None:
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.1, 0.2, 0.7], [0.45, 0.1, 0.45]])
    config = ANIMALS.replace(label_adjustment=(0.0, 0.6, 0.4))  # 0.3 · 1.82 > 0.5, and 0.45 · 1.49 > 0.45
    prediction = animal_prediction(config, probs=probs)
    assert prediction.labels == ["dog", "cat", "eel", "eel"]
    assert [name for name, _ in prediction.top(3)[0]] == ["dog", "cat", "eel"]
    assert prediction.summary(0, 2) == "dog 0.300  cat 0.500" and torch.equal(prediction.probs, probs)
    values = prediction.to_dict()
    assert values["label_adjustment"] == {"cat": 0.0, "dog": 0.6, "eel": 0.4}
    assert [record["label"] for record in values["images"]] == prediction.labels
    assert [row["label"] for row in csv.DictReader(io.StringIO(prediction.to_csv()))] == prediction.labels
    assert "labels by log probability + cat 0.00, dog 0.60, eel 0.40" in prediction._repr_html_()
    assert animal_prediction(probs=probs).labels == ["cat", "cat", "eel", "cat"]


def test_one_label_has_no_thresholds() -> None:
    prediction = animal_prediction()
    assert prediction.thresholds is None and prediction.to_dict()["thresholds"] is None
    assert prediction.summary(1, 2).split()[::2] == ["eel", "dog"]


def test_calibrated_means_that_a_temperature_was_fitted() -> None:
    assert animal_prediction().calibrated
    assert not animal_prediction(ANIMALS.replace(temperature=None)).calibrated


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
    prediction = animal_prediction(scores=SCORES, seed=7, num_samples=2, spread=SCORES / 8)
    selected = prediction[key]
    assert selected.names == [prediction.names[row] for row in rows]
    assert [item.name for item in selected.items] == selected.names
    for field in (
        "scores",
        "global_logits",
        "local_logits",
        "feature_logits",
        "probs",
        "uncertainty",
        "rois",
        "roi_attention",
        "saliency",
        "spread",
    ):
        assert torch.equal(getattr(selected, field), getattr(prediction, field)[rows])
    assert (selected.seed, selected.errors) == (7, prediction.errors)
    assert selected.labels == [prediction.labels[row] for row in rows]


def test_rows_that_do_not_exist() -> None:
    prediction = animal_prediction()
    for index in (4, -5):
        with pytest.raises(IndexError, match="the prediction has 4"):
            prediction[index]
    with pytest.raises(KeyError, match=r"did you mean 'scan0\.png'"):
        prediction["scan0.pgn"]
    with pytest.raises(TypeError):
        prediction[1.5]


def test_is_iterated_row_by_row() -> None:
    assert [row.labels[0] for row in animal_prediction()] == ["cat", "eel", "dog", "cat"]


def test_repr_is_short() -> None:
    text = repr(animal_prediction(scores=SCORES.repeat(100, 1)))
    assert text.startswith("Prediction(400 images, 3 classes: scan0.png → cat 0.9")
    assert text.endswith("…)")
    assert len(text) < 200
    assert "not calibrated" in repr(animal_prediction(ANIMALS.replace(temperature=None)))


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
        dataclasses.replace(animal_prediction(), **{field: value})


def test_answers_must_be_finite() -> None:
    scores = SCORES.clone()
    scores[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"not finite for scan2\.png;"):
        animal_prediction(scores=scores)


def test_tensors_must_be_float32() -> None:
    with pytest.raises(TypeError, match=r"saliency is torch\.float64"):
        animal_prediction(saliency=torch.zeros(4, 3, 4, 4).double())


def test_to_dict_through_json() -> None:
    prediction = animal_prediction(trained=False)
    values = json.loads(json.dumps(prediction.to_dict(), allow_nan=False))
    assert len(values["images"]) == 4
    record = values["images"][1]
    assert (record["name"], record["label"]) == ("scan1.png", "eel")
    assert record["probs"] == pytest.approx(dict(zip(ANIMALS.labels, prediction.probs[1].tolist(), strict=True)))
    assert record["scores"] == pytest.approx({"cat": 0.2, "dog": 0.3, "eel": 0.9})
    assert list(record["dcg_logits"].values()) == pytest.approx(prediction.dcg_logits[1].tolist())
    assert record["uncertainty"] == pytest.approx(prediction.uncertainty[1].item())
    # A picture of 100 × 80 pixels, its middle 80 × 80.
    original = {"box_original": [50, 60, 70, 80]}
    assert record["rois"][1] == {"box": [32, 48, 48, 64], "attention": 0.75, **original}
    assert record["size"] == {"height": 80, "width": 100}
    assert [record[name] for name in ("ood_score", "in_distribution", "set", "deferred")] == [None] * 4
    rest = {key: value for key, value in values.items() if key != "images"}
    assert rest == {
        "errors": {"bad.png": "bad.png: is empty"},
        "task": "multiclass",
        "class_names": ["cat", "dog", "eel"],
        "thresholds": None,
        "label_adjustment": None,
        "image_size": 64,
        "steps": 10,
        "seed": 0,
        "num_samples": 1,
        "precision": "fp32",
        "tta": "none",
        "defer_error": None,
        "calibrated": True,
        "trained": False,
    }


def test_to_dict_of_several_labels() -> None:
    records = animal_prediction(ANIMALS_MULTILABEL).to_dict()["images"]
    assert [record["labels"] for record in records] == [["cat"], ["eel"], ["dog", "eel"], []]
    assert "label" not in records[0]


def test_to_frame() -> None:
    pytest.importorskip("pandas")
    prediction = animal_prediction(ANIMALS_MULTILABEL)
    frame = prediction.to_frame()
    assert list(frame.columns) == ["name", "label", "uncertainty", "prob_cat", "prob_dog", "prob_eel"]
    assert list(frame["label"]) == ["cat", "eel", "dog|eel", ""]
    assert list(frame["prob_dog"]) == pytest.approx(prediction.probs[:, 1].tolist())
    assert list(animal_prediction().to_frame()["label"]) == ["cat", "eel", "dog", "cat"]
    assert len(prediction[:0].to_frame()) == 0
    assert unequal_prediction().to_frame().attrs["thresholds"] == {"cat": 0.6, "dog": 0.5, "eel": 0.2}


def test_to_csv_has_the_columns_of_the_frame(tmp_path) -> None:
    prediction = animal_prediction(ANIMALS_MULTILABEL)
    text = prediction.to_csv(tmp_path / "animals.csv")
    assert (tmp_path / "animals.csv").read_bytes() == text.encode()
    header, *rows = csv.reader(io.StringIO(text))
    assert header == ["name", "label", "uncertainty", "prob_cat", "prob_dog", "prob_eel"]
    assert [row[:2] for row in rows] == [
        list(pair) for pair in zip(prediction.names, ("cat", "eel", "dog|eel", ""), strict=True)
    ]
    expected = torch.cat([prediction.uncertainty[:, None], prediction.probs], dim=1)
    torch.testing.assert_close(torch.tensor([[float(value) for value in row[2:]] for row in rows]), expected,
                               rtol=0, atol=6e-7)  # fmt: skip
    assert prediction[:2].to_csv() + prediction[2:].to_csv(header=False) == text
    assert prediction[:0].to_csv(header=False) == ""


def test_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r'pip install "diffmiczoo\[pandas\]"'):
        animal_prediction().to_frame()
    monkeypatch.delitem(sys.modules, "diffmiczoo.inference.overlay", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "diffmiczoo\[plot\]"'):
        animal_prediction().plot()
