"""The paper's data sets as they are downloaded."""

from __future__ import annotations

import pytest
from factories import labels_of, write_images

from diffmiczoo.data.downloads import recognized_download
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.splits import complete_splits, leaks


def test_ham10000_as_downloaded(tmp_path) -> None:
    write_images(tmp_path, ["HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_1/I2.jpg", "part_2/I3.jpg"])
    rows = "lesion_id,image_id,dx,dx_type,age,sex,localization\nL1,I1,nv,histo,5,male,back\n"
    rows += "L1,I2,nv,histo,5,male,back\nL2,I3,mel,histo,6,male,back\n"
    (tmp_path / "HAM10000_metadata.csv").write_text(rows)
    manifest = read_manifest(tmp_path)
    assert labels_of(manifest) == {"I1.jpg": ("nv",), "I2.jpg": ("nv",), "I3.jpg": ("mel",)}
    assert manifest.groups() == ["L1", "L1", "L2"] and not manifest.has_splits
    assert manifest.class_names == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def test_aptos2019_as_downloaded(tmp_path) -> None:
    write_images(tmp_path, ["train_images/a.png", "train_images/b.png"])
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na,0\nb,4\n")
    manifest = read_manifest(tmp_path)
    assert labels_of(manifest) == {"a.png": ("no_dr",), "b.png": ("proliferative",)}


def test_chestxray14_as_downloaded(tmp_path) -> None:
    names = [f"0000000{patient}_00{shot}.png" for patient in (1, 2, 3) for shot in (0, 1)]
    write_images(tmp_path, [f"images_001/images/{name}" for name in names])
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID"]
    findings = ["Mass|Edema", "No Finding", "Hernia", "Mass", "Edema", "No Finding"]
    rows += [f"{name},{label},0,{name[7]}" for name, label in zip(names, findings, strict=True)]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:4]) + "\n")
    (tmp_path / "test_list.txt").write_text("\n".join(names[4:]) + "\n")
    manifest = read_manifest(tmp_path)
    assert manifest.task == "multilabel" and len(manifest.class_names) == 14
    assert manifest.records[0].labels == ("Mass", "Edema") and manifest.records[1].labels == ()
    assert [record.split for record in manifest.records] == ["train"] * 4 + ["test"] * 2
    complete, made = complete_splits(manifest)
    assert "no image had split val" in made and not leaks(complete)
    assert {record.split for record in complete.records} == {"train", "val", "test"}


def test_an_original_download_that_lacks_a_picture_says_which(tmp_path) -> None:
    write_images(tmp_path, ["train_images/a.png"])
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na,0\nb,4\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images were not found .* first b"):
        read_manifest(tmp_path)
    assert recognized_download(tmp_path) is not None and recognized_download(tmp_path / "train_images") is None
