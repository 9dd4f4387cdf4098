"""The comparison: what counts as a difference and what as a tie, by rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import animal_prediction, small_model

from diffmiczoo.export import certify
from diffmiczoo.export.pictures import MADE, squares_of
from diffmiczoo.images.items import ImageError


def known(**fields) -> certify.Expected:
    probs = np.array([[0.7, 0.2, 0.1], [0.40004, 0.4, 0.19996], [0.2, 0.3, 0.5]], np.float32)
    outputs = {
        "probs": probs,
        "labels": probs == probs.max(1, keepdims=True),
        "rois": np.zeros((3, 2, 4), np.int64),
        "in_distribution": np.array([True, True, False]),
        "ood_score": np.array([0.5, 0.9999, 1.5], np.float32),
        "uncertainty": np.array([0.45, 0.9, 0.75], np.float32),
        "sets": (probs >= 0.25)[:, None],
        "deferred": np.array([False, True, True]),
    }
    margin = np.array([0.25, 2e-5, 0.1])
    sets = np.abs(probs[:, None] - 0.25)
    return replace(certify.Expected(outputs, np.array([False, False, True]), margin, sets, 0.6), **fields)


def changed(**outputs) -> dict[str, np.ndarray]:
    return {**{name: each.copy() for name, each in known().outputs.items()}, **outputs}


def test_the_same_answers_differ_in_nothing():
    found = certify.compare(known(), [changed(), changed()], 1e-4)
    assert set(found.differences.values()) == {0.0} and found.label_ties == 1 and found.roi_ties == 1
    assert not (found.labels_differ or found.others_differ or found.rois_differ or found.roi_ties_split)


def test_a_label_that_another_rounding_may_turn_is_a_tie_and_no_other():
    turned = known().outputs["labels"].copy()
    turned[1] = [False, True, False]
    found = certify.compare(known(), [changed(), changed(labels=turned)], 1e-4)
    assert (found.labels_differ, found.label_ties_differ) == (0, 1)
    turned[0] = [False, True, False]
    assert certify.compare(known(), [changed(labels=turned)], 1e-4).labels_differ == 1


def test_in_less_precision_another_label_is_no_tie_but_other_decisions_near_their_limit_are():
    outputs = known().outputs
    turned, sets, gate = (outputs[name].copy() for name in ("labels", "sets", "in_distribution"))
    turned[2] = [False, True, False]
    sets[1, 0, 2], gate[1] = True, False  # 0.05 below its limit, and 0.0001 below 1
    rois = known(roi_ties=np.zeros(3, bool))
    found = certify.compare(rois, [changed(labels=turned, sets=sets, in_distribution=gate)], 0.06)
    assert (found.labels_differ, found.label_ties, found.others_differ, found.other_ties_differ) == (1, 1, 0, 2)


def test_other_rois_are_a_fault_unless_two_windows_tie():
    rois = known().outputs["rois"].copy()
    rois[2] += 4
    probs = known().outputs["probs"].copy()
    probs[2] += 0.1
    found = certify.compare(known(), [changed(rois=rois, probs=probs)], 1e-4)
    assert (found.rois_differ, found.roi_ties_split) == (0, 1)
    assert found.differences["probs"] == 0 and found.split_difference == pytest.approx(0.1, abs=1e-6)
    rois[0] += 4
    assert certify.compare(known(), [changed(rois=rois)], 1e-4).rois_differ == 1


def test_differences_are_the_largest_over_batch_sizes_and_nan_is_one():
    probs = known().outputs["probs"].copy()
    probs[0, 0] += 0.01
    found = certify.compare(known(), [changed(), changed(probs=probs), changed()], 1e-4)
    assert found.differences["probs"] == pytest.approx(0.01, abs=1e-6)
    probs[0, 0] = np.nan
    assert certify.compare(known(), [changed(probs=probs)], 1e-4).differences["probs"] == np.inf


@pytest.mark.parametrize(
    ("name", "row", "faults"),
    [("in_distribution", 1, 0), ("in_distribution", 0, 1), ("deferred", 1, 0), ("deferred", 0, 1), ("sets", 0, 1)],
)
def test_sets_gate_and_deferral_may_differ_at_their_limits_only(name, row, faults):
    other = known().outputs[name].copy()
    other[row] = ~other[row]
    assert bool(certify.compare(known(), [changed(**{name: other})], 1e-4).others_differ) == bool(faults)


def test_margin_of_labels():
    probs = torch.tensor([[0.6, 0.3, 0.1]] * 4)
    one = animal_prediction(probs=probs)
    assert certify.label_margin(one) == pytest.approx([0.15] * 4)
    adjusted = replace(one, config=one.config.replace(label_adjustment=(0.0, float(np.log(2)), 0.0)))
    assert certify.label_margin(adjusted) == pytest.approx([0.0] * 4, abs=1e-7)
    several = one.config.replace(task="multilabel", thresholds=(0.5, 0.25, 0.5))
    assert certify.label_margin(replace(one, config=several)) == pytest.approx([0.05] * 4)


def test_pictures_are_made_from_a_seed_or_the_callers():
    config = small_model().config
    made = squares_of(None, config)
    squares, source = made.squares, made.source
    assert squares.shape == (MADE, 64, 64, 3) and squares.dtype == np.uint8 and source == "made from seed 0"
    assert np.array_equal(squares, squares_of(None, config).squares) and squares.std() > 10
    grey, floats = np.zeros((9, 7), np.uint8), np.zeros((9, 7), np.float32)
    own = squares_of([grey, floats], config)
    assert own.squares.shape == (1, 64, 64, 3) and own.source == "the caller's, 1 that hold floats left out"
    with pytest.raises(ValueError, match="verify: all pictures hold floats"):
        squares_of([floats], config)
    with pytest.raises(ImageError, match="no such file"):
        squares_of(["nothing.png"], config)
