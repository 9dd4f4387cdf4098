"""The classes of data beside those of a model."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.classes import match_classes, select_classes
from diffmiczoo.data.manifest import Manifest, Record


def data(names: str, task: str = "multiclass") -> Manifest:
    records = tuple(Record(Path(f"{name}.png"), (name,)) for name in names.split())
    return Manifest("d", records, tuple(names.split()), task)


def model(names: str = "", count: int = 3) -> DiffMICConfig:
    return DiffMICConfig(num_classes=len(names.split()) or count, class_names=tuple(names.split()))


@pytest.mark.parametrize(
    ("names", "of_model", "targets"),
    [
        ("a b c", "c b a", [2, 1, 0]),
        ("c a", "a b c", [2, 0]),
        ("1 2", "1 2 3", [0, 1]),  # numbers are names of a model that has learned them
        ("2 3", "0 2 3", [1, 2]),
        ("0 1 2", "", [0, 1, 2]),  # places of a model without names
        ("0 2", "", [0, 2]),
        ("class_2 class_0", "", [2, 0]),
    ],
)
def test_classes_are_matched_by_name_without_a_word(names: str, of_model: str, targets: list[int]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        matched = match_classes(data(names), model(of_model))
    assert matched.targets().tolist() == targets and matched.class_names == model(of_model).labels


@pytest.mark.parametrize(
    ("names", "of_model", "targets", "message"),
    [
        ("NV Mel", "mel nv", [1, 0], "'NV' as 'nv', 'Mel' as 'mel'"),
        ("No-DR mild", "mild no_dr", [1, 0], "'No-DR' as 'no_dr'"),
        (
            "0 1 2",
            "a b c",
            [0, 1, 2],
            r"taken for places in the model's classes \(0 = a, 1 = b, 2 = c\), which may be wrong",
        ),
    ],
)
def test_what_is_matched_otherwise_is_said(names: str, of_model: str, targets: list[int], message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        assert match_classes(data(names), model(of_model)).targets().tolist() == targets


@pytest.mark.parametrize(
    ("names", "of_model", "message"),
    [
        ("a x", "a b c", r"d has the classes \['a', 'x'\], the model \['a', 'b', 'c'\]; it does not know \['x'\]$"),
        (
            "1 2 3",
            "a b c",
            r"d has the classes \['1', '2', '3'\].*class_names=\[\.\.\.\] \(--class-names a,b,c; or 1=a,2=b,3=c\) says",
        ),
        ("0 1", "a b c", "says what class numbers stand for"),
        ("0 1 2 3", "a b c", "says what class numbers stand for"),
        ("1 2 3", "", "says what class numbers stand for"),
        ("1 2 4", "1 2 3", "the model"),
        ("a b", "0 1", "the model"),
        ("A a", "a b", "the model"),
    ],
)
def test_what_cannot_be_matched_is_refused(names: str, of_model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_classes(data(names), model(of_model))


def test_some_classes_are_chosen_and_the_rest_is_said() -> None:
    with pytest.warns(UserWarning, match="d: only a, c are learned; b are left out, with 1 of 3 images"):
        chosen = select_classes(data("a b c"), ["c", "a"])
    assert chosen.class_names == ("a", "c") and [record.path.stem for record in chosen.records] == ["a", "c"]
    with pytest.warns(UserWarning, match="with 0 of 3 images"):
        several = select_classes(data("a b c", "multilabel"), ["c", "a"])
    assert several.targets().tolist() == [[1, 0], [0, 0], [0, 1]]
    for wrong, message in ((["a", "x"], r"d has no \['x'\]; its classes are"), (["a"], "needs at least two")):
        with pytest.raises(ValueError, match=message):
            select_classes(data("a b c"), wrong)


def test_labels_that_no_image_has_are_said() -> None:
    with pytest.warns(UserWarning, match="no image of d has the labels b; they count as absent"):
        assert match_classes(data("a c", "multilabel"), model("a b c")).targets().tolist() == [[1, 0, 0], [0, 0, 1]]
