"""Grades are put in an order that their names prove, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffmiczoo.data.grades import grade_order, in_grade_order
from diffmiczoo.data.manifest import Manifest, Record


@pytest.mark.parametrize(
    "order",
    [
        "none mild moderate severe",
        "no_dr mild moderate severe proliferative",
        "No_DR Mild Moderate Severe Proliferate_DR",
        "Healthy Mild-NPDR Moderate-NPDR Severe-NPDR PDR",
        "NonDemented VeryMildDemented MildDemented ModerateDemented",
        "Normal Doubtful Mild Moderate Severe",
        "0Normal 1Doubtful 2Mild 3Moderate 4Severe",
        "grade_0 grade_1 grade_2 grade_10",
        "0-severe 1-mild",
        "stage_I stage_II stage_III stage_IV",
        "0 0.5 1 2",
        "low medium high",
        "low-risk intermediate-risk high-risk",
    ],
)
def test_orders_that_names_prove(order: str) -> None:
    names = order.split()
    assert grade_order(sorted(names)) == grade_order(names[::-1]) == tuple(names)


@pytest.mark.parametrize(
    "names",
    ["bad good ugly", "mild severe worse", "no none mild", "low mild severe", "a1b a2c", "cin1 lsil hsil", "4a 4b 5"],
)
def test_orders_that_names_do_not_prove(names: str) -> None:
    assert grade_order(names.split()) is None


def manifest(names: str, ordered: bool = False) -> Manifest:
    return Manifest(
        "d", (Record(Path("a.png"), (names.split()[0],)),), tuple(names.split()), "multiclass", ordered=ordered
    )


def test_the_order_is_said_asked_for_or_known() -> None:
    with pytest.warns(UserWarning, match="d: grades in the order none, mild, severe; class_names"):
        found = in_grade_order(manifest("mild none severe"))
    assert found.class_names == ("none", "mild", "severe") and found.ordered
    with pytest.raises(
        ValueError, match=r"d: ordinal=True needs .* but \['bad', 'good', 'ugly'\] is that of the alphabet"
    ):
        in_grade_order(manifest("bad good ugly"))
    for known in (manifest("bad good ugly", ordered=True), manifest("0 1 2"), manifest("bad good")):
        found = in_grade_order(known)
        assert found.class_names == known.class_names and found.ordered
