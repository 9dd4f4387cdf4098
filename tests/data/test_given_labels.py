"""Labels beside pictures become targets, or one clear sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.given_labels import given_targets
from diffmiczoo.errors import DiffMICError

ONE = DiffMICConfig(num_classes=3, class_names=("cat", "dog", "sea eel"))
SEVERAL = ONE.replace(task="multilabel")


@pytest.mark.parametrize(
    "labels",
    [
        ["dog", "cat", "sea eel"],
        (1, 0, 2),
        np.array([1, 0, 2]),
        torch.tensor([1.0, 0.0, 2.0]),
        np.array(["dog", 0, 2.0], dtype=object),
    ],
    ids=str,
)
def test_names_and_numbers_are_class_numbers(labels):
    assert given_targets(labels, 3, ONE).tolist() == [1, 0, 2]


def test_numbers_are_names_where_all_names_are_numbers():
    graded = ONE.replace(class_names=("1", "2", "3"))
    assert given_targets([1, 3, 2.0], 3, graded).tolist() == given_targets(["1", "3", "2"], 3, graded).tolist()
    assert given_targets([1, 3, 2], 3, graded).tolist() == [0, 2, 1]
    with pytest.raises(DiffMICError, match=r"labels\[0\]=0 is no class number; expected one of 1, 2, 3"):
        given_targets([0, 1, 2], 3, graded)


def test_entries_may_be_tensors_and_arrays():
    assert given_targets([torch.tensor(1), np.array(0), np.int64(2)], 3, ONE).tolist() == [1, 0, 2]
    rows = [np.array([1, 1, 0]), torch.tensor([0.0, 0.0, 0.0]), [0, 0, 1]]
    assert given_targets(rows, 3, SEVERAL).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


def test_names_that_are_spelled_otherwise_are_told():
    with pytest.warns(UserWarning, match="'Sea-Eel' as 'sea eel'"):
        assert given_targets(["Sea-Eel", "dog"], 2, ONE).tolist() == [2, 1]


@pytest.mark.parametrize(
    "labels",
    [
        [["dog", "cat"], [], ["sea eel"]],
        [[1, 1, 0], [0, 0, 0], [0, 0, 1]],
        torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]]),
    ],
    ids=str,
)
def test_several_labels_are_rows_of_zeros_and_ones(labels):
    assert given_targets(labels, 3, SEVERAL).tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("labels", "config", "message"),
    [
        (["cat", "dog"], ONE, "labels has 2 entries for 3 images"),
        (["cat", "dog", "cow"], ONE, "labels has 'cow', which is none of the model's classes"),
        ([0, 1, 3], ONE, r"labels\[2\]=3 is no class number; expected 0..2"),
        ([0, 1, float("nan")], ONE, r"labels\[2\] is missing \(nan\); leave images without a label out"),
        (["cat", None, "dog"], ONE, r"labels\[1\] is missing \(None\)"),
        ([0, 1, 0.5], ONE, r"labels\[2\]=0.5 is no whole number"),
        ([0, 1, float("inf")], ONE, r"labels\[2\]=inf is no whole number"),
        ([0, True, 1], ONE, r"labels\[1\]=True must be a class name or number"),
        ([["cat"], ["dog"], ["dog"]], ONE, r"labels\[0\]=\['cat'\] has several entries; a multiclass model takes one"),
        ("cat", ONE, "labels='cat' must be a list with an entry for each image"),
        (5, ONE, "labels=5 must be a list"),
        (["cat", "dog", "dog"], SEVERAL, r"labels\[0\]='cat' is one entry; a multilabel model takes a list"),
        ([[1, 0], [0, 1], [0, 0]], SEVERAL, r"labels\[0\]=\[1, 0\] is no row of 3 zeros and ones"),
        ([[1, 0, 2]] * 3, SEVERAL, r"labels\[0\]=\[1, 0, 2\] is no row of 3 zeros and ones"),
        (["cat", pd.NA, "dog"], ONE, r"labels\[1\] is missing \(<NA>\)"),
        ([["cat"], pd.NA, []], SEVERAL, r"labels\[1\] is missing \(<NA>\); an image without any label has an empty"),
        ([{0, 1}] * 3, SEVERAL, r"labels\[0\]=\{0, 1\} has no order"),
        ([[1, 0, float("nan")]] * 3, SEVERAL, r"labels\[0\] is missing"),
    ],
)
def test_what_does_not_fit_is_named(labels, config, message):
    with pytest.raises(DiffMICError, match=message):
        given_targets(labels, 3, config)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 5) | st.floats() | st.sampled_from(["cat", "dog", "x", ""]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(labels=anything, several=st.booleans())
def test_anything_gives_targets_or_one_sentence(labels, several):
    config = SEVERAL if several else ONE
    try:
        found = given_targets(labels, 2, config)
    except DiffMICError as error:
        assert str(error).startswith("labels") and "\n" not in str(error)
        return
    assert found.shape == ((2, 3) if several else (2,)) and found.min() >= 0 and found.max() <= 2
