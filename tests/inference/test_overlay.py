"""The figure of a prediction."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import ANIMALS, ANIMALS_MULTILABEL, animal_prediction
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import Item


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def _texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_overlay_is_a_png_with_the_picture_in_it(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source = tmp_path / "green.png"
    Image.new("RGB", (100, 80), (20, 160, 40)).save(source)
    prediction = dataclasses.replace(animal_prediction()[0], items=[Item("green.png", str(source))])
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
    prediction = animal_prediction(ANIMALS.replace(temperature=None), trained=False)
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
    assert "not" not in _texts(animal_prediction().plot(0))


def test_figure_of_several_labels_and_many_classes() -> None:
    pytest.importorskip("matplotlib")
    assert "dog + 1" in _texts(animal_prediction(ANIMALS_MULTILABEL).plot(2))
    assert "no label reaches 50 %" in _texts(animal_prediction(ANIMALS_MULTILABEL).plot(3))
    many = DiffMICConfig(num_classes=20, class_names=tuple(f"$x_{n}$" for n in range(20)), num_rois=2)
    figure = animal_prediction(many, torch.linspace(0, 1, 20)[None]).plot()
    assert "13 more classes" in _texts(figure)
    assert len(figure.axes[1].patches) == 7
    _pixels(figure)  # names are not read as formulas


def test_heat_map_and_boxes_are_where_they_belong() -> None:
    pytest.importorskip("matplotlib")
    saliency = torch.zeros(4, 3, 4, 4)
    saliency[0, 0, 3, 0] = 1  # of the predicted class, below on the left
    saliency[0, 1, 0, 3] = 1  # of another one
    black = [Item(f"scan{index}.png", np.zeros((64, 64, 3), np.uint8)) for index in range(4)]
    prediction = animal_prediction(saliency=saliency, items=black)
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
    prediction = animal_prediction(saliency=torch.zeros(4, 3, 4, 4))
    white = [np.full((64, 64, 3), 255, np.uint8)] * 4
    shown = prediction.plot(1, images=white).axes[0].images[0].get_array()
    assert (np.asarray(shown) == 255).all()
    with pytest.raises(ValueError, match="images holds 1 images; expected 4"):
        prediction.plot(1, images=white[0])
    with pytest.raises(IndexError):
        prediction.plot(4)


def test_constant_saliency_and_attention_of_zero_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    prediction = animal_prediction(saliency=torch.zeros(4, 3, 4, 4), roi_attention=torch.zeros(4, 2))
    assert np.isfinite(_pixels(prediction.plot())).all()


def test_plotting_needs_no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.delitem(sys.modules, "diffmiczoo.inference.overlay", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    _pixels(animal_prediction().plot())


def test_an_overlay_is_drawn_from_plain_values() -> None:
    pytest.importorskip("matplotlib")
    from diffmiczoo.inference.overlay import BARS, Overlay, draw_overlay

    overlay = Overlay(
        name="a.png",
        square=torch.full((32, 32, 3), 255, dtype=torch.uint8),
        saliency=None,
        rois=torch.tensor([[0.0, 0.0, 8.0, 8.0], [16.0, 8.0, 24.0, 16.0]]),
        roi_attention=torch.tensor([0.2, 0.8]),
        ranking=[(f"class {place}", 0.5 / (place + 1)) for place in range(BARS + 2)],
        labels=["class 0", "class 1"],
        uncertainty=0.25,
        notes=["a note"],
    )
    figure = draw_overlay(overlay)
    texts = _texts(figure)
    for part in ("a.png", "class 0 + 1", "highest probability 50.0 %", "uncertainty 0.25", "a note  ·  2 more classes"):
        assert part in texts
    boxes = [patch for patch in figure.axes[0].patches if patch.get_width() == 8]
    assert [patch.get_xy() for patch in boxes] == [(0, 0), (16, 8)]  # the one with most attention is drawn last
    assert boxes[0].get_linewidth() < boxes[1].get_linewidth()
    assert (
        len(figure.axes[0].images) == 1
        and len(draw_overlay(dataclasses.replace(overlay, saliency=torch.rand(4, 4))).axes[0].images) == 2
    )
