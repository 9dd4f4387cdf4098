"""The audit finds each fault that is planted, and nothing in clean data."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from factories import tiny_model
from PIL import Image, ImageOps

import diffmiczoo
from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.finding import LOOK, WRONG, CopiedImages, GiveAway, Interval, Opinion
from diffmiczoo.evaluation.give_aways import give_aways

COUNT = 30
HEADER = "file,label,split,group"


def _picture(number: int, size: int = 40) -> Image.Image:
    """Blotches that no two pictures share."""
    blotches = np.random.default_rng(number).integers(40, 216, (size // 4, size // 4, 3), dtype=np.uint8)
    return Image.fromarray(blotches).resize((size, size), Image.Resampling.BICUBIC)


def _row(number: int) -> str:
    split = "train" if number < 18 else "val" if number < 24 else "test"
    return f"{number}.png,{'ab'[number % 2]},{split},p{number // 2}"


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    for number in range(COUNT):
        _picture(number).save(folder / f"{number}.png")
    (folder / "labels.csv").write_text("\n".join([HEADER, *map(_row, range(COUNT))]) + "\n")
    return folder


@pytest.fixture
def data(clean, tmp_path) -> Path:
    return shutil.copytree(clean, tmp_path / "data")


def add(folder: Path, row: str, picture: Image.Image | bytes | None = None, **options) -> None:
    """Adds an image to the table of a folder."""
    path = folder / row.split(",")[0]
    if isinstance(picture, bytes):
        path.write_bytes(picture)
    elif picture is not None:
        picture.save(path, **options)
    with (folder / "labels.csv").open("a") as table:
        table.write(row + "\n")


def kinds(report: DataReport) -> list[str]:
    return [finding.kind for finding in report.findings]


def test_nothing_is_found_in_clean_data(clean) -> None:
    report = diffmiczoo.audit(clean, progress=False)
    assert not report.findings and not report.wrong and str(report) == "nothing found"
    assert report.counts["train"] == {"a": 9, "b": 9} and len(report.give_aways) == 9


def jpeg(quality: int) -> Callable[[Path, Image.Image], None]:
    return lambda path, image: image.save(path.with_suffix(".jpg"), quality=quality)


@pytest.mark.parametrize(
    ("change", "how", "ending"),
    [
        (lambda image: image, "same pixels", "png"),
        (ImageOps.mirror, "mirrored", "png"),
        (lambda image: image.rotate(180), "turned by 180°", "png"),
        (lambda image: image.resize((60, 60)), "saved or resized anew", "png"),
        (lambda image: image, "saved or resized anew", "jpg"),
    ],
)
def test_a_copy_in_another_split_is_a_leak_with_its_pair(data, change, how: str, ending: str) -> None:
    add(data, f"copy.{ending},a,test,other", change(_picture(4)))
    report = diffmiczoo.audit(data, progress=False)
    (finding,) = report.findings
    assert (finding.kind, finding.severity, finding.count) == ("leak", WRONG, 1) and report.wrong
    (pair,) = finding.copies
    assert pair.names == ("4.png", f"copy.{ending}") and pair.splits == ("train", "test") and pair.how.startswith(how)
    assert "in more than one split (train and test), first 4.png (a, train) = copy" in finding.text


def test_a_copy_in_the_same_split_is_to_be_looked_at(data) -> None:
    add(data, "copy.png,a,train,p2", _picture(4))
    add(data, "other.jpg,a,train,elsewhere", _picture(6))
    report = diffmiczoo.audit(data, progress=False)
    (finding,) = report.findings
    assert (finding.kind, finding.severity, finding.count) == ("copy", LOOK, 2) and not report.wrong
    assert "1 of them in different groups, first 6.png (a, train) = other.jpg" in finding.text


def test_copies_with_other_labels_are_a_conflict(data) -> None:
    add(data, "same.png,b,train,p2", _picture(4))
    add(data, "near.jpg,b,train,p3", _picture(6))
    report = diffmiczoo.audit(data, progress=False)
    assert kinds(report) == ["conflict"] and report.findings[0].count == 2 and report.wrong


def test_another_film_of_a_patient_is_no_certain_conflict() -> None:
    same, alike = (CopiedImages(("1", "2"), ("all", "all"), ("a", "b"), "", correlation=value) for value in (0.95, 0.7))
    report = DataReport({"all": {"a": 9, "b": 9}}, {}, {}, [], [alike])
    assert kinds(report) == ["likely conflict"] and not report.wrong
    both = DataReport({"all": {"a": 9, "b": 9}}, {}, {}, [], [alike, same])
    assert [(each.kind, each.severity, each.count) for each in both.findings] == [
        ("conflict", WRONG, 1),
        ("likely conflict", LOOK, 1),
    ]
    assert both.findings[0].copies == (same,)


def test_every_leaked_image_is_named_although_it_has_a_nearer_copy_in_its_own_split(data) -> None:
    add(data, "near1.jpg,a,test,o1", _picture(4), quality=60)
    add(data, "near2.jpg,a,test,o1", _picture(4), quality=50)
    report = diffmiczoo.audit(data, progress=False)
    assert sorted(pair.names for pair in report.duplicates) == [("4.png", "near1.jpg"), ("4.png", "near2.jpg")]
    assert [pair.names for pair in report.alike] == [("near1.jpg", "near2.jpg")]


def test_a_group_in_two_splits_is_a_leak(data) -> None:
    add(data, "new.png,a,test,p1", _picture(99))
    (finding,) = diffmiczoo.audit(data, progress=False).findings
    assert finding.kind == "group in two splits" and "1 group has images in train and test, first p1" in finding.text


def test_broken_files_are_named_with_the_reason_and_the_rest_is_compared(data) -> None:
    add(data, "broken.png,a,test,o1", (data / "4.png").read_bytes()[:60])
    add(data, "empty.png,b,test,o2", b"")
    add(data, "missing.png,b,test,o3")
    add(data, "copy.png,a,test,o4", _picture(4))
    report = diffmiczoo.audit(data, progress=False)
    assert kinds(report) == ["unreadable", "leak"] and len(report.unreadable) == 3
    text = "\n".join(report.unreadable)
    assert "broken.png: " in text and "empty.png: is empty" in text and "missing.png: no such file" in text


def test_rows_that_contradict_each_other_are_a_conflict(data) -> None:
    add(data, "4.png,b,test,p2")
    report = diffmiczoo.audit(data, progress=False)
    assert kinds(report) == ["group in two splits", "leak", "conflict"]
    assert report.contradictions[0].names == ("4.png", "4.png")


def test_classes_without_images(data, clean) -> None:
    rows = (clean / "labels.csv").read_text().splitlines()
    kept = [row for row in rows if ",b,test" not in row and ",b,train" not in row]
    (data / "labels.csv").write_text("\n".join(kept) + "\n")
    report = diffmiczoo.audit(data, class_names=["a", "b", "c"], progress=False)
    found = {finding.kind: finding for finding in report.findings}
    assert found["class without training images"].examples == ("b", "c") and report.wrong
    assert found["class not measured"].text.startswith("no test image shows b") and len(found) == 2


def test_an_empty_folder_beside_those_of_classes(data, tmp_path) -> None:
    for number in range(COUNT):
        target = tmp_path / "folder" / "ab"[number % 2] / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(data / f"{number}.png", target)
    assert not diffmiczoo.audit(tmp_path / "folder", progress=False).findings
    (tmp_path / "folder" / "c").mkdir()
    report = diffmiczoo.audit(tmp_path / "folder", progress=False)
    assert kinds(report) == ["class without images"] and report.wrong and report.findings[0].examples == ("c",)


@pytest.mark.parametrize(
    ("change", "statistic"),
    [
        (lambda image: ImageOps.expand(image, 4, (0, 0, 0)), "width of the border"),
        (lambda image: image.resize((48, 40)), "shape (width by height)"),
        (lambda image: image.convert("L"), "colour or grey"),
        (lambda image: ImageOps.autocontrast(image.point(lambda value: value // 2 + 120), cutoff=0), "contrast"),
    ],
)
def test_what_gives_the_label_away(data, change, statistic: str) -> None:
    for number in range(1, COUNT, 2):
        change(_picture(number)).save(data / f"{number}.png")
    report = diffmiczoo.audit(data, progress=False)
    found = {given.statistic: given for given in report.give_aways if given.told}
    assert found[statistic].auroc["b"].value > 0.9 and found[statistic].strength
    assert set(kinds(report)) == {"give-away"} and not report.wrong
    assert any(f"the {statistic} tells" in finding.text and "chance 0.5" in finding.text for finding in report.findings)


def test_the_predictor_measures_chance_as_chance_and_more_as_more(clean) -> None:
    rng = np.random.default_rng(0)
    manifest = diffmiczoo.read_manifest(clean)
    targets = manifest.targets()
    statistics = {"chance": rng.normal(size=(COUNT, 2)), "label": targets[:, None] + 0.0, "none": np.zeros((COUNT, 1))}
    chance, label, none = give_aways(manifest, statistics)
    assert chance.auroc["a"].low < 0.5 and not chance.told
    assert label.auroc["a"] == Interval(1.0, 1.0, 1.0) and label.strength == "nearly by itself"
    assert none.auroc["a"] == Interval(0.5, 0.5, 0.5)
    few = manifest.with_records(manifest.records[:12])
    assert not give_aways(few, {"label": few.targets()[:, None]})


def test_words_for_how_strongly() -> None:
    strengths = [GiveAway("x", {"a": Interval(value, low, 1.0)}).strength for value, low in
                 ((0.96, 0.9), (0.86, 0.8), (0.76, 0.7), (0.66, 0.6), (0.64, 0.6), (0.9, 0.5))]  # fmt: skip
    assert strengths == ["nearly by itself", "strongly", "clearly", "somewhat", "", ""]


def test_blank_images_are_no_copies_of_each_other(data) -> None:
    for split in ("train", "test"):
        add(data, f"{split}.png,a,{split},{split}", Image.new("RGB", (40, 40), (3, 3, 3)))
    (finding,) = diffmiczoo.audit(data, progress=False).findings
    assert finding.kind == "blank" and finding.severity == LOOK and finding.count == 2


def test_uneven_classes_are_said() -> None:
    report = DataReport({"all": {"a": 400, "b": 20}}, {}, {}, [], [])
    assert kinds(report) == ["imbalance"] and not report.wrong and "b has 20" in report.findings[0].text
    assert not DataReport({"all": {"a": 400, "b": 21}}, {}, {}, [], []).findings
    assert kinds(DataReport({"all": {"a": 30, "b": 9}}, {}, {}, [], [])) == ["imbalance"]
    assert not DataReport({"all": {"a": 15, "b": 9}}, {}, {}, [], []).findings


def test_the_report_is_written_whole(data, tmp_path) -> None:
    add(data, "copy.png,b,test,p1", _picture(4))
    report = diffmiczoo.audit(data, progress=False)
    report.save(tmp_path / "audit.json")
    saved = json.loads((tmp_path / "audit.json").read_text())
    assert saved["wrong"] and [each["kind"] for each in saved["findings"]] == kinds(report)
    assert saved["duplicates"][0]["names"] == ["4.png", "copy.png"] and saved["duplicates"][0]["groups"] == ["p2", "p1"]


# ---------------------------------------------------------------------- awkward data


def folders(root: Path, count: int = 8) -> Path:
    for number in range(count):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        _picture(number).save(root / "ab"[number % 2] / f"{number}.png")
    return root


def test_a_copy_that_is_turned_by_its_header_alone(tmp_path) -> None:
    folders(tmp_path)
    header = Image.Exif()
    header[0x0112] = 6
    _picture(0).rotate(90).save(tmp_path / "b" / "turned.jpg", exif=header, quality=95)
    (copied,) = diffmiczoo.audit(tmp_path, progress=False).contradictions
    assert copied.names == ("a/0.png", "b/turned.jpg") and copied.how.startswith("saved or resized anew")


@pytest.mark.parametrize(("content", "kind"), [(b"nothing", "unreadable"), (None, "blank")])
def test_data_without_any_picture_to_compare(tmp_path, content: bytes | None, kind: str) -> None:
    for path in folders(tmp_path).rglob("*.png"):
        path.write_bytes(content) if content else Image.new("RGB", (40, 40)).save(path)
    report = diffmiczoo.audit(tmp_path, progress=False)
    assert kinds(report) == [kind] and report.findings[0].count == 8 and not report.give_aways
    report.save(tmp_path / "audit.json")


def test_an_empty_folder_of_a_split_is_no_class(tmp_path) -> None:
    folders(tmp_path / "train")
    (tmp_path / "val").mkdir()
    assert not diffmiczoo.audit(tmp_path, progress=False).findings


def test_many_equal_pictures_are_one_finding(tmp_path) -> None:
    folders(tmp_path)
    for number in range(5):
        _picture(2).save(tmp_path / "a" / f"copy{number}.png")
    (finding,) = diffmiczoo.audit(tmp_path, progress=False).findings
    assert finding.kind == "copy" and finding.count == 1 and len(finding.copies[0].names) == 6


def test_names_that_are_no_text_are_written_all_the_same(tmp_path) -> None:
    name = os.fsencode(folders(tmp_path / "data") / "b") + b"/\xff.png"
    try:
        Path(os.fsdecode(name)).write_bytes((tmp_path / "data" / "a" / "2.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes no such names")
    report = diffmiczoo.audit(tmp_path / "data", progress=False)
    report.save(tmp_path / "audit.json")
    assert (
        json.loads((tmp_path / "audit.json").read_bytes().decode("utf-8"))["contradictions"][0]["names"][1]
        == "b/\udcff.png"
    )


def test_what_cannot_be_found_is_said(tmp_path) -> None:
    folders(tmp_path)
    assert not diffmiczoo.audit(tmp_path, progress=False).notes
    ImageOps.expand(_picture(1).resize((60, 40)), 6, 0).save(tmp_path / "a" / "wide.png")
    (note,) = diffmiczoo.audit(tmp_path, progress=False).notes
    assert note.startswith("images differ in shape and have a border (1): copies that were cut")


def test_a_model_with_a_class_that_no_image_has(data) -> None:
    model = tiny_model(class_names=("a", "b", "c"), num_classes=3)
    report = diffmiczoo.audit(data, model=model, progress=False)
    assert report.opinion.images == COUNT and set(report.counts["train"]) == {"a", "b"}


# ---------------------------------------------------------------------- a model's opinion


@pytest.fixture
def model(monkeypatch):
    """A model that reads the class from the number of the file, with probability 0.9."""
    model = tiny_model(class_names=("a", "b")).eval()

    class Answer:
        def __init__(self, items) -> None:
            import torch

            right = torch.tensor([int(Path(item.name).stem) % 2 for item in items])
            self.probs = torch.full((len(items), 2), 0.1).scatter(1, right[:, None], 0.9)

    monkeypatch.setattr(model, "predict", lambda items, **options: Answer(items))
    return model


def test_a_model_names_suspicious_labels(data, model) -> None:
    text = (data / "labels.csv").read_text().replace("\n7.png,b", "\n7.png,a").replace("\n8.png,a", "\n8.png,b")
    (data / "labels.csv").write_text(text)
    report = diffmiczoo.audit(data, model=model, model_name="m", progress=False)
    (finding,) = report.findings
    assert finding.kind == "suspicious label" and finding.severity == LOOK
    found = {
        label.name: (label.given, label.predicted, round(label.prob_predicted, 2)) for label in report.opinion.labels
    }
    assert found == {"7.png": ("a", "b", 0.9), "8.png": ("b", "a", 0.9)}
    assert "it is not known whether m was trained on these images" in finding.text


def test_a_model_that_has_seen_the_images_is_said_to_have(data, model) -> None:
    from diffmiczoo.data.duplicates import content_hash
    from diffmiczoo.data.image_cache import load_squares
    from diffmiczoo.data.trained_on import PictureSet

    manifest = diffmiczoo.read_manifest(data)
    train = load_squares(manifest.split("train"), model.config, progress=False)
    model.training_pictures = PictureSet.of(map(content_hash, train.numpy()))
    text = (data / "labels.csv").read_text().replace("\n7.png,b", "\n7.png,a")
    (data / "labels.csv").write_text(text)
    report = diffmiczoo.audit(data, model=model, model_name="m", progress=False)
    assert report.opinion.trained_on == 18 and report.opinion.labels[0].trained_on
    assert "m was trained on 18 of these 30 images and may have learned wrong labels" in report.findings[0].text
    assert "trained on none" in Opinion("m", 30, 0, []).caution


def test_a_model_for_other_classes_is_refused(data) -> None:
    with pytest.raises(ValueError, match=r"has the classes \['a', 'b'\], the model \['x', 'y'\]"):
        diffmiczoo.audit(data, model=tiny_model(class_names=("x", "y")), progress=False)
