"""Tables as people have them: quotes, encodings, ids, labels and columns of all kinds; no row is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories import labels_of, write_images

from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.tables import read_files

NAMES = [f"img{number}.png" for number in range(6)]


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def read(folder: Path, text: str | bytes, name: str = "t.csv", **options: object) -> Manifest:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(content)
    return read_manifest(folder / name, **options)


def rows(labels: list[str], names: list[str] = NAMES, header: str = "file,label", sign: str = ",") -> str:
    lines = [header, *(f"{name}{sign}{label}" for name, label in zip(names, labels, strict=False))]
    return "\n".join(lines) + "\n"


def labels(manifest: Manifest) -> list[str]:
    return ["|".join(record.labels) for record in manifest.records]


# ------------------------------------------------------------------------- quotes and lines


def test_a_quote_that_never_closes_swallows_no_row(folder) -> None:
    notes = ["ok", '"5 mm lesion', "ok", 'ok 6"', "ok", "ok"]
    text = "file,label,comment\n" + "".join(f"{n},{x},{c}\n" for n, x, c in zip(NAMES, "ababab", notes, strict=True))
    manifest = read(folder, text)
    assert labels(manifest) == list("ababab")
    assert "quotation marks without a pair are read as they stand, in line 3" in manifest.notes
    assert len(read_files(folder / "t.csv").records) == 6


@pytest.mark.parametrize(
    ("cell", "rest"), [('"open', ""), ('"open" and more', ""), ('in "the" middle', ""), ('"a ""b"" c"', "")]
)
def test_quotes_in_one_row(folder, cell: str, rest: str) -> None:
    text = f"file,comment,label\nimg0.png,{cell},a\nimg1.png,x,b\n"
    assert labels(read(folder, text)) == ["a", "b"]


@pytest.mark.parametrize(
    "text",
    [
        'file,label,comment\nimg0.png,a,"open, and\nimg1.png,b,ok\nimg2.png,a,ok\n',
        'comment,file,label\n"open, and,img0.png,a\nok,img1.png,b\nx "y,img2.png,a\n',
        'file,label\nimg0.png,"a\nb\n',
    ],
)
def test_a_quote_that_cannot_be_paired_is_refused_with_its_line(folder, text: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: a quotation mark opens here and has no pair"):
        read(folder, text)


@pytest.mark.parametrize(
    "text",
    ['file,label\nimg0.png,"a\nimg1.png,b\nimg2.png,a\n', 'file,label\nimg0.png,"a" x\nimg1.png,b\nimg2.png,a\n'],
)
def test_half_a_pair_of_quotes_is_no_part_of_a_label(folder, text: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: column label holds '.a.*', a quotation mark without its pair"):
        read(folder, text)


def test_a_quoted_text_of_several_lines_is_one_cell(folder) -> None:
    text = 'file,label,comment\nimg0.png,a,"seen twice,\nonce in May, once in June,\n\nthen no more"\nimg1.png,b,ok\n'
    assert labels(read(folder, text)) == ["a", "b"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines_blank_lines_and_comments(folder, end: str) -> None:
    text = end.join(["# made by hand", "file,label,", "img0.png,a,", "", "# no more", ",,", "img1.png,b,", ""])
    manifest = read(folder, text)
    assert labels(manifest) == ["a", "b"]
    assert {part.reason: part.names for part in manifest.skipped} == {
        "rows that are empty or the header again": ("line 6",), "comments": ("line 1", "line 5")
    }  # fmt: skip


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("first", ["", "sep={}\n", '"sep={}"\n'])
def test_what_separates_columns(folder, sign: str, first: str) -> None:
    assert labels(read(folder, first.format(sign) + rows(["a", "b"], sign=sign, header=f"file{sign}label"))) == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]
)  # fmt: skip
def test_encodings(folder, encoding: str) -> None:
    assert labels(read(folder, rows(["häufig", "selten"], sign="\t", header="file\tlabel").encode(encoding))) == [
        "häufig", "selten"
    ]  # fmt: skip


def test_a_comment_in_another_encoding_does_no_harm_and_a_label_is_refused(folder) -> None:
    assert labels(read(folder, "file,label,note\nimg0.png,a,schön\nimg1.png,b,x\n".encode("latin-1"))) == ["a", "b"]
    with pytest.raises(ValueError, match=r"t\.csv: is not UTF-8 \(line 2: 'sch\\udcf6n'\); save it as CSV UTF-8"):
        read(folder, "file,label\nimg0.png,schön\nimg1.png,b\n".encode("latin-1"))


def test_a_very_long_cell(folder) -> None:
    assert labels(read(folder, f"file,label,note\nimg0.png,a,{'x' * 300_000}\nimg1.png,b,\n")) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "t.csv", "lists no images"),
        (b"file,label\n", "t.csv", "lists no images"),
        (b"file,label\nimg0.png,a\0\n", "t.csv", "line 2: holds a NUL byte"),
        (b"PK\x03\x04xx", "t.csv", "is a spreadsheet or an archive, not text; save it as CSV UTF-8"),
        (b"PK\x03\x04xx", "t.xlsx", "spreadsheets are not read; save it as CSV UTF-8"),
        (b"\x1f\x8bxx", "t.csv", "is compressed; unpack it first"),
        (b"PAR1xx", "t.csv", r"is a Parquet table; let its name end in \.parquet"),
        (b"img0.png,a\nimg1.png,b\n", "t.csv", "its first line looks like a row"),
        (b'"file","label"\n"1","img0.png","a"\n"2","img1.png","b"\n', "t.csv", "one value more than the header names"),
        (b"file,label\nimg0.png,a\nimg1.png,b,c\n", "t.csv", r"line 3: has more values .* \(3, not 2\)"),
        (b"file,label,label\nimg0.png,a,b\n", "t.csv", "more than one column is called label; rename one"),
        (b"picture,label\nimg9.png,a\n", "t.csv", "column picture holds the files, say --file-column picture"),
    ],
)
def test_what_is_no_table_is_said(folder, content: bytes, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(folder, content, name)
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_columns_without_a_name_are_not_labels(folder) -> None:
    index = read(folder, ",file,label\n0,img0.png,a\n1,img1.png,b\n")
    assert labels(index) == ["a", "b"] and index.notes == ("columns not used: Unnamed: 0",)
    ones = read(folder, "Unnamed: 0,file,p,q\n0,img0.png,1,0\n1,img1.png,0,1\n")
    assert labels(ones) == ["p", "q"] and ones.class_names == ("p", "q")


# ------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    "cells",
    [
        ["A;B", "A", "B", "B;C"],
        ["A; B", "A;", "B", "B ;C"],
        ["A|B", "A", "B", "B|C"],
        ["\"['A', 'B']\"", "['A']", "['B']", "\"['B', 'C']\""],
        ['"[""A"", ""B""]"', '"[""A""]"', '"[""B""]"', '"[""B"", ""C""]"'],
        ["['A' 'B']", "['A']", "['B']", "['B' 'C']"],
        ['"[A, B]"', "[A]", "[B]", '"[B, C]"'],
        ["\"('A', 'B')\"", "\"('A',)\"", "\"('B',)\"", "\"('B', 'C')\""],
        ["\"{'B', 'A'}\"", "{'A'}", "{'B'}", "\"{'C', 'B'}\""],
        ["\"array(['A', 'B'], dtype=object)\"", "array(['A'])", "array(['B'])", "\"array(['B', 'C'], dtype=object)\""],
        ['"A,B"', "A", "B", '"B,C"', "C"],
        ['"A, B"', "A", "B", '"B, C"', '"A, C"'],
    ],
)
def test_several_labels_in_a_cell(folder, cells: list[str]) -> None:
    manifest = read(folder, rows(cells))
    assert manifest.task == "multilabel" and manifest.class_names == ("A", "B", "C")
    assert labels(manifest)[:4] == ["A|B", "A", "B", "B|C"]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["x;y", "z", "z"], r"line 2: label 'x;y' may be one label or several; write 'x\|y' for several, \[\"x;y"),
        (['"melanoma, in situ"', "melanoma", "nevus"], "line 2: label 'melanoma, in situ' may be one label or several"),
        (["scab frog", "scab", "frog"], r"line 2: label 'scab frog' may be 2 labels, .* write 'scab\|frog'"),
        (["nv+mel", "nv", "mel"], r"line 2: label 'nv\+mel' may be 2 labels"),
        (["none", "mild", "severe"], "line 2: label 'none' may be a class or a missing label; write NA"),
        (["a", "None", "b"], "line 3: label 'None' may be a class or a missing label"),
        (['"[1, 0]"', '"[0, 1]"'], r"line 2: label '\[1, 0\]' may be a vector of 0 and 1 or a list of class numbers"),
        (['"[[1], [2]]"', "a"], "line 2: label .* is a list of lists"),
        (["Benign", "malignant", "benign"], "line 2 has the label 'Benign', .*line 4 'benign'; write a class"),
        (["no_tumor", "tumor", "no-tumor"], "line 2 has the label 'no_tumor', .*line 4 'no-tumor'; write a class"),
        (["No Tumor", "tumor", "no_tumor"], "line 2 has the label 'No Tumor', .*line 4 'no_tumor'; write a class"),
        (["COVID-19", "normal", "COVID_19"], "line 2 has the label 'COVID-19', .*or name both if they are two"),
        (["01", "2", "1"], "line 2 has the label '01', .*line 4 '1'; write a class"),
        (["a", "", "b"], r"line 3: img1\.png has no label; give it one, write NA for a row to be left out, or set the"),
        (["NA", "nan", "null"], "no row has a label"),
    ],
)  # fmt: skip
def test_labels_that_may_be_read_in_two_ways_are_refused(folder, cells: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(folder, rows(cells))


def test_what_somebody_says_decides(folder) -> None:
    cells = ['"melanoma, in situ"', "melanoma", "nevus"]
    assert labels(read(folder, rows(cells), task="multiclass")) == ["melanoma, in situ", "melanoma", "nevus"]
    assert labels(read(folder, rows(cells), task="multilabel"))[0] == "melanoma|in situ"
    names = ["none", "NA", "a;b"]
    assert labels(read(folder, rows(["none", "NA", "a;b"]), class_names=names)) == names
    assert labels(read(folder, rows(["none", "NA", "a;b"]), class_names=["none", "NA", "a", "b"]))[2] == "a|b"
    assert labels(read(folder, rows(['"[""none""]"', "mild"]))) == ["none", "mild"]


def test_commas_in_names_of_classes(folder) -> None:
    manifest = read(folder, rows(['"carcinoma, ductal"', '"nevus, blue"', '"carcinoma, ductal"']))
    assert labels(manifest) == ["carcinoma, ductal", "nevus, blue", "carcinoma, ductal"]
    assert any("are one label each" in note for note in manifest.notes)


@pytest.mark.parametrize("word", ["NaN", "nan", "NA", "n/a", "N/A", "null", "NULL", "<NA>", "#N/A", " NaN "])
def test_a_missing_label_is_no_class(folder, word: str) -> None:
    manifest = read(folder, rows(["a", "b", word, "b"]))
    assert labels(manifest) == ["a", "b", "b"] and manifest.class_names == ("a", "b")
    assert [str(part) for part in manifest.skipped] == ["rows without a label: line 4 (img2.png)"]
    assert "4 rows: 3 read, 1 left out" in manifest.notes


def test_numbers_with_a_gap_and_leading_zeros(folder) -> None:
    assert labels(read(folder, rows(["0.0", "1.0", "NaN", "1.0"]))) == ["0", "1", "1"]
    assert labels(read(folder, rows(["01", "02", "010"]))) == ["01", "02", "010"]
    assert labels(read(folder, rows(["1.5", "2.0"]))) == ["1.5", "2.0"]


def test_parquet_of_lists_numbers_and_gaps(folder) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def table(**columns: object) -> Manifest:
        parquet.write_table(pyarrow.table({"file": NAMES[:4], **columns}), folder / "t.parquet")
        return read_manifest(folder / "t.parquet")

    assert labels(table(label=[["A", "B"], ["A"], None, ["B"]])) == ["A|B", "A", "B"]
    gaps = table(label=pyarrow.array([0.0, 1.0, float("nan"), 1.0]))
    assert labels(gaps) == ["0", "1", "1"] and str(gaps.skipped[0]) == "rows without a label: row 3 (img2.png)"
    assert labels(table(label=pyarrow.array(["a", "b", "a", "b"]).dictionary_encode())) == ["a", "b", "a", "b"]
    with pytest.raises(FileNotFoundError, match="the column holds bytes, not the paths of image files"):
        parquet.write_table(pyarrow.table({"image": [b"x", b"y"], "label": ["a", "b"]}), folder / "t.parquet")
        read_manifest(folder / "t.parquet")


def test_columns_of_zero_and_one_with_gaps(folder) -> None:
    manifest = read(folder, "file,p,q\nimg0.png,1.0,\nimg1.png,0.0,1.0\nimg2.png,,\nimg3.png,1,1\n")
    assert labels(manifest) == ["p", "q", "p|q"]
    assert "1 empty cells in columns of 0 and 1 are read as 0" in manifest.notes
    assert str(manifest.skipped[0]) == "rows without a label: line 4 (img2.png)"
    with pytest.raises(ValueError, match="line 2: column p holds '-1'"):
        read(folder, "file,p,q\nimg0.png,-1,0\nimg1.png,0,1\n")


# ------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("cells", "how"),
    [
        (["img0", "img1"], "2 files are found by an id without extension, first img0 → "),
        (["IMG0.PNG", "img1.png"], "1 files are found by a name of a file in a sub-folder"),
        (["sub\\x.png", ".\\img1.png"], "2 files are found by Windows paths"),
        (["x.png", "img1.png"], "1 files are found by a name of a file in a sub-folder, first x.png"),
        (["x", "img1"], "2 files are found by an id without extension"),
        (["sub/x", "img1.png"], "1 files are found by an id without extension"),
        ([" img0.png", "./img1.png"], ""),
    ],
)
def test_files_that_are_found_without_their_whole_path(folder, cells: list[str], how: str) -> None:
    write_images(folder, ["sub/x.png"])
    manifest = read(folder, rows(["a", "b"], cells))
    assert all(record.path.is_file() for record in manifest.records) and labels(manifest) == ["a", "b"]
    assert any(note.startswith(how) for note in manifest.notes) if how else not manifest.notes


def test_ids_of_numbers(folder) -> None:
    for name in ("007.png", "8.png"):
        (folder / name).write_bytes(name.encode())
    assert [record.path.name for record in read(folder, rows(["a", "b"], ["007", "8.0"])).records] == [
        "007.png",
        "8.png",
    ]


def test_a_table_with_ids_as_ham10000_and_aptos2019_hand_them_out(folder) -> None:
    write_images(folder, ["part_1/ISIC_1.jpg", "part_2/ISIC_2.jpg", "part_1/ISIC_1_segmentation.png"])
    manifest = read(folder, "lesion_id,image_id,dx,age\nH1,ISIC_1,nv,5\nH2,ISIC_2,mel,6\n")
    assert labels_of(manifest) == {"ISIC_1.jpg": ("nv",), "ISIC_2.jpg": ("mel",)} and manifest.groups() == ["H1", "H2"]
    assert "columns used: image_id as file, lesion_id as group, dx as label" in manifest.notes
    assert "columns not used: age" in manifest.notes
    assert labels(read(folder, "id_code,diagnosis\nimg0,2\nimg1,0\n")) == ["2", "0"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("x", r"line 2: 'x' may be .*/x\.jpg or .*/x\.png; write the path"),
        ("y.png", r"line 2: 'y\.png' may be .*/one/y\.png or .*/two/y\.png"),
        ("nowhere.png", r"1 of 2 files do not exist, first in line 2: .*nowhere\.png$"),
        ("nowhere", "no image of that name with any extension lies in"),
        ("img0.jpg", r"img0\.png lies there, with another extension"),
        ("/home/someone/data/img0.png", r"a path of another machine; img0\.png lies here\. Make the paths relative"),
        ("C:\\data\\img0.png", r"a path of another machine; img0\.png lies here"),
        ("https://host/img0.png", "URLs are not fetched, download the files first"),
        ("one", "it is a folder, give a row for each of its files"),
        ("", "line 2: column file is empty"),
        ("n" * 5000, "files do not exist"),
    ],
)
def test_files_that_are_not_there_or_several(folder, cell: str, message: str) -> None:
    for name in ("x.png", "x.jpg", "one/y.png", "two/y.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(name.encode())
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(folder, rows(["a", "b"], [cell, "img1.png"]))


def test_copies_of_one_file_are_no_two(folder) -> None:
    for name in ("one/y.png", "two/y.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"the same")
    assert labels(read(folder, rows(["a", "b"], ["y.png", "img1.png"]))) == ["a", "b"]


def test_rows_that_repeat_a_file(folder) -> None:
    once = read(folder, rows(["a", "b", "a"], ["img0.png", "img1.png", "./img0.png"]))
    assert labels(once) == ["a", "b"] and "3 rows: 2 read, 1 left out" in once.notes
    assert str(once.skipped[0]) == "rows that say of a file what another row says: line 4"
    text = rows(["a", "b", "b"], ["img0.png", "img1.png", "img0.png"])
    with pytest.raises(ValueError, match=r"img0\.png is listed more than once: in line 2 as a, in line 4 as b; remove"):
        read(folder, text)
    joined = read(folder, text, task="multilabel")
    assert labels(joined) == ["a|b", "b"] and "2 rows of one label each are joined to 1 images" in joined.notes
    with pytest.raises(ValueError, match=r"in line 2 as a \(split train\), in line 3 as a \(split test\); remove one"):
        read(folder, "file,label,split\nimg0.png,a,train\nimg0.png,a,test\n", task="multilabel")


# ------------------------------------------------------------------------- columns


@pytest.mark.parametrize("name", ["file", "File", "filename", "file_name", "image", "image_path", "Image Index", "img"])
@pytest.mark.parametrize("label", ["label", "Label", "class", "dx", "Finding Labels", "y", "target"])
def test_well_known_names_of_columns(folder, name: str, label: str) -> None:
    assert labels(read(folder, rows(["a", "b"], header=f"{name},{label}"))) == ["a", "b"]


@pytest.mark.parametrize("name", ["group", "patient", "patient_id", "Patient ID", "lesion_id", "StudyInstanceUID"])
def test_a_column_of_patients_is_the_group(folder, name: str) -> None:
    manifest = read(folder, f"file,label,{name}\nimg0.png,a,1.0\nimg1.png,b,1.0\nimg2.png,a,2.0\n")
    assert manifest.groups() == ["1", "1", "2"]
    assert read_manifest(folder / "t.csv", group_column="none").groups() is None


@pytest.mark.parametrize("name", ["split", "Split", "set", "partition", "subset", "fold", "data_split"])
def test_a_column_of_splits_in_usual_words(folder, name: str) -> None:
    manifest = read(folder, f"file,label,{name}\nimg0.png,a,TRAIN\nimg1.png,b,valid\nimg2.png,a,Testing\n")
    assert [record.split for record in manifest.records] == ["train", "val", "test"]
    assert not read_manifest(folder / "t.csv", split_column="none").has_splits


@pytest.mark.parametrize("name", ["phase", "Usage", "dataset"])
def test_words_for_splits_in_all_rows_are_splits_whatever_the_column_is_called(folder, name: str) -> None:
    manifest = read(folder, f"scan,label,{name}\nimg0.png,a,Training\nimg1.png,b,val\nimg2.png,a,test\n")
    assert [record.split for record in manifest.records] == ["train", "val", "test"]
    assert f"columns used: scan as file, {name} as split" in manifest.notes
    arterial = read(folder, f"scan,label,{name}\nimg0.png,a,arterial\nimg1.png,b,venous\n")
    assert not arterial.has_splits and f"columns not used: {name}" in arterial.notes


def test_headers_of_numpy_and_of_joined_tables(folder) -> None:
    assert labels(read(folder, "# file,label\nimg0.png,a\nimg1.png,b\n")) == ["a", "b"]
    index = read(folder, "#,file,label\n0,img0.png,a\n1,img1.png,b\n")
    assert labels(index) == ["a", "b"] and "columns not used: #" in index.notes
    joined = read(folder, "file,label\nimg0.png,a\nfile,label\nimg1.png,b\n")
    assert labels(joined) == ["a", "b"]
    assert str(joined.skipped[0]) == "rows that are empty or the header again: line 3"


def test_the_patient_is_taken_before_the_lesion(folder) -> None:
    text = "file,label,lesion_id,patient_id\nimg0.png,a,L1,P1\nimg1.png,b,L2,P1\nimg2.png,a,L3,P2\n"
    manifest = read(folder, text)
    assert manifest.groups() == ["P1", "P1", "P2"] and "columns not used: lesion_id" in manifest.notes
    assert read(folder, text, group_column="lesion_id").groups() == ["L1", "L2", "L3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,fold\nimg0.png,a,0\nimg1.png,b,1\n", "line 2: column fold looks like a split and holds '0'"),
        ("file,label,is_train\nimg0.png,a,True\nimg1.png,b,False\n", "line 2: column is_train looks like a split"),
        ("file,label,cv_fold\nimg0.png,a,1\nimg1.png,b,2\n", "line 2: column cv_fold looks like a split"),
        ("file,label,Set\nimg0.png,a,train\nimg1.png,b,extra\n", "line 3: column Set looks like a split and holds"),
        ("file,label,Set\nimg0.png,a,train\nimg1.png,b,\n", "line 3: column Set looks like a split and holds ''"),
        ("file,label,split,group\nimg0.png,a,train,\nimg1.png,b,,\n", r"1 of 2 images have no split, first img1\.png"),
        ("file,label,set,subset\nimg0.png,a,train,test\nimg1.png,b,val,val\n", "columns set and subset look like"),
        ("file,label,patient_id\nimg0.png,a,1\nimg1.png,b,\n", "line 3: column patient_id looks like a group and is"),
        (
            "file,label,patient,study_id\nimg0.png,a,1,x\nimg1.png,b,1,y\nimg2.png,b,2,y\n",
            "columns patient and study_id look like groups, and none holds the others whole; .*--group-column patient",
        ),
        ("image,path,label\nimg0.png,img1.png,a\nimg1.png,img0.png,b\n", "columns image and path may hold the files"),
        ("file,x,y\nimg0.png,1,0\nimg1.png,0,1\n", "columns y and all columns of 0 and 1 may hold the labels"),
        ("file,dx,diagnosis\nimg0.png,a,x\nimg1.png,b,y\n", "columns dx and diagnosis may hold the labels"),
    ],
)  # fmt: skip
def test_columns_that_may_be_used_are_never_ignored(folder, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(folder, text)


def test_columns_by_name(folder) -> None:
    text = "pic,kind,who,part,x,y\nimg0.png,a,p,0,1,0\nimg1.png,b,q,1,0,1\nimg2.png,b,q,2,0,1\n"
    options = {"file_column": "pic", "group_column": "who", "split_column": "part"}
    words = {"0": "train", "1": "val", "2": "skip"}
    manifest = read(folder, text, label_column="kind", map_split=words, **options)
    assert labels(manifest) == ["a", "b"] and manifest.groups() == ["p", "q"]
    assert [record.split for record in manifest.records] == ["train", "val"]
    assert str(manifest.skipped[0]) == "rows whose split is mapped to skip: line 4 (img2.png)"
    assert labels(read_manifest(folder / "t.csv", file_column="pic", label_column=["x", "y"])) == ["x", "y", "y"]
    with pytest.raises(ValueError, match="--label-column sort: there is no such column; found"):
        read(folder, text, file_column="pic", label_column="sort")


def test_a_test_split_without_labels_is_left_out(folder) -> None:
    manifest = read(folder, "file,label,split\nimg0.png,a,train\nimg1.png,b,val\nimg2.png,,test\nimg3.png,,test\n")
    assert labels(manifest) == ["a", "b"] and "4 rows: 2 read, 2 left out" in manifest.notes
    assert manifest.skipped[0].reason == "rows of splits in which no row has a label"


def test_files_of_a_table_without_labels(folder) -> None:
    (folder / "t.csv").write_text("image_id,Set\nimg0,train\nimg1,Test\nimg1,Test\nimg2,train\n")
    every = read_files(folder / "t.csv")
    assert [record.path.name for record in every.records] == ["img0.png", "img1.png", "img2.png"]
    assert "4 rows: 3 read, 1 left out" in every.notes
    assert [record.path.name for record in read_files(folder / "t.csv", "test").records] == ["img1.png"]


# ------------------------------------------------------------------------- names and places of files

COMPOSED, APART = "n\u00e4vus", "na\u0308vus"


@pytest.mark.parametrize("other", [APART, f"{COMPOSED}\u200b", f"\ufeff{COMPOSED} ", f"{COMPOSED}\u00a0"])
def test_labels_that_look_the_same_are_the_same(folder, other: str) -> None:
    manifest = read(folder, rows([COMPOSED, other, "b"]))
    assert manifest.counts == {"b": 1, COMPOSED: 2}
    assert read_manifest(folder / "t.csv", class_names=["b", other]).class_names == ("b", COMPOSED)
    columns = read(folder, f"file,{other},b\nimg0.png,1,0\nimg1.png,0,1\n", class_names=[COMPOSED, "b"])
    assert columns.counts == {COMPOSED: 1, "b": 1}


@pytest.mark.parametrize(("disk", "cell"), [(COMPOSED, APART), (APART, COMPOSED)])
@pytest.mark.parametrize("written", ["{}.png", "{}", "sub/{}.png"])
def test_names_of_files_from_a_mac(tmp_path, disk: str, cell: str, written: str) -> None:
    path = tmp_path / ("sub" if "/" in written else "deep") / f"{disk}.png"
    path.parent.mkdir()
    path.touch()
    (tmp_path / "b.png").touch()
    manifest = read(tmp_path, f"file,label\n{written.format(cell)},a\nb.png,b\n")
    assert manifest.records[0].path == path


@pytest.mark.parametrize(
    ("name", "cell", "message"),
    [
        ("labels/t.csv", "my%20a.png", "my a\\.png lies there, write blanks and the like as they are, not as %20"),
        ("labels/t.csv", "12", "0012.png lies there: the zeros in front were lost, as spreadsheets do; put them back"),
        ("labels/t.csv", "b.png", r"/pictures/b\.png does.*or write \.\./pictures/b\.png"),
        ("labels/t.csv", "pictures/b.png", r"/pictures/b\.png does.*or write \.\./pictures/b\.png"),
    ],
)
def test_files_that_lie_nearby_are_named(tmp_path, name: str, cell: str, message: str) -> None:
    for path in ("labels/my a.png", "labels/0012.png", "pictures/b.png"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    with pytest.raises(FileNotFoundError, match=message):
        read(tmp_path, f"file,label\n{cell},a\n", name)


@pytest.mark.parametrize("text", ["img0.png 0\nimg1.png 1\n", "file label\nimg0.png 0\n"])
def test_columns_separated_by_blanks(folder, text: str) -> None:
    with pytest.raises(ValueError, match=r"separated by commas, tabs, semicolons or \|, not by blanks"):
        read(folder, text, "t.txt")


@pytest.mark.parametrize(("first", "second", "clear"), [("[0, 1]", "[1]", True), ("[0, 1]", "[1, 0]", False)])
def test_lists_of_numbers_that_are_no_vectors(folder, first: str, second: str, clear: bool) -> None:
    text = f'file,label\nimg0.png,"{first}"\nimg1.png,"{second}"\n'
    if clear:
        assert labels(read(folder, text)) == ["0|1", "1"]
    else:
        with pytest.raises(ValueError, match=r"line 2: label .* may be a vector of 0 and 1"):
            read(folder, text)


def test_signs_and_dashes_that_tell_classes_apart_stay(folder) -> None:
    """A dash at an end is a sign, and one between digits a range."""
    for cells in (
        ["HER2-", "HER2", "HER2+"],
        ["grade 1-2", "grade 12", "grade 3"],
        ["T-", "T", "T_1"],
        ["4-3", "43", "4+3"],
    ):
        assert len(read(folder, rows(cells)).class_names) == 3
