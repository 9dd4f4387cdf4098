"""Predictions that average over mirror images and quarter turns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import small_model

from diffmiczoo.evaluation.evaluate import dcg_logits, scores_and_members
from diffmiczoo.inference.views import VIEWS, views_of

PICTURE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
MIRRORED = {"none": [PICTURE], "hflip": [PICTURE, PICTURE[:, ::-1]]}
MIRRORED["flips"] = [*MIRRORED["hflip"], PICTURE[::-1], PICTURE[::-1, ::-1]]
MIRRORED["rotations"] = [np.rot90(each, turns) for turns in range(4) for each in MIRRORED["hflip"]]


@pytest.fixture(scope="module")
def model():
    return small_model(trained=True, temperature=2.0, prior_weight=(0.3, 0.2))


def _predict(model, picture, **options):
    return model.predict(np.ascontiguousarray(picture), progress=False, **options)


@pytest.mark.parametrize("tta", list(VIEWS))
def test_logits_are_the_mean_over_the_views_and_boxes_those_of_the_picture(model, tta) -> None:
    found, plain = _predict(model, PICTURE, tta=tta), _predict(model, PICTURE)
    views = [_predict(model, view) for view in MIRRORED[tta]]
    for name in ("scores", "global_logits", "local_logits"):
        mean = torch.stack([getattr(view, name) for view in views]).mean(0)
        torch.testing.assert_close(getattr(found, name), mean, rtol=1e-4, atol=1e-5, msg=name)
    for name in ("rois", "roi_attention", "saliency"):
        assert torch.equal(getattr(found, name), getattr(plain, name)), name
    assert found.tta == found.to_dict()["tta"] == tta and plain.tta == "none"
    assert torch.equal(found.probs, plain.probs) == (tta == "none")


def test_all_eight_views_of_a_turned_picture_are_the_same(model) -> None:
    one, turned = (_predict(model, view, tta="rotations").probs for view in (PICTURE, np.rot90(PICTURE[:, ::-1])))
    torch.testing.assert_close(one, turned, rtol=1e-4, atol=1e-5)
    squares = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert len({tuple(view.flatten().tolist()) for view in views_of(squares, "rotations")}) == 8
    laid = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in views_of(laid, "rotations"))


def test_the_config_says_so_and_calibration_sees_the_same(model) -> None:
    plain, wanted = _predict(model, PICTURE), _predict(model, PICTURE, tta="flips")
    images, before = model.preprocess(PICTURE), model.config
    try:
        model.config = before.replace(tta="flips")
        assert torch.equal(_predict(model, PICTURE).probs, wanted.probs)
        assert torch.equal(_predict(model, PICTURE, tta="none").probs, plain.probs)
        with torch.no_grad():
            found, alone = scores_and_members(model, images), dcg_logits(model, images)
    finally:
        model.config = before
    both = torch.stack([wanted.scores, wanted.global_logits, wanted.local_logits], dim=1)
    torch.testing.assert_close(found, both, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(alone, wanted.dcg_logits, rtol=1e-4, atol=1e-5)


def test_other_names_are_refused(model) -> None:
    with pytest.raises(ValueError, match="tta='flip' must be one of 'none', 'hflip', 'flips', 'rotations', or None"):
        _predict(model, PICTURE, tta="flip")
    with pytest.raises(ValueError, match="tta='flip' is not one of"):
        model.config.replace(tta="flip")
