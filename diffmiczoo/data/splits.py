"""Splits that keep lesions and patients together, and the count of those that a given split tears apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import SPLITS, Manifest, Record
from diffmiczoo.errors import InvalidValueError

#: Shares of validation and test images where a data set has no split.
VAL, TEST = 0.1, 0.2


def make_splits(manifest: Manifest, *, val: float = VAL, test: float = TEST, seed: int = 0) -> Manifest:
    """Gives every image a split: stratified by class, and all images of a group on one side.

    Groups are dealt out one by one, those with rare classes first and large ones before small ones, each to the split
    where it brings the counts of classes and images nearest to what they should be: where χ², the sum of squared
    differences over what is wanted, falls most. With groups of one image this is an ordinary stratified split.

    Args:
        manifest: the images; splits that they have are forgotten.
        val: share of the validation images, 0 ≤ share < 1; 0 makes no such split.
        test: the same of the test images.
        seed: of the order among equals.

    Raises:
        ValueError: the shares leave no training images, or there are fewer groups than splits.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise InvalidValueError(f"val={val} and test={test} must be shares of at least 0 that leave training images")
    shares = {"train": 1 - val - test, "val": val, "test": test}
    wanted = {name: share for name, share in shares.items() if share}
    side = _deal(manifest, np.array(list(wanted.values())), seed)
    names = list(wanted)
    return manifest.with_records(
        replace(record, split=names[part]) for record, part in zip(manifest.records, side, strict=True)
    )


def complete_splits(manifest: Manifest, seed: int = 0) -> tuple[Manifest, str]:
    """Makes the splits that a data set lacks, and says in a sentence what was made; the empty text if nothing.

    Without any split all three are made; with training images but no validation images these are taken from training.
    """
    have = {record.split for record in manifest.records}
    groups = "; groups stay together" if manifest.groups() is not None else ""
    if have == {None}:
        shares = f"{1 - VAL - TEST:.0%} train, {VAL:.0%} val, {TEST:.0%} test"
        return make_splits(manifest, seed=seed), f"no split was given: made {shares}, stratified{groups}"
    if "train" not in have or "val" in have:
        return manifest, ""
    share = VAL / (1 - TEST)
    parted = iter(make_splits(manifest.split("train"), val=share, test=0, seed=seed).records)
    records = [next(parted) if record.split == "train" else record for record in manifest.records]
    return manifest.with_records(records), f"no image had split val: took {share:.0%} of train, stratified{groups}"


def leaks(manifest: Manifest) -> dict[tuple[str, str], list[str]]:
    """Returns pair of splits → the groups with images in both; empty where no group is torn apart."""
    sides: dict[str, set[str]] = {name: set() for name in SPLITS}
    for record in manifest.records:
        if record.group is not None and record.split is not None:
            sides[record.split].add(record.group)
    pairs = [(one, other) for place, one in enumerate(SPLITS) for other in SPLITS[place + 1 :]]
    both = {(one, other): sorted(sides[one] & sides[other]) for one, other in pairs}
    return {pair: groups for pair, groups in both.items() if groups}


def _deal(manifest: Manifest, shares: np.ndarray, seed: int) -> list[int]:
    """Returns the place of the split of every image."""
    owners = manifest.groups() or [str(number) for number in range(len(manifest))]
    of_image, count = group_numbers(owners)
    if count < len(shares):
        raise InvalidValueError(_too_few(manifest, count, len(shares)))
    held = _class_counts(manifest.records, manifest.class_names, of_image, count)
    total = held.sum(0)
    quota = np.maximum(shares[:, None] * total, 1e-9)
    lacking = quota.copy()
    order = _order(held, total, np.random.default_rng(seed))
    side = np.zeros(count, dtype=int)
    for group in order:
        left = lacking - held[group]
        fall = ((lacking**2 - left**2) / quota).sum(1)
        side[group] = int(np.argmax(fall))
        lacking[side[group]] -= held[group]
    _fill_empty(side, len(shares), order)
    return [int(side[group]) for group in of_image]


def _too_few(manifest: Manifest, count: int, splits: int) -> str:
    if manifest.groups() is None:
        return (
            f"{manifest.name}: {count} images cannot fill {splits} splits; hand in more, or validation data (val=...)"
        )
    groups = f"{count} {'group' if count == 1 else 'groups'}"
    return (
        f"{manifest.name}: all {len(manifest)} images belong to {groups}, too few for {splits} splits that keep groups "
        "together; give a column of splits, or hand in validation data of other groups (val=...). If they are no "
        "groups, say --group-column none (group_column in Python)"
    )


def _class_counts(
    records: Sequence[Record], class_names: Sequence[str], of_image: np.ndarray, groups: int
) -> np.ndarray:
    """Returns how many images of each class a group holds, (G, C + 1); the last column counts all images."""
    column = {name: place for place, name in enumerate(class_names)}
    counts = np.zeros((groups, len(class_names) + 1))
    for group, record in zip(of_image, records, strict=True):
        counts[group, [column[label] for label in record.labels]] += 1
        counts[group, -1] += 1
    return counts


def _order(held: np.ndarray, total: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the groups: those with the rarest class first, then large ones, then by lot."""
    rarest = np.where(held > 0, np.maximum(total, 1), np.inf).min(1)
    return np.lexsort((generator.random(len(held)), -held[:, -1], rarest))


def _fill_empty(side: np.ndarray, splits: int, order: np.ndarray) -> None:
    """Moves a small group of the fullest split into each split that got none."""
    for empty in set(range(splits)) - set(side.tolist()):
        fullest = np.bincount(side, minlength=splits).argmax()
        side[next(group for group in order[::-1] if side[group] == fullest)] = empty
