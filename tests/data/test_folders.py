"""What people have in their folders: what becomes a class, a split, an image, and what is left out and said."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest, read_manifest
from diffmiczoo.data.summary import count_lines, log_manifest, reading_lines


def write(root: Path, *names: str) -> Path:
    """Makes files, "a/{1..3}.png" three of them, and a folder where a name ends in "/"."""
    for pattern in names:
        several = ["{1..3}"] if "{1..3}" in pattern else [""]
        for sign in several:
            for number in "123" if sign else "1":
                path = root / pattern.replace("{1..3}", number)
                if pattern.endswith("/"):
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(str(path).encode())
    return root


def counts(manifest: Manifest) -> dict[tuple[str, str | None], int]:
    """Returns (class, split) → images."""
    return dict(Counter((record.labels[0], record.split) for record in manifest.records))


def left_out(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Returns reason → what was left out."""
    return {part.reason: part.names for part in manifest.skipped}


BOTH = ("a/{1..3}.png", "b/{1..3}.png")
NO_LABELS = "split folders whose images are not in a folder per class"


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("Training", "Testing", "test"),
        ("train", "dev", "val"),
        ("TRAIN", "VALID", "val"),
        ("trn", "tst", "test"),
        ("training", "validation", "val"),
        ("train_images", "test-set", "test"),
        ("Train Data", "valset", "val"),
        ("train", "Development", "val"),
    ],
)
def test_split_folders_of_usual_names(tmp_path, train: str, other: str, split: str) -> None:
    write(tmp_path, *(f"{part}/{name}" for part in (train, other) for name in BOTH))
    manifest = read_manifest(tmp_path)
    assert manifest.class_names == ("a", "b")
    assert counts(manifest) == {(name, part): 3 for name in "ab" for part in ("train", split)}


def test_words_for_splits_can_be_given(tmp_path) -> None:
    write(tmp_path, *(f"{part}/{name}" for part in ("train", "holdout", "old") for name in BOTH))
    assert left_out(read_manifest(tmp_path)) == {"folders that are no split": ("holdout", "old")}
    manifest = read_manifest(tmp_path, map_split={"Holdout": "test", "old": "skip"})
    assert counts(manifest) == {(name, part): 3 for name in "ab" for part in ("train", "test")}
    assert left_out(manifest) == {"folders that are mapped to skip": ("old",)}
    with pytest.raises(ValueError, match="holdout=exam: a split is train, val, test, or skip"):
        read_manifest(tmp_path, map_split={"holdout": "exam"})


@pytest.mark.parametrize(
    ("names", "skipped"),
    [
        (("train/a/{1..3}.png", "train/b/{1..3}.png", "docs/figure.png"), {"folders that are no split": ("docs",)}),
        (("train/a/{1..3}.png", "train/b/{1..3}.png", "test/9.png"), {NO_LABELS: ("test",)}),
        (("train/a/{1..3}.png", "train/b/{1..3}.png", "figure.png"), {"images beside the folders": ("figure.png",)}),
        (("train/a/{1..3}.png", "train/b/{1..3}.png", "train/c/"), {"folders without images": ("train/c",)}),
        (("train/a/{1..3}.png", "train/b/{1..3}.png", "test/"), {"folders without images": ("test",)}),
        (("Train/a/{1..3}.png", "Train/b/{1..3}.png", "Train/x.png"), {"images beside the folders": ("Train/x.png",)}),
    ],
)
def test_what_lies_beside_splits_is_left_out_and_said(tmp_path, names, skipped) -> None:
    manifest = read_manifest(write(tmp_path, *names))
    assert counts(manifest) == {("a", "train"): 3, ("b", "train"): 3} and left_out(manifest) == skipped


@pytest.mark.parametrize(
    ("more", "skipped"),
    [
        ("test/{1..3}.png", {NO_LABELS: ("test",)}),
        ("figure.png", {"images beside the folders": ("figure.png",)}),
        ("c/", {"folders without images": ("c",)}),
        ("c/notes.txt", {"files that are no images": ("c/notes.txt",), "folders without images": ("c",)}),
        ("a/@eaDir/1.png/THUMB.jpg", {"hidden or system files and folders": ("a/@eaDir",)}),
        ("__MACOSX/a/._1.png", {"hidden or system files and folders": ("__MACOSX",)}),
        (".ipynb_checkpoints/1-checkpoint.png", {"hidden or system files and folders": (".ipynb_checkpoints",)}),
        ("a/.thumbnails/1.png", {"hidden or system files and folders": ("a/.thumbnails",)}),
        ("$RECYCLE.BIN/1.png", {"hidden or system files and folders": ("$RECYCLE.BIN",)}),
        ("lost+found/1.png", {"hidden or system files and folders": ("lost+found",)}),
        ("#recycle/1.png", {"hidden or system files and folders": ("#recycle",)}),
        ("a/._1.png", {"hidden or system files and folders": ("a/._1.png",)}),
        ("a/Thumbs.db", {"files that are no images": ("a/Thumbs.db",)}),
        ("a/1_mask.png", {"masks of pictures that lie there too": ("a/1_mask.png",)}),
        ("a/1_mask_2.png", {"masks of pictures that lie there too": ("a/1_mask_2.png",)}),
        ("a/1_Segmentation.tif", {"masks of pictures that lie there too": ("a/1_Segmentation.tif",)}),
        ("a/1_seg.png", {"masks of pictures that lie there too": ("a/1_seg.png",)}),
        ("a/mask_1.png", {"masks of pictures that lie there too": ("a/mask_1.png",)}),
        ("a/masks/1.png", {"masks of pictures that lie there too": ("a/masks/1.png",)}),
        ("masks/1.png", {"masks of pictures that lie there too": ("masks/1.png",)}),
        ("masks/a/1.png", {"masks of pictures that lie there too": ("masks/a/1.png",)}),
        ("Ground_Truth/1_mask.png", {"masks of pictures that lie there too": ("Ground_Truth/1_mask.png",)}),
        ("a/thumbs/1.png", {"thumbnails of pictures that lie there too": ("a/thumbs/1.png",)}),
        ("a/1_thumb.jpg", {"thumbnails of pictures that lie there too": ("a/1_thumb.jpg",)}),
    ],
)  # fmt: skip
def test_what_lies_beside_classes_is_left_out_and_said(tmp_path, more: str, skipped) -> None:
    manifest = read_manifest(write(tmp_path, *BOTH, more))
    assert counts(manifest) == {("a", None): 3, ("b", None): 3} and left_out(manifest) == skipped


@pytest.mark.parametrize("name", ["a/9_mask.png", "a/unmasked.png", "a/segment.png", "a/9_seg.png"])
def test_what_looks_like_a_mask_and_has_no_picture_is_one(tmp_path, name: str) -> None:
    manifest = read_manifest(write(tmp_path, *BOTH, name))
    assert counts(manifest) == {("a", None): 4, ("b", None): 3} and not manifest.skipped


def test_classes_with_and_without_mask_are_classes(tmp_path) -> None:
    assert read_manifest(write(tmp_path, "mask/{1..3}.png", "no_mask/{1..3}.png")).class_names == ("mask", "no_mask")


@pytest.mark.parametrize("wrap", ["archive", "archive/Data", "__MACOSX/../set"])
def test_one_folder_around_everything_is_looked_into(tmp_path, wrap: str) -> None:
    write(tmp_path, *(f"{wrap}/train/{name}" for name in BOTH), *(f"{wrap}/test/{name}" for name in BOTH))
    manifest = read_manifest(tmp_path)
    assert counts(manifest) == {(name, part): 3 for name in "ab" for part in ("train", "test")}
    assert any("the one folder that holds images" in note for note in manifest.notes)


def test_images_beside_masks_in_folders_of_their_own(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, *(f"{part}/{name}" for part in ("images", "masks") for name in BOTH)))
    assert counts(manifest) == {("a", None): 3, ("b", None): 3}
    assert len(left_out(manifest)["masks of pictures that lie there too"]) == 6


def test_splits_inside_the_classes(tmp_path) -> None:
    manifest = read_manifest(
        write(tmp_path, *(f"{name}/{part}/{{1..3}}.png" for name in "ab" for part in ("train", "Test")))
    )
    assert counts(manifest) == {(name, part): 3 for name in "ab" for part in ("train", "test")}
    assert "splits are read from the folders inside the classes" in manifest.notes


def test_patients_inside_the_classes_belong_to_the_class_and_are_said(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, "a/p1/{1..3}.png", "b/p2/left/{1..3}.png"))
    assert counts(manifest) == {("a", None): 3, ("b", None): 3} and manifest.groups() is None
    assert any("such as a/p1/" in note and "column group" in note for note in manifest.notes)


def test_classes_spelled_differently_in_splits_are_one(tmp_path) -> None:
    manifest = read_manifest(
        write(tmp_path, "train/No Tumor/1.png", "train/b/1.png", "test/no tumor/1.png", "test/B/1.png")
    )
    assert manifest.class_names == ("No Tumor", "b")
    assert counts(manifest) == {(name, part): 1 for name in ("No Tumor", "b") for part in ("train", "test")}
    assert sum("are one class" in note for note in manifest.notes) == 2


def test_a_class_that_only_the_test_split_has_is_a_class(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, "train/a/1.png", "train/b/1.png", "test/c/1.png"))
    assert counts(manifest) == {("a", "train"): 1, ("b", "train"): 1, ("c", "test"): 1}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "at least two sub-folders with images, one per class; found nothing"),
        (("1.png", "2.png"), "one per class; found 2 images without a folder"),
        (("a/1.png", "list.csv"), r"found the folder a/; if list\.csv lists the images, hand in .*list\.csv"),
        (("a/1.png", "b/"), "found the folder a/, b/ without images"),
        (("train/1.png", "test/1.png"), "test/ and train/ is named like a split and has no folder per class"),
        (("train/1.png", "a/1.png", "b/1.png"), "train/ is named like a split"),
        (("test/1.png", "a/1.png"), "test/ is named like a split"),
        (("test/a/1.png", "test/b/1.png", "a/1.png", "b/1.png"), "a/ and b/ beside it belongs to no split"),
        (("train/a/1.png", "train/b/1.png", "train/test/1.png"), "train/test/ lies where classes are"),
        (("a/train/1.png", "a/test/1.png", "b/1.png"), r"a/ holds split folders, b/ holds other images too"),
        (("a/train/1.png", "a/2.png", "b/train/1.png"), r"b/ holds split folders, a/ holds other images|a/ holds"),
        (("x/train/a/1.png", "x/train/b/1.png", "y/train/a/1.png", "y/train/b/1.png"), "x/ and y/ are data sets"),
        (("fold_1/a/1.png", "fold_1/b/1.png", "fold_2/a/1.png"), "fold_1/ is named like a fold of cross-validation"),
        (("a/1.png", "A/1.png"), "the folders 'A' and 'a' differ only in how they are written"),
        (("train/a/1.png", "train/a /2.png"), "the folders 'a' and 'a ' differ only in how"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(tmp_path, names, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(write(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_links_to_classes_are_followed_but_not_in_circles(tmp_path) -> None:
    write(tmp_path / "elsewhere", *BOTH)
    (tmp_path / "set").mkdir()
    for name in "ab":
        (tmp_path / "set" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere/a/circle").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere/b/circle").symlink_to(tmp_path / "elsewhere")
    assert counts(read_manifest(tmp_path / "set")) == {("a", None): 3, ("b", None): 3}


def test_links_are_read_in_any_order_and_no_image_twice(tmp_path) -> None:
    write(tmp_path, *BOTH, "c/1.png")
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    (tmp_path / "c/more").mkdir()
    (tmp_path / "c/linked").symlink_to(tmp_path / "c/more")
    write(tmp_path, "c/more/2.png")
    manifest = read_manifest(tmp_path)
    assert counts(manifest) == {("a", None): 3, ("b", None): 3, ("c", None): 2}
    assert len(left_out(manifest)["links to images that are there already"]) == 1
    for name in ("0_before", "z_after"):
        (tmp_path / name).symlink_to(tmp_path / "a")
        with pytest.raises(ValueError, match=r"1\.png and .*/1\.png are the same file, by a link, in two classes"):
            read_manifest(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("dataset_train", "dataset_test", "test"),
        ("1_train", "2_val", "val"),
        ("train_80", "val_10", "val"),
        ("ISIC_Training_Input", "ISIC_Test_Input", "test"),
        ("skinTrain", "skinTest", "test"),
        ("training_set/training_set", "test_set/test_set", "test"),
        ("train/images", "test/images", "test"),
    ],
)
def test_names_of_splits_with_more_in_them(tmp_path, train: str, other: str, split: str) -> None:
    names = [f"{folder}/{label}/{{1..3}}.png" for folder in (train, other) for label in "ab"]
    found = counts(read_manifest(write(tmp_path, *names)))
    assert found == {(label, part): 3 for label in "ab" for part in ("train", split)}


@pytest.mark.parametrize("outer", [("internal", "external"), ("hospitalA", "hospitalB"), ("colour", "thermal")])
def test_folders_that_hold_the_same_classes_are_asked_about(tmp_path, outer: tuple[str, str]) -> None:
    write(tmp_path, *(f"{folder}/{label}/1.png" for folder in outer for label in ("benign", "malignant")))
    with pytest.raises(ValueError, match="hold folders of the same names, benign and malignant, so that either may be"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path, class_names=outer).counts == dict.fromkeys(outer, 2)


PARTS = [("left", "right"), ("40X", "100X"), ("images", "cropped")]


@pytest.mark.parametrize(
    ("classes", "inner"),
    [
        *((("0", "1"), parts) for parts in PARTS),
        *((("benign", "malignant"), parts) for parts in (*PARTS, ("1", "2"), ("p1", "p2"))),
    ],
)
def test_parts_of_classes_are_no_classes(tmp_path, inner: tuple[str, str], classes: tuple[str, str]) -> None:
    write(tmp_path, *(f"{label}/{part}/1.png" for label in classes for part in inner))
    assert read_manifest(tmp_path).counts == dict.fromkeys(classes, 2)


def test_more_of_a_split_beside_it_is_left_out(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, "train/a/1.png", "train/b/1.png", "train_augmented/a/1.png"))
    assert len(manifest) == 2 and left_out(manifest) == {"folders that are no split": ("train_augmented",)}


def test_folders_of_images_inside_of_classes_go_without_saying(tmp_path) -> None:
    names = [f"{label}/{kind}/{label}-1.png" for label in ("COVID", "Normal") for kind in ("images", "masks")]
    manifest = read_manifest(write(tmp_path, *names))
    assert manifest.counts == {"COVID": 1, "Normal": 1} and not manifest.notes


@pytest.mark.parametrize("names", [("a/1.png",), ("a/p1/1.png", "a/p1/2.png"), ("A /1.png",)])
def test_one_class_is_enough_where_classes_are_known(tmp_path, names: tuple[str, ...]) -> None:
    manifest = as_manifest(write(tmp_path, *names), known=("b", "a"))
    assert {label.lower() for label in manifest.counts} == {"a"} and len(manifest) == len(names)
    with pytest.raises(ValueError, match="at least two sub-folders with images"):
        as_manifest(tmp_path, known=("b", "c"))


@pytest.mark.parametrize("second", ["na\u0308vus", "n\u00e4vus", "n\u00e4vus\u200b"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_one_name_in_two_ways_of_unicode_is_one_class(tmp_path, second: str, split: str) -> None:
    manifest = read_manifest(write(tmp_path, "train/n\u00e4vus/1.png", "train/b/1.png", f"{split}/{second}/2.png"))
    assert manifest.counts == {"b": 1, "n\u00e4vus": 2}


@pytest.mark.parametrize("name", ["metadata.csv", "images/metadata.csv", "ids.parquet", "metadata.jsonl"])
def test_a_table_that_may_list_the_images_is_named(tmp_path, name: str) -> None:
    write(tmp_path, "images/1.png", "images/2.png", "notes.txt", name)
    with pytest.raises(ValueError, match=f"if {name} lists the images, hand in {tmp_path / name}"):
        read_manifest(tmp_path)


def test_an_archive_that_holds_everything_twice(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, *BOTH, *(f"brain_tumor_dataset/{name}" for name in BOTH)))
    assert counts(manifest) == {("a", None): 3, ("b", None): 3}
    assert left_out(manifest) == {"folders that hold all classes once more": ("brain_tumor_dataset",)}


def test_a_table_in_the_folder_is_read_and_said(tmp_path) -> None:
    write(tmp_path, *BOTH)
    (tmp_path / "labels.csv").write_text("file,label\na/1.png,x\nb/1.png,y\n")
    manifest = read_manifest(tmp_path)
    assert manifest.class_names == ("x", "y") and "labels.csv in the folder says what the images are" in manifest.notes


def test_names_of_columns_are_for_tables(tmp_path) -> None:
    with pytest.raises(ValueError, match="has no columns such as dx; only tables have"):
        read_manifest(write(tmp_path, *BOTH), label_column="dx")


def test_what_was_read_in_a_few_lines(tmp_path, caplog) -> None:
    manifest = read_manifest(
        write(tmp_path / "set", "train/a/{1..3}.png", "Test/b\nb/1.png", "test/c/1_mask.png", "x.png")
    )
    assert count_lines(manifest) == [
        "set: 5 images, 3 classes, multiclass",
        "  train 3: a 3, b\N{REPLACEMENT CHARACTER}b 0, c 0",
        "  test  2: a 0, b\N{REPLACEMENT CHARACTER}b 1, c 1",
    ]
    assert reading_lines(manifest) == ["folders used: Test/ as test", "left out images beside the folders: x.png"]
    with caplog.at_level("INFO", "diffmiczoo"):
        log_manifest(manifest)
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels["set: left out images beside the folders: x.png"] == "WARNING" and len(levels) == 5
    assert levels["folders used: Test/ as test"] == "INFO"


RUN = ("recipe.json", "data_report.json", "curves.png", "best/config.json")


@pytest.mark.parametrize("place", ["", "out/", "a/", "train/a/"])
def test_a_run_of_fit_is_no_class_and_its_drawings_are_no_images(tmp_path, place: str) -> None:
    classes = [f"train/{name}" for name in BOTH] if place == "train/a/" else BOTH
    manifest = read_manifest(write(tmp_path, *classes, *(f"{place}run/{name}" for name in RUN)))
    split = "train" if place == "train/a/" else None
    assert counts(manifest) == {("a", split): 3, ("b", split): 3}
    assert left_out(manifest)["directories of runs of fit"] == (f"{place}run",)


def test_a_class_that_holds_one_of_a_runs_files_is_a_class(tmp_path) -> None:
    assert counts(read_manifest(write(tmp_path, *BOTH, "a/recipe.json"))) == {("a", None): 3, ("b", None): 3}
