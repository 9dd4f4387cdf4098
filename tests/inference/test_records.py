"""Where ROIs lie in the pictures themselves, and what programs and notebooks are shown."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import ANIMALS, ANIMALS_MULTILABEL, animal_prediction, small_model
from PIL import Image, ImageOps

import diffmiczoo
from diffmiczoo.inference.prediction import Prediction

#: left, top, right, bottom of a white square in a black picture.
PLANTED = (120, 64, 184, 128)


def planted(path: Path, size: tuple[int, int], orientation: int = 1) -> Path:
    """Writes a black picture (height, width) with the white square where viewers see it."""
    pixels = np.zeros((*size, 3), np.uint8)
    left, top, right, bottom = PLANTED
    pixels[top:bottom, left:right] = 255
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    turn = back[orientation]
    (image if turn is None else image.transpose(turn)).save(path, exif=exif, quality=95)
    assert np.asarray(ImageOps.exif_transpose(Image.open(path))).shape[:2] == size
    return path


def with_roi_at_the_square(prediction: Prediction, square: torch.Tensor) -> Prediction:
    """Returns the prediction with its first ROI where the preprocessed picture (3, S, S) is white."""
    rows, columns = (square[0] > 0.5).nonzero(as_tuple=True)
    box = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    rois = prediction.rois.clone()
    rois[0, 0] = box
    return dataclasses.replace(prediction, rois=rois)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(("size", "ending"), [((192, 320), "png"), ((512, 512), "jpg"), ((320, 256), "jpg")])
def test_a_roi_is_found_in_the_picture(
    tmp_path: Path, crop_mode: str, orientation: int, size: tuple[int, int], ending: str
) -> None:
    path = planted(tmp_path / f"planted.{ending}", size, orientation)
    model = small_model(trained=True, crop_mode=crop_mode, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    prediction = with_roi_at_the_square(model.predict(path), model.preprocess(path)[0])
    assert prediction.sizes == [size]
    tolerance = max(size) / 64  # a pixel of the square
    np.testing.assert_allclose(prediction.rois_original[0, 0].numpy(), PLANTED, atol=tolerance)
    (record,) = prediction.to_dict()["images"]
    assert record["size"] == {"height": size[0], "width": size[1]}
    assert record["rois"][0]["box_original"] == prediction.rois_original[0, 0].tolist()
    assert record["rois"][0]["box"] == prediction.rois[0, 0].tolist()


def test_boxes_are_exact_where_pixels_are_whole() -> None:
    prediction = animal_prediction(
        ANIMALS.replace(crop_mode="squash"), sizes=[(128, 64), (64, 192), (32, 64), (64, 64)]
    )
    assert prediction.rois[0].tolist() == [[0, 0, 16, 16], [32, 48, 48, 64]]
    assert prediction.rois_original[:, 1].tolist() == [
        [32, 96, 48, 128],
        [96, 48, 144, 64],
        [32, 24, 48, 32],
        [32, 48, 48, 64],
    ]
    assert torch.equal(prediction[1:3].rois_original, prediction.rois_original[1:3])
    centre = animal_prediction(sizes=[(64, 192)] * 4)
    assert centre.rois_original[0, 1].tolist() == [32 + 64, 48, 48 + 64, 64]


def test_sizes_go_with_their_rows_in_any_batch(tmp_path: Path) -> None:
    model = small_model(trained=True)
    sizes = [(70, 80), (64, 64), (90, 30)]
    pictures = [np.zeros((*size, 3), np.uint8) for size in sizes]
    for batch_size in (1, 2, 32):
        prediction = model.predict(
            [pictures[0], np.full((4, 4), -1.0), *pictures[1:]], batch_size=batch_size, on_error="skip"
        )
        assert prediction.sizes == sizes and prediction["images[2]"].sizes == [sizes[1]]


def test_tables_with_rois(tmp_path: Path) -> None:
    prediction = animal_prediction()
    (first, *_) = csv.DictReader(io.StringIO(prediction.to_csv(tmp_path / "table.csv", rois=True)))
    assert (first["height"], first["width"]) == ("80", "100") and float(first["roi2_attention"]) == 0.75
    found = [float(first[f"roi2_{side}"]) for side in ("left", "top", "right", "bottom")]
    np.testing.assert_allclose(found, prediction.rois_original[0, 1].numpy(), atol=1e-6)
    frame = prediction.to_frame(rois=True)
    assert frame["roi1_right"].tolist() == prediction.rois_original[:, 0, 2].tolist()
    assert "roi1_left" not in prediction.to_frame().columns and "height" not in prediction.to_csv()


def test_a_prediction_without_sizes_says_so() -> None:
    prediction = animal_prediction(sizes=[])
    with pytest.raises(diffmiczoo.DiffMICError, match="sizes of the pictures are not known"):
        prediction.rois_original  # noqa: B018
    assert json.loads(json.dumps(prediction.to_dict()))["images"][0]["size"] is None


# ---------------------------------------------------------------------- notebooks


def test_html_is_escaped_and_has_no_scripts() -> None:
    names = ["<script>alert(1)</script>.png", 'a"b&.png', "folder/scan\udcff.png", "c.png"]
    text = animal_prediction(names=names, class_labels={"cat": "a <b>cat</b>"})._repr_html_()
    assert "<script" not in text and "&lt;script&gt;alert(1)" in text and "a&quot;b&amp;.png" in text
    assert "cat (a &lt;b&gt;cat&lt;/b&gt;)" in text and "not for clinical use" in text
    text.encode("utf-8")
    assert text.count("<tr>") == 5 and ">scan?.png<" in text


def test_html_names_labels_by_their_thresholds() -> None:
    config = ANIMALS_MULTILABEL.replace(thresholds=(0.99, 0.5, 0.999))
    prediction = animal_prediction(config)
    text = prediction._repr_html_()
    assert "cat 0.99, dog 0.50, eel 1.00" in text or "cat 0.99" in text
    for labels in prediction.labels:
        assert f"<td>{', '.join(labels) or 'none above its threshold'}</td>" in text


def test_html_says_what_is_not_known_and_is_short() -> None:
    long = animal_prediction(ANIMALS.replace(temperature=None), torch.rand(30, 3), trained=False)
    text = long._repr_html_()
    assert "not calibrated" in text and "not trained" in text and "the first 20 of them" in text
    assert text.count("<tr>") == 21 and "1 images could not be read" in text
