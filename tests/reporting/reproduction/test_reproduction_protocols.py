"""Splits of both protocols, and leaks that are planted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.reporting.reproduction.protocols import (
    Pictures,
    count_leaks,
    read_pictures,
    record_of,
    split_by,
)
from diffmiczoo.reporting.reproduction.records import Leaks
from diffmiczoo.reporting.reproduction.sources import Source


def manifest_of(groups: list[str | None], splits: list[str | None] | None = None) -> Manifest:
    splits = splits or [None] * len(groups)
    records = [
        Record(Path(f"/data/{place}.png"), ("light" if place % 2 else "dark",), split, group)
        for place, (group, split) in enumerate(zip(groups, splits, strict=True))
    ]
    return Manifest("moles", tuple(records), ("dark", "light"), "multiclass")


class Given(Source):
    """A source that reads what it is given."""

    manifest: Manifest

    def read(self) -> Manifest:
        return self.manifest


def pictures_of(manifest: Manifest, copies: list[list[str]], most: int = 0, stands_for: str = "ham10000") -> Pictures:
    source = Given("ham10000", stands_for, "/data", "ham10000")
    object.__setattr__(source, "manifest", manifest)
    return read_pictures(source, most, lambda manifest: copies)


def test_planted_relatives_are_counted() -> None:
    #         0      1      2       3       4      5       6      7
    groups = ["a", "a", "b", "c", "d", "e", "f", "g"]
    splits = ["train", "test", "train", "test", "val", "test", "test", "test"]
    # 3 is a copy of 2; 5 one of 4, which is validation; 6 one of the test picture 1, whose relative 0 is trained on.
    found = pictures_of(manifest_of(groups), [["2.png", "3.png"], ["4.png", "5.png"], ["1.png", "6.png"]])
    dealt = found.manifest.with_records(
        replace(record, split=split) for record, split in zip(found.manifest.records, splits, strict=True)
    )
    assert count_leaks(dealt, found.given, found.copy_pairs) == Leaks(test=5, groups=1, copies=2, either=4)


def test_data_without_groups_have_copies_alone() -> None:
    found = pictures_of(manifest_of([None] * 4), [["0.png", "1.png", "2.png"]])
    names = [record.group for record in found.manifest.records]
    assert names[0] == names[1] == names[2] != names[3]
    dealt = found.manifest.with_records(
        replace(record, split=split)
        for record, split in zip(found.manifest.records, ["test", "train", "test", "test"], strict=True)
    )
    assert count_leaks(dealt, found.given, found.copy_pairs) == Leaks(test=3, groups=None, copies=1, either=2)


def test_by_image_leaks_and_grouped_does_not() -> None:
    found = pictures_of(manifest_of([f"lesion{place // 4}" for place in range(200)]), [["0.png", "7.png"]])
    records = {}
    for protocol in ("paper", "grouped"):
        split, rule = split_by(found, protocol)
        records[protocol] = record_of(found, split, protocol, rule)
        assert records[protocol].counts["test"] == pytest.approx(60, abs=4)
        assert records[protocol].counts["val"] == pytest.approx(20, abs=4)
        # The units of paired tests are clusters in both.
        assert len(set(records[protocol].groups)) < records[protocol].counts["test"]
    assert records["paper"].leaks.either > 40
    assert records["grouped"].leaks == Leaks(records["grouped"].counts["test"], 0, 0, 0)
    assert split_by(found, "paper")[0].digest() == split_by(found, "paper")[0].digest()


def test_pmg2000_and_what_stands_in_for_it_have_eight_to_two() -> None:
    found = pictures_of(manifest_of([f"p{place}" for place in range(100)]), [], stands_for="pmg2000")
    split, rule = split_by(found, "paper")
    assert len(split.split("test")) == 20 and rule.startswith("80:20")


def test_few_pictures_are_whole_clusters() -> None:
    found = pictures_of(manifest_of([f"lesion{place // 4}" for place in range(200)]), [["0.png", "7.png"]], most=60)
    kept = [record.path.stem for record in found.manifest.records]
    assert len(kept) == pytest.approx(60, abs=8)
    assert {int(name) // 4 for name in kept} == {int(name) // 4 for name in kept if int(name) % 4 == 3}
    assert all(max(pair) < len(kept) for pair in found.copy_pairs)
    split, rule = split_by(found, "paper")
    record = record_of(found, split, "paper", rule)
    assert record.whole is not None and record.whole.test == pytest.approx(60, abs=4) and record.whole.either > 40


def test_official_lists_stay() -> None:
    splits = ["train"] * 30 + ["test"] * 10
    benchmark = replace(manifest_of([f"p{place}" for place in range(40)], splits), benchmark="medmnist")
    split, rule = split_by(pictures_of(benchmark, []), "paper")
    assert [record.split == "test" for record in split.records] == [name == "test" for name in splits]
    assert len(split.split("val")) == 3 and "official" in rule
    # Splits of somebody's own, which no publication has, do not.
    own, rule = split_by(pictures_of(replace(benchmark, benchmark=""), []), "paper")
    assert "by image" in rule and len(own.split("test")) == 12
