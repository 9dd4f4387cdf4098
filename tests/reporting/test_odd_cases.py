"""Reports on data that lack something: it is said in a sentence, and nothing is drawn of nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import small_model
from made_reports import CLASSES, Page, scores_for

from diffmiczoo.config import DiffMICConfig, choices
from diffmiczoo.errors import DiffMICError, InvalidValueError
from diffmiczoo.hub.checksums import sha256_of
from diffmiczoo.images.items import Item
from diffmiczoo.inference.limits import settings_of
from diffmiczoo.model import DiffMICv2
from diffmiczoo.reporting.page import page_of
from diffmiczoo.reporting.report import ReportOptions, report
from diffmiczoo.trust.conformal import fit_sets
from diffmiczoo.trust.stored import Trust


def page_and_json(report) -> tuple[Page, dict]:
    return Page(page_of(report)), json.loads(json.dumps(report.to_dict(), allow_nan=False))


def test_a_class_that_no_picture_shows(make_report) -> None:
    labels = ["cat", "dog"] * 5
    page, found = page_and_json(make_report([[label] for label in labels], scores_for(labels, wrong=(1,))))
    eel = next(each for each in found["classes"] if each["name"] == "eel")
    assert eel["roc"] is None and eel["values"]["auroc"] is None and eel["positives"] == 0
    assert "No picture shows eel" in page.words and "No curve for eel" in page.words
    assert page.column("Each class against the others, with 95 % intervals", "AUROC")["eel"] == "–"


def test_one_picture(make_report) -> None:
    page, found = page_and_json(make_report([["cat"]], scores_for(["cat"])))
    assert "One picture, or one group, says nothing about others" in page.words
    assert "There are no curves" in page.words and "nowhere here" in page.words
    assert found["quality"]["model"]["intervals"] == {} and found["risk"]["low"] == []
    assert "Metrics; too few pictures for intervals" in page.tables


def test_nothing_is_wrong(make_report) -> None:
    labels = [CLASSES[row % 3] for row in range(9)]
    found = make_report([[label] for label in labels], scores_for(labels))
    page, _ = page_and_json(found)
    assert found.gallery.errors == () and "every picture is given exactly its true labels" in page.words
    # Resamples of nine right pictures know no doubt; nine are few.
    assert found.risk.y[-1] == 0 and found.risk.high[-1] == pytest.approx(1 - 0.025 ** (1 / 9), abs=1e-4)
    assert found.classes[0].intervals["recall"] == (pytest.approx(0.025 ** (1 / 3)), 1.0)


def test_nothing_is_right(make_report) -> None:
    labels = [CLASSES[row % 3] for row in range(9)]
    found = make_report([[label] for label in labels], scores_for(labels, wrong=range(9)), options={"pictures": 20})
    page, _ = page_and_json(found)
    assert found.gallery.uncertain == () and "There are none besides those above" in page.words
    assert len(page.images) == 18


def test_no_pictures_no_resamples_no_calibration(make_report) -> None:
    labels = [CLASSES[row % 3] for row in range(9)]
    options = {"pictures": 0, "bootstrap": 0, "copies": False}
    config = {"temperature": None}
    made = make_report([[each] for each in labels], scores_for(labels, wrong=(2,)), config=config, options=options)
    page, found = page_and_json(made)
    assert not page.images and "they were not asked for" in page.words
    assert "only their order" in page.words and "were not calibrated" in page.words
    assert "difference" not in found["quality"] and found["copies"]["missing"] in page.words


def test_the_same_picture_with_another_label(make_report) -> None:
    labels = [CLASSES[row % 3] for row in range(6)]
    pixels = np.random.default_rng(3).integers(0, 255, (6, 80, 100, 3), dtype=np.uint8)
    pixels[4], pixels[3] = pixels[0], pixels[2]
    items = [Item(f"scan{row}.png", array) for row, array in enumerate(pixels)]
    found = make_report([[each] for each in labels], scores_for(labels, wrong=(0,)), items=items)
    page, _ = page_and_json(found)
    assert [copied.names for copied in found.copies.conflicts] == [
        ("scan0.png", "scan4.png"),
        ("scan2.png", "scan3.png"),
    ]
    assert "shows the same as scan4.png (dog): same pixels" in page.words


def test_counts_that_are_none() -> None:
    for name, value in (("pictures", -1), ("bootstrap", 0.5)):
        with pytest.raises(InvalidValueError, match=f"{name}={value} must be a whole number"):
            ReportOptions(**{name: value})


def test_what_weights_know_of_their_limits_is_shown(make_report) -> None:
    labels = [CLASSES[row % 3] for row in range(12)]
    truth = np.eye(3)[[row % 3 for row in range(60)]]
    sets = fit_sets(np.clip(truth * 0.7 + 0.1, 0, 1), truth)
    fields = {"num_classes": 3, "class_names": CLASSES, "image_size": 64, "roi_size": 16, "num_rois": 2}
    config = DiffMICConfig(**fields, temperature=0.7)
    far = torch.linspace(0.2, 1.3, 12)
    trust = Trust(settings_of(config), sets=sets)
    scores, steps = scores_for(labels, wrong=(3,)), config.sampling_steps
    found = make_report([[each] for each in labels], scores, trust=trust, ood_score=far, steps=steps)
    page, values = page_and_json(found)
    flagged = int((far > 1).sum())
    assert (
        values["limits"]["distances"]["flagged"] == flagged
        and f"{flagged} of 12 pictures are called unlike" in page.words
    )
    distances = found.limits.distances
    assert sum(distances.right) == 11 and sum(distances.wrong) == 1 and distances.names[0] == "scan11.png"
    assert sum(values["limits"]["sets"]["sizes"].values()) == 12
    table = page.column("Promised and found, at each level", "true class inside")
    share = values["limits"]["report"]["sets"][3]
    assert share["alpha"] == 0.1 and share["by_class"]
    assert table["90 % in each class"] == f"{100 * share['coverage']:.1f} %"

    other = Trust({**settings_of(config), "temperature": 0.5}, sets=sets)
    changed = make_report([[each] for each in labels], scores, trust=other, steps=steps)
    assert "were fitted for other predictions: temperature=0.7" in Page(page_of(changed)).words


@pytest.mark.parametrize("predictor", choices(DiffMICConfig, "predictor"))
def test_every_kind_of_model_has_a_page(usual, predictor: str) -> None:
    assert "what predicts" in Page(page_of(replace(usual, model=replace(usual.model, predictor=predictor)))).words


def test_a_page_names_the_file_of_the_weights_only_while_they_are_the_models(tmp_path) -> None:
    stored = small_model(trained=True, class_names=CLASSES)
    stored.save_pretrained(tmp_path / "weights")
    (tmp_path / "weights" / "card.json").write_text('{"limits": "Not for eels.", "license": null}')
    model = DiffMICv2.from_pretrained(tmp_path / "weights")
    data = list(zip(np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8), CLASSES, strict=True))
    options = {"pictures": 0, "bootstrap": 0, "copies": False}
    found = report(model, data, tmp_path / "page", **options).model
    assert found.weights_sha256 == sha256_of(tmp_path / "weights" / "model.safetensors")
    assert found.stated_limits == ("Not for eels.",) and found.license == ""
    model.config = model.config.replace(temperature=2.0)
    assert report(model, data, tmp_path / "page", **options).model.weights_sha256 == ""
    for arguments, said in (
        ({"run": tmp_path}, "holds no metrics.csv"),
        ({"against": [model]}, "must be name → model"),
    ):
        with pytest.raises(DiffMICError, match=said):
            report(model, data, tmp_path / "page", **options, **arguments)
