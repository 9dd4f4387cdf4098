"""Tables of labels as CSV, TSV and Parquet, and what is wrong with some."""

from __future__ import annotations

import pytest
from factories import labels_of, write_images

from diffmiczoo.data.readers import read_manifest


@pytest.mark.parametrize(("ending", "sign"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("csv", "\t")])
def test_tables_of_text(tmp_path, ending: str, sign: str) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    rows = [["file", "label", "split", "group"], ["a.png", "x", "train", "p1"], ["b.png", "y", "val", "p2"]]
    (tmp_path / f"t.{ending}").write_text("\n".join(sign.join(row) for row in rows) + "\n")
    manifest = read_manifest(tmp_path / f"t.{ending}")
    assert labels_of(manifest) == {"a.png": ("x",), "b.png": ("y",)}
    assert [record.split for record in manifest.records] == ["train", "val"] and manifest.groups() == ["p1", "p2"]


def test_a_parquet_table(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images(tmp_path, ["a.png", "b.png"])
    table = pyarrow.table({"file": ["a.png", "b.png"], "label": ["x", "y"], "group": [7, 8], "split": [None, None]})
    parquet.write_table(table, tmp_path / "t.parquet")
    manifest = read_manifest(tmp_path / "t.parquet")
    assert labels_of(manifest) == {"a.png": ("x",), "b.png": ("y",)} and manifest.groups() == ["7", "8"]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"broken\.parquet: is not a Parquet table"):
        read_manifest(tmp_path / "broken.parquet")


def test_a_column_for_each_label(tmp_path) -> None:
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "t.csv").write_text("file,Mass,Edema\na.png,1,0\nb.png,1,1\nc.png,0,0\n")
    manifest = read_manifest(tmp_path / "t.csv", task="multilabel")
    assert labels_of(manifest) == {"a.png": ("Mass",), "b.png": ("Mass", "Edema"), "c.png": ()}
    assert manifest.task == "multilabel"
    (tmp_path / "t.csv").write_text("file,Mass,Edema,age\na.png,1,0,61\n")
    with pytest.raises(ValueError, match=r"line 2: column age holds '61'; .* Remove it, or name the labels"):
        read_manifest(tmp_path / "t.csv")
    named = read_manifest(tmp_path / "t.csv", class_names=["Edema", "Mass"], task="multilabel")
    assert labels_of(named) == {"a.png": ("Mass",)}
    with pytest.raises(ValueError, match=r"no column for the labels \['Hernia'\]"):
        read_manifest(tmp_path / "t.csv", class_names=["Mass", "Hernia"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nmissing.png,x\na.png,y\n", r"1 of 2 files do not exist, first .*missing\.png"),
        ("file,label\na.png,x\na.png,y\n", r"a\.png is listed more than once: in line 2 as x, in line 3 as y"),
        ("file,label\na.png,x,y\n", "line 2: has more values than there are columns"),
        ("file,label,split\na.png,x,holdout\n", "line 2: split 'holdout' is not one of train, val, test"),
        ("file,label,group\na.png,x,p\nb.png,y,\n", r"1 of 2 images have no group, first b\.png"),
        ("file,label\na.png,x|x\n", "line 2: a label is given twice"),
        ("picture,label\nc.png,x\n", r"needs the columns file and label; found \['picture', 'label'\]"),
        ("file,label\n", "lists no images"),
    ],
)
def test_wrong_tables_name_the_line_and_the_cause(tmp_path, text: str, message: str) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_manifest(tmp_path / "t.csv")


def test_labels_that_are_not_classes(tmp_path) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "t.csv").write_text("file,label\na.png,cat\nb.png,dog\n")
    with pytest.raises(ValueError, match=r"labels \['dog'\] are not among the classes \['cat', 'cow'\]"):
        read_manifest(tmp_path / "t.csv", class_names=["cat", "cow"])
