"""One row per data set: complete, consistent, and what weights and readers are made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import diffmiczoo
from diffmiczoo.data import downloads
from diffmiczoo.data.catalog import DATASETS, class_labels
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.zoo.factory import get_config
from diffmiczoo.zoo.weights import ALIASES, WEIGHTS


@pytest.mark.parametrize("name", DATASETS)
def test_a_row_is_all_that_weights_need(name: str) -> None:
    dataset = DATASETS[name]
    assert dataset.name == name and dataset.title and dataset.data_license and dataset.weights_license
    assert len(set(dataset.class_names)) == len(dataset.class_names) >= 2
    config = get_config(ALIASES[f"diffmicv2_{name}"])
    assert (config.class_names, config.task, config.ordinal) == (dataset.class_names, dataset.task, dataset.ordinal)
    info = diffmiczoo.model_info(f"diffmicv2_{name}")
    assert info.data_license == dataset.data_license and info.license == dataset.weights_license
    assert dataset.title in info.description
    assert info.class_labels == dict(zip(dataset.class_names, dataset.class_labels, strict=True))
    assert len(set(dataset.class_labels)) == len(dataset.class_labels)


def test_classes_have_words_where_all_of_them_are_a_data_sets_own() -> None:
    assert class_labels(DATASETS["ham10000"].class_names)["mel"] == "melanoma"
    assert class_labels(("mel", "nv")) == class_labels(()) == {}


def test_weights_refer_to_rows() -> None:
    assert all(weights.dataset is DATASETS[weights.dataset.name] for weights in WEIGHTS.values())
    assert all(name == f"{weights.architecture}.{weights.dataset.name}" for name, weights in WEIGHTS.items())


def test_a_data_set_without_weights_has_no_short_name() -> None:
    assert set(ALIASES.values()) <= set(WEIGHTS)


def test_what_is_recognised_can_be_read() -> None:
    assert {name for name, dataset in DATASETS.items() if dataset.label_tables} == set(downloads._READERS)


def test_the_reader_of_a_download_takes_its_classes_from_the_row(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na,0\nb,4\n")
    for name in "ab":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    renamed = replace(DATASETS["aptos2019"], class_names=("g0", "g1", "g2", "g3", "g4"))
    monkeypatch.setitem(DATASETS, "aptos2019", renamed)
    manifest = read_manifest(tmp_path)
    assert manifest.class_names == renamed.class_names
    assert [record.labels for record in manifest.records] == [("g0",), ("g4",)]
