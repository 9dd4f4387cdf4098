"""The page of a report: whole in itself, readable without eyes, and with the numbers of the JSON."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from itertools import pairwise

import pytest
import torch
from factories import small_model
from made_reports import CLASSES, Page, scores_for
from PIL import Image

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.ablation import Ablation
from diffmiczoo.metrics.robustness import Robustness, RobustnessRow
from diffmiczoo.metrics.table import class_metrics, find_metric
from diffmiczoo.reporting.page import SECTIONS, page_of
from diffmiczoo.reporting.report import check_opponent
from diffmiczoo.reporting.results import FORMAT, Opponent, StageCurves, Training


@pytest.fixture(scope="module")
def page(usual) -> Page:
    return Page(page_of(usual))


def test_the_page_needs_no_other_file(page) -> None:
    assert {address[:1] for address in page.addresses} <= {"#", "d"}
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", page.text)
    assert len(page.text.encode()) < 5_000_000


def test_links_lead_to_sections_and_headings_are_in_order(page) -> None:
    targets = [address[1:] for address in page.addresses if address.startswith("#")]
    assert len(SECTIONS) == len(set(page.ids)) - 1 and set(targets) <= set(page.ids)
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(lower - upper <= 1 for upper, lower in pairwise(levels))


def test_every_table_has_headings_and_every_picture_words(page) -> None:
    assert len(page.tables) >= 8 and len(page.scopes) > 50
    for caption, (head, *rows) in page.tables.items():
        assert caption and rows and all(len(row) == len(head) for row in rows), caption
    assert {scope for _, scope in page.scopes} == {"col", "row"}
    assert len(page.images) == 8 and all(image["alt"] for image in page.images)
    for chart in re.findall(r"<svg[^>]*>", page.text):
        assert 'role="img"' in chart and re.search('aria-label="[^"]{20,}"', chart)


def test_the_page_shows_the_numbers_of_the_json(usual, page) -> None:
    found = json.loads(json.dumps(usual.to_dict(), allow_nan=False))
    assert found["format"] == FORMAT == 1 and found["data"]["num_groups"] == 12
    metrics = page.column("Metrics with 95 % intervals by drawing whole groups", "model")
    values, intervals = found["quality"]["model"]["values"], found["quality"]["model"]["intervals"]
    for name, value in values.items():
        cell = next(text for row, text in metrics.items() if row.startswith(find_metric(name).label))
        assert cell == "{:.3f} [{:.3f}, {:.3f}]".format(value, *intervals[name])
    table = "Each class against the others, with 95 % intervals"
    for each in found["classes"]:
        for metric in class_metrics():
            cell = page.column(table, metric.label)[each["name"]]
            assert cell == "{:.3f} [{:.3f}, {:.3f}]".format(
                each["values"][metric.name], *each["intervals"][metric.name]
            )
    counts = page.tables["Pictures of each true class by the class they were given"][1:]
    assert [[int(cell.replace("·", "0")) for cell in row[1:]] for row in counts] == found["confusion"]
    assert sum(map(sum, found["confusion"])) == 24


def test_the_first_screen_says_it_in_words(usual, page) -> None:
    first = page.words[: page.words.index("Contents")]
    assert "was shown 24 pictures of 12 groups" in first and "Not for clinical use." in first
    assert "83 %of the pictures get the right label (95 % interval:" in first
    assert "the most frequent label would be right for 33 %" in first
    assert "Of 8 pictures that show it, 6 are found (75 %; 95 % interval" in first
    assert "It does not compare pictures with its training pictures" in first
    assert "fit_limits(model, data) adds it" in page.words
    assert "These are few pictures" in first


def test_subgroups_are_those_of_the_column(usual, page) -> None:
    (table,) = usual.to_dict()["quality"]["subgroups"]
    assert [(each["name"], each["num_images"]) for each in table["subgroups"]] == [("f", 12), ("m", 12)]
    assert page.column("By sex", "images") == {"f": "12", "m": "12", "all": "24"}


def test_confident_errors_come_first_with_their_pictures(usual, page) -> None:
    errors, uncertain = usual.gallery.errors, usual.gallery.uncertain
    assert [shown.row for shown in errors] == [0, 4] and usual.gallery.wrong == 4
    assert [shown.row for shown in uncertain] == [23, 22]
    assert errors[0].confidence > errors[1].confidence and errors[0].truth != errors[0].predicted
    for shown in (*errors, *uncertain):
        for jpeg in (shown.drawn, shown.marked):
            picture = Image.open(io.BytesIO(jpeg))
            assert picture.size == (100, 80) and picture.format == "JPEG" and not picture.getexif()
        assert shown.drawn != shown.marked and len(shown.rois) == 2
    sources = [base64.b64decode(image["src"].split(",")[1]) for image in page.images]
    assert sources[:2] == [errors[0].drawn, errors[0].marked]
    assert b"drawn" not in json.dumps(usual.to_dict()).encode()


def test_names_are_shown_as_they_are_and_never_run(make_report) -> None:
    names = ("<script>alert(1)</script>", 'a"b onload=x', "{{ 7 * 7 }}")
    labels = [[names[row % 3]] for row in range(6)]
    scores = scores_for([CLASSES[row % 3] for row in range(6)], wrong=(0,))
    pictures = [f"<img src=x>{row}.png" for row in range(6)]
    found = make_report(labels, scores, config={"class_names": names}, names=pictures)
    page = Page(page_of(found))
    assert "script" not in page.tags and all(image["src"].startswith("data:") for image in page.images)
    assert names[0] in page.words and "{{ 7 * 7 }}" in page.words and "<img src=x>0.png" in page.words
    assert names[1] in page.column("Pictures of each class", "pictures")


def test_curves_of_a_run_are_drawn(usual) -> None:
    stage = StageCurves((1, 2, 3), (1.0, 0.5, 0.25), "auroc", (0.5, float("nan"), 0.75), 3)
    page = Page(page_of(dataclasses.replace(usual, training=Training({"dcg": stage}))))
    assert "stage dcg: auroc best in epoch 3" in page.words
    label = "AUROC on validation pictures in stage dcg: 0.500 in epoch 1, 0.750 in epoch 3"
    assert label in page.text
    assert "does not lie beside them" in Page(page_of(usual)).words


def test_several_labels_have_their_own_words(make_report) -> None:
    labels = [["cat", "dog"], ["dog"], [], ["eel"], ["cat"], ["dog", "eel"]]
    scores = torch.tensor(
        [[0.9, 0.8, 0.1], [0.1, 0.9, 0.1], [0.1, 0.7, 0.1], [0.1, 0.1, 0.2], [0.8, 0.1, 0.1], [0.1, 0.9, 0.9]]
    )
    found = make_report(labels, scores, config={"task": "multilabel"})
    page = Page(page_of(found))
    assert found.confusion is None and "no one of them is taken for another" in page.words
    assert "How well does it rank?" in page.words and "labelled no finding" in page.words
    assert found.gallery.errors[0].row in (2, 3)
    assert sum(each.count for each in found.reliability) == 18


def test_what_was_asked_for_besides_is_shown(usual) -> None:
    values = usual.quality.model.values
    ablation = Ablation({"global": values, "pool": values}, {"priors": dict.fromkeys(values, (0.1, 0.05, 0.2))})
    row = RobustnessRow("clean", 0, {"accuracy": 0.75, "nll": 1.5}, 0.9, 1.25, 0.125)
    dark = dataclasses.replace(row, corruption="colour_cast", severity=3, flagged=0.5)
    quality = dataclasses.replace(usual.quality, ablation=ablation, robustness=Robustness(24, 0.1, row, (dark,)))
    other = Opponent(
        "timm/<b>", dataclasses.replace(usual.quality.model, num_trained_on=7), {"nll": (-0.25, -0.5, 0.125)}
    )
    page = Page(page_of(dataclasses.replace(usual, quality=quality, against=(other,))))
    assert page.column("24 pictures in 1 corrupted versions", "flagged") == {
        "clean": "0.125", "colour cast, severity 3": "0.500", "mean": "0.500"
    }  # fmt: skip
    assert page.column("The same pictures, other models", "model − timm/<b>")["NLL"] == "-0.250 [-0.500, +0.125]"
    assert "7 of the pictures were used to train timm/<b>" in page.words
    parts = page.column("The parts of the model, each calibrated on the validation pictures", "accuracy")
    assert parts["ŷ_g alone"] == f"{values['accuracy']:.3f}" and "+0.100 [+0.050, +0.200]" in parts.values()


def test_what_the_makers_say_is_shown(usual) -> None:
    model = dataclasses.replace(
        usual.model, intended_use="Teaching.", stated_limits=("See `tools/x.py`.", "<i>No</i> dogs.")
    )
    page = Page(page_of(dataclasses.replace(usual, model=model)))
    assert "For: Teaching." in page.words and "See tools/x.py." in page.words and "<i>No</i> dogs." in page.words
    assert "No card lies beside these weights" in Page(page_of(usual)).words


def test_models_of_other_classes_are_no_opponents() -> None:
    one, other = small_model(class_names=CLASSES), small_model(class_names=("cat", "dog", "emu"))
    check_opponent("same", one, small_model(class_names=CLASSES[::-1]))
    with pytest.raises(
        InvalidValueError, match=r"against other: its classes are \['cat', 'dog', 'emu'\] \(multiclass\)"
    ):
        check_opponent("other", one, other)


def test_pictures_show_another_map_where_it_is_asked_for(make_report) -> None:
    labels = ["cat", "dog", "eel", "cat"]
    arguments = ([[label] for label in labels], scores_for(labels, wrong=(1,)))
    usual, other = make_report(*arguments), make_report(*arguments, options={"explain": "global"})
    assert [shown.looked_for for shown in other.gallery.errors] == [shown.looked_for for shown in usual.gallery.errors]
    assert other.gallery.errors[0].drawn == usual.gallery.errors[0].drawn
    assert other.gallery.errors[0].marked != usual.gallery.errors[0].marked
    assert "where the model looked (Grad-CAM, global stream)" in Page(page_of(other)).words
    assert "where the model looked (saliency)" in Page(page_of(usual)).words
    with pytest.raises(ValueError, match="method='cam' must be one of"):
        make_report(*arguments, options={"explain": "cam"})
