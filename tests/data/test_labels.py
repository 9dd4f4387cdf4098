"""One rule for labels and for names of classes, in every form that they come in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diffmiczoo.data.labels import canonical_labels, label_names, names_of, numbering_of

NAMES = {0: "cat", 1: "dog", 2: "eel"}


@pytest.mark.parametrize(
    "label",
    [
        1,
        1.0,
        True,
        "1",
        "1.0",
        " 1 ",
        "dog",
        b"dog",
        np.int64(1),
        np.uint8(1),
        np.float32(1),
        np.str_("dog"),
        np.bool_(True),
        np.array(1),
        np.array([1]),
        np.array([[1]]),
        np.array([1.0]),
        np.array(["dog"]),
        np.array([b"dog"]),
        [1],
        (1,),
        ["dog"],
        torch.tensor(1),
        torch.tensor([1]),
        torch.tensor(1.0),
        torch.tensor(True),
        torch.tensor([1], dtype=torch.bfloat16),
        [0, 1, 0],
        (0.0, 1.0, 0.0),
        np.array([False, True, False]),
        torch.tensor([0, 1, 0]),
    ],
    ids=repr,
)
def test_every_form_of_one_label(label: object) -> None:
    assert label_names(label, NAMES, "x") == ("dog",)


@pytest.mark.parametrize("label", [1, 1.0, "1", "1.0", np.array([1]), torch.tensor(1.0), True])
def test_a_number_without_a_name_is_called_by_its_text(label: object) -> None:
    assert label_names(label, None, "x") == ("1",)


@pytest.mark.parametrize("label", [[0, 1, 1], np.array([0, 1, 1.0]), torch.tensor([False, True, True]), ["dog", "eel"]])
def test_several_labels(label: object) -> None:
    assert label_names(label, NAMES, "x") == ("dog", "eel")
    assert label_names([0, 0, 0], NAMES, "x") == ()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (-1, "x: label -1 is no class number: it is negative, as marks of uncertain or missing labels are"),
        (-1.0, "it is negative"),
        (0.5, "x: label 0.5 is no class number: it is no whole number"),
        (float("nan"), "x: label nan is no class number"),
        (np.array([np.nan]), "label nan is no class number"),
        (float("inf"), "label inf is no class number"),
        (None, "x: label None is no class number and no name of a class"),
        (
            3,
            r"x: label 3 is not one of the class numbers 0 \(cat\), 1 \(dog\), 2 \(eel\); class_names may",
        ),
        (
            [0, 1, -1],
            r"x: label \[0, 1, -1\] is neither a class number nor a vector of 0 and 1 for every class: it holds -1",
        ),
        ([0, 1, float("nan")], "it holds nan"),
        ([0, 1, 2], "it holds 2"),
        ([0, 1], "has 2 values, but there are the 3 classes"),
        (np.zeros((8, 8)), "neither a class number nor a vector"),
        ({"label": 1}, "is no class number and no name"),
    ],
)
def test_what_is_no_label_names_the_image(label: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        label_names(label, NAMES, "x")


@pytest.mark.parametrize(
    "values",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        pd.Index(["a", "b"]),
        pd.Series(["a", "b"]),
        {"a": 0, "b": 1},
        {"b": 1, "a": 0},
        {1: "b", 0: "a"},
        {"0": "a", "1": "b"},
        {"a": 0, "b": 1}.keys(),
        [" a", "b "],
        pd.Categorical(["b", "a"]).categories,
        [np.str_("a"), "b"],
    ],
    ids=repr,
)
def test_every_form_of_names(values: object) -> None:
    assert names_of(values) == ("a", "b")
    assert numbering_of(values) == {0: "a", 1: "b"}


def test_names_may_be_drawn_once_and_be_numbers() -> None:
    assert names_of(name for name in "ab") == ("a", "b")
    assert names_of(np.unique([3, 1])) == names_of([1, 3]) == names_of(torch.tensor([1, 3])) == ("1", "3")
    assert numbering_of({1: "a", 2: "b"}) == {1: "a", 2: "b"} and numbering_of({"1": 0, "10": 1}) == {0: "1", 1: "10"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("abc", "class_names='abc' is one text; expected a list of names"),
        ({"a", "b"}, "has no order"),
        (5, "expected a list of names"),
        (np.array("a"), "is not a list of names"),
        (["a", "a"], "class_names repeats 'a'"),
        (["a", "a "], "class_names repeats 'a'"),
        (["a", ""], r"class_names\[1\] is empty"),
        (["a", None], r"class_names\[1\]=None is no name"),
        ([0.5, 1], r"class_names\[0\]=0.5 is no name"),
        ([True, False], r"class_names\[0\]=True is no name"),
        ({"a": 0, "b": 0}, "does not give every class a number of its own"),
    ],
)
def test_what_are_no_names(values: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        names_of(values)


def test_numbers_of_tables_have_one_text() -> None:
    labels = [("1.0",), ("0",), ("10",)]
    assert canonical_labels(labels, ["a", "b", "c"], "t.csv") == [("1",), ("0",), ("10",)]
    for text in ("007", "1a", "v1.0"):  # names, not numbers
        assert canonical_labels([(text,)], ["a"], "t.csv") == [(text,)]
    assert canonical_labels([("0.5",), ("1.0",)], ["a", "b"], "t.csv") == [("0.5",), ("1.0",)]  # a grade of 0.5
    for text in ("-1", "nan", "-0.5"):
        with pytest.raises(ValueError, match=f"t.csv: b has label {text}, which is no class number"):
            canonical_labels([("1",), (text,)], ["a", "b"], "t.csv")
    many = [(str(number / 7),) for number in range(30)]
    with pytest.raises(ValueError, match=r"t\.csv: x has label 0\.14\d*, which is no class number"):
        canonical_labels(many, ["x"] * 30, "t.csv")
