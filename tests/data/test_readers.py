"""Manifests of folders and tables, and what people get wrong."""

from __future__ import annotations

import pytest
from factories import edited

from diffmiczoo.data.readers import read_manifest


def test_manifest_of_a_csv(manifest_csv) -> None:
    manifest = read_manifest(manifest_csv)
    assert len(manifest) == 40 and manifest.class_names == ("dark", "light") and manifest.task == "multiclass"
    assert manifest.has_splits and len(manifest.split("val")) == 8
    assert manifest.targets().tolist() == [0, 1] * 20 and manifest.groups()[:3] == ["patient0", "patient0", "patient1"]
    assert read_manifest(manifest_csv.parent).records == manifest.records
    ordered = read_manifest(manifest_csv, class_names=["light", "dark"])
    assert ordered.targets().tolist() == [1, 0] * 20


def test_manifest_of_a_folder(image_folder) -> None:
    manifest = read_manifest(image_folder)
    assert len(manifest) == 12 and manifest.class_names == ("dark", "light") and manifest.groups() is None
    assert all(record.path.parent.name == record.labels[0] for record in manifest.records)
    with pytest.raises(ValueError, match="no image belongs to split 'val'"):
        manifest.split("val")


def test_manifest_with_several_labels(manifest_csv) -> None:
    text = "file,label\n0.png,a|b\n1.png,\n2.png,b\n"
    (manifest_csv.parent / "multi.csv").write_text(text)
    manifest = read_manifest(manifest_csv.parent / "multi.csv")
    assert manifest.task == "multilabel" and manifest.targets().tolist() == [[1, 1], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\nx.png,a\n", "needs the columns file and label"),
        ("file,label\n", "lists no images"),
        ("file,label\n0.png,a\nnothing.png,b\n", r"1 of 2 files do not exist, first .*nothing\.png"),
        ("file,label\n0.png,a\n0.png,b\n", "0.png is listed more than once: in line 2 as a, in line 3 as b"),
        (
            "file,label,split\n0.png,a,holdout\n",
            "line 2: split 'holdout' is not one of train.*--map-split holdout=test",
        ),
        ("file,label\n,a\n", "line 2: column file is empty"),
        ("file,label\n0.png,a\n1.png,a\n", "at least two are needed"),
    ],
)
def test_bad_manifests_name_the_line_and_the_cause(manifest_csv, text: str, message: str) -> None:
    path = manifest_csv.parent / "bad.csv"
    path.write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_manifest(path)


def test_bad_manifest_arguments(manifest_csv, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"labels \['light'\] are not among the classes"):
        read_manifest(manifest_csv, class_names=["dark", "grey"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="one per class"):
        read_manifest(tmp_path / "empty")


def test_a_split_for_some_images_only_is_refused(manifest_csv) -> None:
    partly = edited(manifest_csv, lambda lines: [*lines[:3], lines[3].replace("train", ""), *lines[4:]])
    with pytest.raises(ValueError, match=r"1 of 40 images have no split, first 2\.png"):
        read_manifest(partly)


def test_an_empty_label_is_a_mistake_unless_labels_may_be_several(manifest_csv) -> None:
    emptied = edited(manifest_csv, lambda lines: [*lines[:3], lines[3].replace("dark", ""), *lines[4:]])
    with pytest.raises(ValueError, match=r"2\.png has no label"):
        read_manifest(emptied)
    assert read_manifest(emptied, task="multilabel").task == "multilabel"
    several = edited(emptied, lambda lines: [*lines[:2], lines[2].replace("light", "dark|light"), *lines[3:]])
    assert read_manifest(several).task == "multilabel"


def test_a_manifest_in_another_encoding_says_so(tmp_path) -> None:
    (tmp_path / "labels.csv").write_bytes("file,label\nä.png,x\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels\.csv: is not UTF-8 .*save it as CSV UTF-8"):
        read_manifest(tmp_path / "labels.csv")


def test_a_folder_per_split_and_class(image_folder, tmp_path) -> None:
    files = sorted(image_folder.rglob("*.png"))
    for number, file in enumerate(files):
        part = ("train", "validation", "test")[number % 3]
        target = tmp_path / "root" / part / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    manifest = read_manifest(tmp_path / "root")
    assert manifest.class_names == ("dark", "light") and manifest.has_splits
    assert [len(manifest.split(name)) for name in ("train", "val", "test")] == [4, 4, 4]
