"""Tables and folders as public data sets are handed out, with nothing renamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest, read_manifest


def write(root: Path, table: str, text: str, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    (root / table).parent.mkdir(parents=True, exist_ok=True)
    (root / table).write_text(text)
    return root / table


def rows_of(manifest: Manifest) -> list[tuple[str, str, str | None]]:
    return [(record.path.name, "|".join(record.labels), record.group) for record in manifest.records]


def test_chestxray14_has_commas_in_its_header(tmp_path) -> None:
    head = "Image Index,Finding Labels,Patient ID,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    text = f"{head}1.png,Cardiomegaly|Effusion,1,2682,2749,0.143,0.143,\n2.png,No Finding,2,2682,2749,0.1,0.1,\n"
    path = write(tmp_path, "Data_Entry_2017.csv", text, "images_001/images/1.png", "images_001/images/2.png")
    manifest = read_manifest(path)
    assert rows_of(manifest) == [("1.png", "Cardiomegaly|Effusion", "1"), ("2.png", "No Finding", "2")]
    assert manifest.task == "multilabel"


CHEXPERT = "CheXpert/train/patient{}/study1/view1_frontal.jpg"


def test_chexpert_has_paths_from_above_and_marks_what_is_uncertain(tmp_path) -> None:
    names = [CHEXPERT.format(number) for number in range(3)]
    head = "Path,Sex,No Finding,Edema\n"
    names[1] = CHEXPERT.format(0).replace("view1", "view2")
    certain = f"{head}{names[0]},Female,1.0,\n{names[1]},Male,,1.0\n{names[2]},Male,,0.0\n"
    path = write(tmp_path, "CheXpert/train.csv", certain, *names)
    columns = ["No Finding", "Edema"]
    manifest = read_manifest(path, label_column=columns, task="multilabel")
    assert [record.labels for record in manifest.records] == [("No Finding",), ("Edema",), ()]
    assert [str(record.path.relative_to(tmp_path)) for record in manifest.records] == names
    assert manifest.notes[-1].startswith("images lie in folders such as patient0, and no column says which belong")
    quiet = read_manifest(path, label_column=columns, task="multilabel", group_column="none")
    assert not any("lie in folders" in note for note in quiet.notes)
    path.write_text(certain.replace(",0.0\n", ",-1.0\n"))
    for options in ({"label_column": columns}, {"class_names": columns}):
        with pytest.raises(ValueError, match=r"line 4: column Edema holds '-1\.0'; a column per label holds 0 and 1"):
            read_manifest(path, task="multilabel", **options)
    with pytest.raises(ValueError, match=r"line 4: column Edema holds '-1\.0'"):
        as_manifest(path, known=columns, task="multilabel")


def test_rsna_has_boxes_and_patients_that_are_files(tmp_path) -> None:
    text = "patientId,x,y,width,height,Target\na,1,2,3,4,1\na,5,6,7,8,1\nb,,,,,0\n"
    manifest = read_manifest(write(tmp_path, "labels_of_boxes.csv", text, "stage_2/a.dcm", "stage_2/b.dcm"))
    assert rows_of(manifest) == [("a.dcm", "1", None), ("b.dcm", "0", None)]
    assert "columns used: patientId as file, Target as label" in manifest.notes


def test_pad_ufes_has_patients_with_lesions(tmp_path) -> None:
    text = "patient_id,lesion_id,smoke,diagnostic,img_id\nP0,10,,NEV,a.png\nP0,11,,BCC,b.png\nP1,12,True,BCC,c.png\n"
    files = ["imgs_part_1/a.png", "imgs_part_1/b.png", "imgs_part_2/c.png"]
    manifest = read_manifest(write(tmp_path, "metadata.csv", text, *files))
    assert rows_of(manifest) == [("a.png", "NEV", "P0"), ("b.png", "BCC", "P0"), ("c.png", "BCC", "P1")]


def test_isic_has_a_column_for_a_class_that_no_image_shows(tmp_path) -> None:
    text = "image,MEL,NV,UNK\nI0,1.0,0.0,0.0\nI1,0.0,1.0,0.0\n"
    manifest = read_manifest(write(tmp_path, "truth.csv", text, "input/I0.jpg", "input/I1.jpg"))
    assert manifest.class_names == ("MEL", "NV") and manifest.task == "multiclass"
    assert "no image shows UNK: not a class" in manifest.notes


def test_a_label_that_no_image_has_is_still_one_of_several(tmp_path) -> None:
    text = "file,A,C,B\na.png,1,0,1\nb.png,0,0,1\n"
    manifest = read_manifest(write(tmp_path, "t.csv", text, "a.png", "b.png"))
    assert manifest.class_names == ("A", "B", "C")
    assert manifest.targets().tolist() == [[1, 1, 0], [0, 1, 0]]
    assert "no image has the label C" in manifest.notes


def test_mimic_has_ids_beside_its_labels(tmp_path) -> None:
    text = "subject_id,study_id,dicom_id,Edema,No Finding\n1,10,a,1.0,\n1,11,b,,1.0\n0,12,c,1.0,\n"
    files = ["files/p10/p1/s10/a.jpg", "files/p10/p1/s11/b.jpg", "files/p10/p0/s12/c.jpg"]
    manifest = read_manifest(write(tmp_path, "t.csv", text, *files))
    assert rows_of(manifest) == [("a.jpg", "Edema", "1"), ("b.jpg", "No Finding", "1"), ("c.jpg", "Edema", "0")]
    one_patient = read_manifest(write(tmp_path, "t.csv", text.replace("\n0,12", "\n1,12")))
    assert one_patient.class_names == ("Edema", "No Finding")  # an id of 1 in all rows is no label


def test_a_lesion_may_be_a_group_or_a_label(tmp_path) -> None:
    path = write(tmp_path, "t.csv", "file,lesion,edema\na.png,1,0\nb.png,0,1\n", "a.png", "b.png")
    with pytest.raises(
        ValueError, match="column lesion may be a group, or a label of 0 and 1; say --group-column lesion"
    ):
        read_manifest(path)
    assert read_manifest(path, group_column="none").class_names == ("edema", "lesion")
    assert read_manifest(path, label_column=["lesion", "edema"], group_column="none").task == "multiclass"


@pytest.mark.parametrize(
    ("header", "rows", "label"),
    [
        ("image,level", ("a,0", "b,4"), "level"),
        ("Image name,Retinopathy grade,Risk of macular edema ,,", ("a,0,1,,", "b,4,0,,"), "Retinopathy grade"),
        ("patient_id,pathology,image file path", ("P0,0,a.png", "P1,4,b.png"), "pathology"),
        ("filename,class_name,class_id", ("a.png,0,7", "b.png,4,8"), "class_name"),
        ("Video file,Finding Class,x,y,filename", ("v1,0,5,,a.png", "v2,4,,7,b.png"), "Finding Class"),
    ],
)
def test_columns_of_labels_by_rarer_names(tmp_path, header: str, rows: tuple[str, str], label: str) -> None:
    path = write(tmp_path, "t.csv", "\n".join((header, *rows)) + "\n", "images/a.png", "images/b.png")
    manifest = read_manifest(path)
    assert [record.labels for record in manifest.records] == [("0",), ("4",)]
    assert f"{label} as label" in manifest.notes[0]


def test_several_files_in_a_row_are_asked_about(tmp_path) -> None:
    text = "case_num,diagnosis,clinic,derm\n1,nev,a.jpg,b.jpg\n2,mel,c.jpg,d.jpg\n"
    path = write(tmp_path, "meta.csv", text, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    with pytest.raises(
        ValueError, match="clinic and derm may hold the files: say which does with --file-column clinic"
    ):
        read_manifest(path)
    assert rows_of(read_manifest(path, file_column="derm")) == [("b.jpg", "nev", "1"), ("d.jpg", "mel", "2")]


def test_vindr_has_rows_of_several_readers(tmp_path) -> None:
    text = "image_id,class_name,rad_id\na,Edema,R1\na,Edema,R2\na,Mass,R3\nb,Mass,R1\n"
    path = write(tmp_path, "train.csv", text, "train/a.dicom", "train/b.dicom")
    with pytest.raises(ValueError, match="a is listed more than once: in line 2 as Edema, in line 4 as Mass"):
        read_manifest(path)
    manifest = read_manifest(path, task="multilabel")
    assert rows_of(manifest) == [("a.dicom", "Edema|Mass", None), ("b.dicom", "Mass", None)]


def test_fer_has_words_of_its_own_for_splits(tmp_path) -> None:
    text = "file,emotion,Usage\na.png,0,Training\nb.png,1,PublicTest\nc.png,1,PrivateTest\n"
    path = write(tmp_path, "t.csv", text, "a.png", "b.png", "c.png")
    with pytest.raises(ValueError, match="line 3: column Usage looks like a split and holds 'PublicTest'"):
        read_manifest(path, label_column="emotion")
    words = {"PublicTest": "val", "PrivateTest": "test"}
    manifest = read_manifest(path, label_column="emotion", map_split=words)
    assert [record.split for record in manifest.records] == ["train", "val", "test"]


def test_a_class_may_be_called_train(tmp_path) -> None:
    manifest = read_manifest(write(tmp_path, "t.csv", "file,class\na.png,train\nb.png,car\n", "a.png", "b.png"))
    assert manifest.class_names == ("car", "train") and not manifest.has_splits


@pytest.mark.parametrize(
    "outer", [("8863", "8864", "8913"), ("patient1", "patient2", "patient10"), ("site-1", "site-2", "site-3")]
)
def test_folders_of_patients_around_classes_are_no_classes(tmp_path, outer: tuple[str, ...]) -> None:
    files = [f"{name}/{label}/{name}.png" for name in outer for label in ("0", "1")]
    write(tmp_path, "README.md", "", *files[:-1])  # a patient without one of the classes
    with pytest.raises(ValueError, match="hold folders of the same names, 0 and 1, so that either may be the classes"):
        read_manifest(tmp_path)
    assert set(read_manifest(tmp_path, class_names=outer).counts) == set(outer)
    assert as_manifest(tmp_path, known=outer).class_names


def test_numbered_classes_may_have_folders_of_their_own(tmp_path) -> None:
    write(tmp_path, "README.md", "", "grade0/p1/1.png", "grade0/p2/1.png", "grade1/p3/1.png", "grade1/p4/1.png")
    assert read_manifest(tmp_path).counts == {"grade0": 2, "grade1": 2}
