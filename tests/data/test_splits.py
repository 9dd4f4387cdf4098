"""Splits that are made or given: shares, groups, repeatability, leaks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from factories import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.splits import leaks, make_splits


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize("name", ["ham10000", "aptos2019", "busi", "chestxray14_subset", "nihcxr_64px"])
def test_the_shared_sets_are_read_and_have_no_leak(name: str) -> None:
    manifest = read_manifest(SHARED / "data" / name, task="multilabel" if "cxr" in name or "chest" in name else None)
    assert manifest.has_splits and not leaks(manifest)
    made = make_splits(manifest)
    assert not leaks(made)
    total = manifest.counts
    together = Counter((record.group, label) for record in manifest.records for label in record.labels)
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        for label, count in made.split(split).counts.items():
            largest = max(images for (_, shown), images in together.items() if shown == label)
            assert abs(count - share * total[label]) <= max(0.02 * total[label], 3, largest), (split, label)


def manifest_of(labels: list[int], groups: list[int] | None) -> Manifest:
    records = tuple(
        Record(Path(f"{number}.png"), (f"c{label}",), None, None if groups is None else f"g{groups[number]}")
        for number, label in enumerate(labels)
    )
    return Manifest("made", records, tuple(f"c{label}" for label in range(4)), "multiclass")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=40, max_size=150), st.integers(0, 5))
def test_made_splits_tear_no_group_and_are_repeatable(rows, seed: int) -> None:
    labels, groups = [list(column) for column in zip(*rows, strict=True)]
    manifest = manifest_of(labels, groups)
    if len(set(groups)) < 3:
        with pytest.raises(ValueError, match="too few for 3 splits"):
            make_splits(manifest, seed=seed)
        return
    made = make_splits(manifest, seed=seed)
    assert not leaks(made) and made == make_splits(manifest, seed=seed)
    assert {record.split for record in made.records} == {"train", "val", "test"}
    assert [record.path for record in made.records] == [record.path for record in manifest.records]


def test_made_splits_hold_the_shares_of_every_class() -> None:
    labels = [0] * 200 + [1] * 60 + [2] * 20 + [3] * 10
    made = make_splits(manifest_of(labels, None), val=0.1, test=0.2)
    assert made.split("train").counts == {"c0": 140, "c1": 42, "c2": 14, "c3": 7}
    assert made.split("val").counts == {"c0": 20, "c1": 6, "c2": 2, "c3": 1}
    assert make_splits(manifest_of(labels, None), seed=1) != make_splits(manifest_of(labels, None), seed=2)
    with pytest.raises(ValueError, match=r"val=0\.5 and test=0\.5 must be shares"):
        make_splits(manifest_of(labels, None), val=0.5, test=0.5)


def test_leaks_of_given_splits_are_counted() -> None:
    records = [
        Record(Path("a"), ("c0",), "train", "g1"),
        Record(Path("b"), ("c1",), "test", "g1"),
        Record(Path("c"), ("c1",), "val", "g2"),
        Record(Path("d"), ("c0",), "train", "g2"),
        Record(Path("e"), ("c0",), "test", "g3"),
    ]
    assert leaks(Manifest("m", tuple(records), ("c0", "c1"), "multiclass")) == {
        ("train", "val"): ["g2"],
        ("train", "test"): ["g1"],
    }
