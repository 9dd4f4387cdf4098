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

Text = pytest.importorskip("matplotlib.text").Text

GREEN = (20, 160, 40)


def _pixels(figure: Any) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)


def _texts(figure: Any) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def _patches(figure: Any, gid: str) -> list[Any]:
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def _of_picture(array: np.ndarray, **changes: Any) -> Any:
    """A prediction whose first picture is the array."""
    prediction = animal_prediction(**changes)
    return dataclasses.replace(prediction, items=[Item("a.png", array)] * len(prediction))


def test_overlay_is_a_png_with_the_picture_twice_in_its_own_aspect(tmp_path: Path) -> None:
    source = tmp_path / "green.png"
    Image.new("RGB", (200, 100), GREEN).save(source)
    prediction = dataclasses.replace(animal_prediction()[0], items=[Item("green.png", str(source))])
    prediction.save_overlay(tmp_path / "overlay.bin")
    with Image.open(tmp_path / "overlay.bin") as image:
        assert image.format == "PNG"
        assert image.width == 1200
        pixels = np.asarray(image.convert("RGB")).astype(int)
    clean = (np.abs(pixels[:, :403] - GREEN).sum(-1) < 6).nonzero()
    assert np.ptp(clean[0]) + 1 == pytest.approx((np.ptp(clean[1]) + 1) / 2, abs=2)
    marked = (pixels[:, 405:800, 1] > pixels[:, 405:800, 0] + 20).nonzero()
    assert np.ptp(marked[1]) == pytest.approx(np.ptp(clean[1]), abs=3)
    assert (np.abs(pixels[:, 830:] - (15, 123, 138)).sum(-1) < 10).sum() > 500, (
        "the bar of the predicted class is missing"
    )


def test_figure_says_what_who_and_what_for() -> None:
    prediction = animal_prediction(ANIMALS.replace(temperature=None), trained=False, model_name="runs/mine/best")
    texts = _texts(prediction.plot("scan2.png"))
    probability = 100 * prediction.probs[2].max().item()
    for expected in (
        f"dog   {probability:.1f} %",
        f"uncertainty {prediction.uncertainty[2].item():.2f} (0:",
        "scan2.png",
        "runs/mine/best  ·  diffmiczoo",
        "Not for clinical use.",
        "saliency of dog, lines at",
        "1: 75 %   2: 25 %",
        "the model is not trained",
    ):
        assert expected in texts
    uncalibrated = _texts(animal_prediction(ANIMALS.replace(temperature=None)).plot())
    assert "not calibrated: only their order counts" in uncalibrated
    assert "calibrated on validation pictures" in _texts(animal_prediction().plot())


def test_classes_have_the_words_that_people_use_and_keep_their_names() -> None:
    labels = {"cat": "domestic cat", "dog": "wolf's cousin"}
    figure = animal_prediction(class_labels=labels).plot(2)
    texts = _texts(figure).splitlines()
    assert any(text.startswith("wolf's cousin (dog)   ") for text in texts)
    assert "domestic cat" in texts
    assert animal_prediction(class_labels=labels).labels[2] == "dog"


def test_each_label_has_its_own_threshold() -> None:
    limits = (0.25, 0.5, 0.75)
    prediction = animal_prediction(ANIMALS_MULTILABEL.replace(thresholds=limits))
    figure = prediction.plot(0)
    marks = [line.get_xdata()[0] for line in _patches(figure, "threshold")]
    tracks = [track.get_x() for track in _patches(figure, "track")]
    order = [prediction.class_names.index(name) for name, _ in prediction.top(3)[0]]
    assert marks == pytest.approx([tracks[0] + 280 * limits[place] for place in order])
    assert "from here on the label is given" in _texts(figure)
    assert not _patches(animal_prediction().plot(0), "threshold")


def test_figure_of_several_labels_and_of_none() -> None:
    assert "dog  ·  " in _texts(animal_prediction(ANIMALS_MULTILABEL).plot(2))
    none = animal_prediction(ANIMALS_MULTILABEL).plot(3)
    assert "no finding above its threshold" in _texts(none)
    colours = {bar.get_facecolor() for bar in _patches(none, "bar")}
    assert len(colours) == 1


def test_many_classes_and_names_that_look_like_formulas() -> None:
    many = DiffMICConfig(num_classes=20, class_names=tuple(f"$x_{n}$ {'long ' * 30}" for n in range(20)), num_rois=2)
    prediction = animal_prediction(many, torch.linspace(0, 1, 20)[None])
    figure = prediction.plot()
    ninth = 100 * prediction.probs[0].sort(descending=True).values[8].item()
    assert f"12 more classes, each at most {ninth:.1f} %" in _texts(figure)
    assert len(_patches(figure, "bar")) == 8
    _pixels(figure)
    for text in figure.axes[0].texts:
        limit = 830 if text.get_text().startswith("saliency of") else 1192
        assert text.get_window_extent().x1 <= limit, text.get_text()


@pytest.mark.parametrize(("logit", "shade"), [(-9.0, 0), (0.0, 0.5), (9.0, 1)])
def test_the_scale_of_the_saliency_is_the_same_for_every_picture(logit: float, shade: float) -> None:
    """Where nothing is salient nothing is coloured, however even the picture is; the most colour is thin."""
    saliency = torch.full((4, 3, 4, 4), logit)
    grey = np.full((64, 64, 3), 128, np.uint8)
    prediction = _of_picture(grey, config=ANIMALS_MULTILABEL, saliency=saliency)
    place = _centre_of_marked(prediction.plot(0))
    wash = np.array([0, 200, 240]) * 0.16 * shade + 128 * (1 - 0.16 * shade)
    assert place == pytest.approx(wash, abs=3)


def test_saliency_of_one_label_is_the_share_among_the_classes() -> None:
    from diffmiczoo.inference.saliency import class_saliency

    prediction = animal_prediction(saliency=torch.tensor([1.0, 2.0, 4.0])[None, :, None, None].repeat(4, 1, 4, 4))
    shares = [class_saliency(prediction, 0, name)[0, 0].item() for name in prediction.class_names]
    assert shares == pytest.approx(torch.tensor([1.0, 2.0, 4.0]).softmax(0).tolist())


def _centre_of_marked(figure: Any) -> list[int]:
    pixels, box = _pixels(figure), figure.axes[2].get_window_extent()
    row, column = len(pixels) - (box.y0 + box.y1) / 2, (box.x0 + box.x1) / 2
    return pixels[int(row), int(column)].tolist()


def test_heat_map_is_that_of_the_first_class_and_where_it_belongs() -> None:
    saliency = torch.full((4, 3, 4, 4), -9.0)
    saliency[0, 0, 3, 0] = 9  # of the predicted class, below on the left
    saliency[0, 1, 0, 3] = 9  # of another one
    prediction = _of_picture(np.zeros((64, 64, 3), np.uint8), saliency=saliency)
    assert prediction.labels[0] == prediction.class_names[0]
    figure = prediction.plot(0)
    wash = figure.axes[2].images[1].get_array()[..., 3]
    rows, columns = (wash > 0.1).nonzero()
    assert rows.min() > 0.7 * len(wash)
    assert columns.max() < 0.3 * len(wash)
    assert len(prediction.plot(0, show_saliency=False).axes[2].images) == 1


@pytest.mark.parametrize(
    ("crop_mode", "pale", "boxes"),
    [
        # 100 high, 200 wide, square of 64: the middle 100 × 100 is used, each pixel of the square is 1.5625 wide.
        ("center", [(0, 50), (150, 200)], [[50, 0, 75, 25], [100, 75, 125, 100]]),
        ("squash", [], [[0, 0, 50, 25], [100, 75, 150, 100]]),
        # All of it in the middle 32 rows of the square: both boxes hold nothing but border.
        ("border", [], []),
    ],
)
def test_marks_are_where_they_belong_on_the_picture(crop_mode: str, pale: Any, boxes: Any) -> None:
    config = ANIMALS.replace(crop_mode=crop_mode)
    figure = _of_picture(np.zeros((100, 200, 3), np.uint8), config=config).plot(0)
    marked = figure.axes[2]
    veils = [patch.get_bbox() for patch in marked.patches if patch.get_gid() == "veil"]
    assert [(box.x0, box.x1) for box in veils] == pale
    assert ("pale: cropped" in _texts(figure)) == bool(pale)
    drawn = [patch.get_bbox().extents.tolist() for patch in marked.patches if patch.get_gid() != "veil"]
    assert drawn == boxes
    assert (marked.get_xlim(), marked.get_ylim()) == ((0, 200), (100, 0))


def test_boxes_are_numbered_by_attention() -> None:
    figure = _of_picture(np.zeros((64, 64, 3), np.uint8)).plot(0)
    boxes = figure.axes[2].patches
    assert [patch.get_bbox().extents.tolist() for patch in boxes] == [[0, 0, 16, 16], [32, 48, 48, 64]]
    assert boxes[1].get_linewidth() > boxes[0].get_linewidth()  # the one with most attention is drawn last
    assert {text.get_text(): text.xy for text in figure.axes[2].texts} == {"1": (32, 48), "2": (0, 0)}


@pytest.mark.parametrize(
    ("height", "width"), [(28, 28), (1, 1), (100, 1000), (1000, 100), (3, 900), (900, 3), (150, 200), (200, 150)]
)
@pytest.mark.parametrize("grey", [True, False])
def test_every_shape_fits_and_keeps_its_aspect(height: int, width: int, grey: bool) -> None:
    shape = (height, width) if grey else (height, width, 3)
    figure = _of_picture(np.full(shape, 90, np.uint8)).plot(0)
    clean, marked = (axes.get_window_extent() for axes in figure.axes[1:])
    assert clean.width / clean.height == pytest.approx(width / height, rel=0.35 if min(height, width) == 3 else 0.02)
    assert (clean.width, clean.height) == pytest.approx((marked.width, marked.height))
    assert marked.x1 <= 800
    assert not clean.overlaps(marked)
    assert max(clean.width, clean.height) >= 320


def test_the_size_of_the_picture_is_said_where_it_is_known() -> None:
    prediction = animal_prediction(sizes=[])
    assert "picture" in _texts(prediction.plot()).splitlines()
    sized = dataclasses.replace(prediction, sizes=[(80, 100)] * 4)
    assert "picture, 100 × 80 pixels" in _texts(sized.plot())
    assert "pixels" not in _texts(sized.plot(0, images=[np.zeros((8, 8), np.uint8)] * 4))


def test_pictures_may_be_handed_in_again() -> None:
    prediction = animal_prediction(saliency=torch.zeros(4, 3, 4, 4))
    white = [np.full((64, 64, 3), 255, np.uint8)] * 4
    shown = prediction.plot(1, images=white).axes[1].images[0].get_array()
    assert (np.asarray(shown) == 255).all()
    with pytest.raises(ValueError, match="images holds 1 images; expected 4"):
        prediction.plot(1, images=white[0])
    with pytest.raises(IndexError):
        prediction.plot(4)


def test_constant_saliency_and_attention_of_zero_can_be_drawn() -> None:
    prediction = animal_prediction(saliency=torch.zeros(4, 3, 4, 4), roi_attention=torch.zeros(4, 2))
    assert np.isfinite(_pixels(prediction.plot())).all()


def test_plotting_needs_no_pyplot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "diffmiczoo.inference.overlay", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    _pixels(animal_prediction().plot())


@pytest.mark.parametrize(
    ("title", "length", "expected"),
    [
        ("melanoma (mel)", 20, "melanoma (mel)"),
        ("a very long name of a class (code)", 20, "a very long … (code)"),
        ("no code but a very long name", 10, "no code b…"),
        ("x (a bracket that is far too long)", 12, "x (a bracke…"),
    ],
)
def test_long_names_keep_their_code(title: str, length: int, expected: str) -> None:
    from diffmiczoo.inference.overlay_words import shortened

    assert shortened(title, length) == expected
    assert len(shortened(title, length)) <= length


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.0 %"), (0.0004, "< 0.1 %"), (0.5, "50.0 %"), (0.9996, "> 99.9 %"), (1.0, "100.0 %")]
)
def test_percentages_are_certain_only_where_probabilities_are(value: float, text: str) -> None:
    from diffmiczoo.inference.overlay_words import percent

    assert percent(value) == text
