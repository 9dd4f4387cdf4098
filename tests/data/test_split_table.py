"""Tables that the package writes are read back as they were, whatever classes, groups and files are called."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffmiczoo.data.cells import plain_text
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.split_table import write_split
from diffmiczoo.evaluation.results import LabelledPredictions

#: What has been read back as something else somewhere: separators, blanks, line breaks, lists, missing values, numbers.
ODD = [
    "a|b", "a;b", "a, b", "a", "b", " a", "a ", "no finding", "no", "finding", "NA", "nan", "None", "none", "null", "A",
    "1", "1.0", "01", "[x]", "['a', 'b']", '["a"]', "(a)", "two\nlines", "cr\r", "tab\t", 'a "quoted" one', '"', "=1+1",
    "#comment", "häufig", "\udce4", "🩻", "0", "x/y", "a+b", "a\\b", "True", "1e3", "-", "\u00a0", "\ufeffx",
]  # fmt: skip
TEXT = st.sampled_from(ODD) | st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=8)
NUMBER = re.compile(r"[+-]?[\d.]+(e\d+)?|[+-]?(nan|inf)", re.IGNORECASE)
FILE = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=8)


def manifest_of(
    folder: Path, labels: list[tuple[str, ...]], groups: list[str], names: list[str], task: str
) -> Manifest:
    records = []
    for number, (own, group, name) in enumerate(zip(labels, groups, names, strict=True)):
        path = folder / f"{number}" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        records.append(Record(path, own, ("train", "val", "test")[number % 3], group))
    classes = tuple(dict.fromkeys(label for own in labels for label in own))
    return Manifest("made", tuple(records), classes, task)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_split_csv_is_read_back(tmp_path_factory, data) -> None:
    folder = tmp_path_factory.mktemp("round").resolve()
    count = data.draw(st.integers(3, 8))
    several = data.draw(st.booleans())
    own = st.lists(TEXT, min_size=0 if several else 1, max_size=3 if several else 1, unique=True).map(tuple)
    labels = data.draw(st.lists(own, min_size=count, max_size=count).filter(lambda each: len({*sum(each, ())}) > 1))
    if all(NUMBER.fullmatch(label) for label in sum(labels, ())):
        labels[0] = ("no number",)  # numbers alone are written in one way, "1" for "1.0"
    groups = data.draw(st.lists(TEXT, min_size=count, max_size=count))
    names = [name.strip(".") or "x" for name in data.draw(st.lists(FILE, min_size=count, max_size=count))]
    manifest = manifest_of(folder, labels, groups, names, "multilabel" if several else "multiclass")
    write_split(manifest, folder / "split.csv")
    again = read_manifest(folder / "split.csv", task=manifest.task)
    assert again.records == manifest.records
    if any(name != plain_text(name) or not name for name in manifest.class_names):
        return  # nobody can give such names
    assert read_manifest(folder / "split.csv", class_names=manifest.class_names, task=manifest.task) == Manifest(
        "split", manifest.records, manifest.class_names, manifest.task
    )


def test_a_class_called_like_the_list_of_another_is_read_back(tmp_path) -> None:
    manifest = manifest_of(tmp_path, [("a;b",), ("a",), ('["a"]',)], ["x", "y", "z"], ["0", "0", "0"], "multiclass")
    write_split(manifest, tmp_path / "split.csv")
    again = read_manifest(tmp_path / "split.csv", class_names=manifest.class_names, task="multiclass")
    assert again.records == manifest.records


@pytest.mark.parametrize("name", ["a|b", " a", "NA", "two\nlines", "bad\udcff", "a;b", "1.0"])
def test_folders_of_odd_classes_are_read_back_from_split_csv(tmp_path, name: str) -> None:
    for label in (name, "other"):
        for number in range(3):
            path = tmp_path / "data" / label / f"{number}\udcfe {label[:1]}.png"
            os.makedirs(path.parent, exist_ok=True)
            path.touch()
    manifest = read_manifest(tmp_path / "data")
    assert set(manifest.class_names) == {name.strip(), "other"}
    marked = manifest.with_records(Record(r.path.resolve(), r.labels, "train") for r in manifest.records)
    write_split(marked, tmp_path / "split.csv")
    assert read_manifest(tmp_path / "split.csv").records == marked.records
    (tmp_path / "split.csv").read_text(encoding="utf-8")


def test_a_table_of_ones_own_is_read_without_a_word(tmp_path) -> None:
    manifest = manifest_of(tmp_path, [("a",), ("b",), ("a",)], ["1", "2", "3"], ["a.png"] * 3, "multiclass")
    ungrouped = manifest.with_records(replace(record, group=None) for record in manifest.records)
    write_split(ungrouped, tmp_path / "split.csv")
    again = read_manifest(tmp_path / "split.csv")
    assert (again.notes, again.skipped, again.groups()) == ((), (), None)


def test_plain_names_are_written_plainly(tmp_path) -> None:
    manifest = manifest_of(
        tmp_path, [("mel",), ("no finding",), ("mel",)], ["p1", "p 2", "3"], ["a.png"] * 3, "multiclass"
    )
    write_split(manifest, tmp_path / "split.csv")
    lines = [line.replace(f"{tmp_path.resolve()}/", "") for line in (tmp_path / "split.csv").read_text().splitlines()]
    assert lines == [
        "file,label,split,group", "0/a.png,mel,train,p1", "1/a.png,no finding,val,p 2", "2/a.png,mel,test,3"
    ]  # fmt: skip


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(classes=st.lists(TEXT, min_size=2, max_size=4, unique=True), groups=st.lists(TEXT, min_size=3, max_size=3))
def test_predictions_are_read_back(tmp_path, classes: list[str], groups: list[str]) -> None:
    probs = torch.softmax(torch.arange(3.0 * len(classes)).reshape(3, -1).sin(), 1)
    labels = tuple((classes[row % len(classes)],) for row in range(3))
    names = tuple(f"{group}/{row}.png" for row, group in enumerate(groups))
    before = LabelledPredictions(names, labels, tuple(groups), probs, tuple(classes), "multiclass")
    before.save(tmp_path / "p.csv")
    after = LabelledPredictions.load(tmp_path / "p.csv")
    assert (after.names, after.labels, after.groups, after.class_names) == (
        names,
        labels,
        tuple(groups),
        tuple(classes),
    )
    assert torch.allclose(after.probs, probs, atol=1e-6)
