"""A model's metrics on the parts into which columns of a table divide its images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import tiny_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.subgroups import Division, divide
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.evaluation.subgroups import subgroup_table, subgroups
from diffmiczoo.metrics.subgroups import MIN_GROUPS, MIN_IMAGES, SubgroupTable
from diffmiczoo.model import DiffMICv2

CLASSES = ("cat", "dog", "eel")


def divided(task: str = "multiclass", per_group: int = 1) -> tuple[LabelledPredictions, Division]:
    """120 images: 70 of site A, 40 of B which show two classes only and are all wrong, 7 of C, 3 without a site."""
    rng = np.random.default_rng(0)
    records, probs = [], []
    for number in range(120):
        site = "A" if number < 70 else "B" if number < 110 else "C" if number < 117 else ""
        label = number % (2 if site == "B" else 3)
        shown = (label + 1) % 3 if site == "B" else label
        probs.append(np.eye(3)[shown] * 0.6 + 0.4 * rng.dirichlet(np.ones(3)))
        group = f"p{number // per_group}"
        records.append(Record(Path(f"{number}.png"), (CLASSES[label],), group=group, columns={"site": site}))
    manifest = Manifest("data", tuple(records), CLASSES, task)
    config = DiffMICConfig(num_classes=3, class_names=CLASSES, task=task, image_size=64)
    return LabelledPredictions.of(manifest, torch.from_numpy(np.array(probs)).float(), config), divide(manifest, "site")


@pytest.fixture(scope="module")
def table() -> SubgroupTable:
    return subgroup_table(*divided(), bootstrap=50)


def test_subgroups_are_a_partition_and_measured_alone(table) -> None:
    assert [each.name for each in table.subgroups] == ["A", "B", "C", "(missing)"]
    assert sum(each.num_images for each in table.subgroups) == table.everything.num_images == 120
    predictions, _ = divided()
    first = predictions.select(range(70)).metrics(50)
    own = table.subgroups[0]
    assert own.values == {name: first.values[name] for name in own.values} and own.intervals
    assert own.intervals == {name: first.intervals[name] for name in own.values}
    whole = predictions.metrics(50)
    assert table.everything.values == {name: whole.values[name] for name in own.values}
    assert (own.values["accuracy"], table.subgroups[1].values["accuracy"]) == (1, 0)


def test_too_few_images_or_groups_have_no_numbers_and_say_so(table) -> None:
    assert [bool(each.values) for each in table.subgroups] == [True, True, False, False]
    text = table.table()
    assert f"Too few: less than {MIN_IMAGES} images or {MIN_GROUPS} groups." in text
    assert next(line for line in text.splitlines() if line.startswith("C ")).split()[1:] == [
        "7", "7", "3", "too", "few", "–", "–", "–",
    ]  # fmt: skip
    found = subgroup_table(*divided(per_group=8), bootstrap=0)
    assert not any(each.values for each in found.subgroups) and found.everything.values
    assert found.subgroups[0].num_groups == 9


def test_classes_that_a_subgroup_does_not_show_are_told(table) -> None:
    assert [each.num_classes for each in table.subgroups] == [3, 2, 3, 3]
    assert "Some subgroups show less than the 3 classes" in table.notes()


def test_it_is_read_back_as_it_was(table) -> None:
    assert SubgroupTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    with pytest.raises(ValueError, match="no table of subgroups"):
        SubgroupTable.from_dict({"column": "site"})


def test_several_labels_have_auroc() -> None:
    found = subgroup_table(*divided("multilabel"), bootstrap=0)
    assert found.subgroups[0].values.keys() == {"accuracy", "auroc", "ece"}
    assert "balanced" not in found.table().splitlines()[0]


def test_a_column_that_is_not_there_is_said_before_anything_is_predicted(manifest_csv) -> None:
    with pytest.raises(
        ValueError, match=r"no column sex to divide images by; found \['file', 'label', 'split', 'group'\]"
    ):
        subgroups(_model(), manifest_csv, "sex")


def test_a_table_is_measured_by_its_columns(manifest_csv) -> None:
    model = _model()
    model.trained = True
    by_label, by_split = subgroups(model, manifest_csv, ["label", "split"], split="train", bootstrap=0, progress=False)
    assert [each.num_images for each in by_label.subgroups] == [12, 12] and by_split.subgroups[0].name == "train"
    assert by_split.subgroups[0].values == by_split.everything.values


def _model() -> DiffMICv2:
    return tiny_model(class_names=("dark", "light"))
