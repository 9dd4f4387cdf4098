"""Names of models, and what is known about each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import diffmiczoo
from diffmiczoo.zoo.architectures import architectures, register_model
from diffmiczoo.zoo.registry import describe, has_weights, model_config, resolve
from diffmiczoo.zoo.weights import DATASET_NAMES, ENTRIES


def test_names() -> None:
    names = diffmiczoo.list_models()
    assert names == sorted(names) and len(set(names)) == len(names)
    assert {"diffmicv2_resnet18", "diffmicv2_resnet50", "diffmicv2_densenet169", "diffmicv2_nano"} <= set(names)
    assert {"diffmicv2_nano.ham10000", "diffmicv2_resnet18.ham10000", "diffmicv2_densenet169.chestxray14"} <= set(names)
    assert set(DATASET_NAMES) <= set(names) and set(DATASET_NAMES.values()) <= set(ENTRIES)


def test_filters() -> None:
    assert diffmiczoo.list_models("*nano*") == diffmiczoo.list_models("nano")
    assert all(name.startswith("diffmicv2_nano") for name in diffmiczoo.list_models("diffmicv2_nano*"))
    assert diffmiczoo.list_models("nothing*") == []
    assert all("." in name for name in diffmiczoo.list_models(tags=True))
    assert not any("." in name for name in diffmiczoo.list_models(tags=False))
    with_weights = diffmiczoo.list_models(pretrained=True)
    assert with_weights == [name for name in diffmiczoo.list_models() if has_weights(name)]
    assert {"diffmicv2_ham10000", "diffmicv2_nano.ham10000"} <= set(with_weights)


@pytest.mark.parametrize("name", diffmiczoo.list_models())
def test_model_info(name: str) -> None:
    info = diffmiczoo.model_info(name)
    assert info.config == model_config(name) and info.architecture in architectures()
    assert info.parameters["total"] == sum(info.parameters[part] for part in ("dcg", "feature_prior", "unet"))
    assert info.macs["total"] > info.macs["condition"] > 0
    assert info.weights.startswith("shipped") is has_weights(name)
    assert (info.weights == "shipped") is bool(info.metrics)
    assert (info.license is None) is (info.entry is None)
    assert resolve(name)[1] is None or info.entry == resolve(name)[1].name
    assert json.loads(json.dumps(info.to_dict()))["name"] == name
    assert len(describe(name)) > 40


def test_paper_entries_have_the_papers_settings() -> None:
    chest = model_config("diffmicv2_densenet169.chestxray14")
    assert (chest.task, chest.num_classes, chest.num_rois, chest.roi_size) == ("multilabel", 14, 4, 112)
    for name, classes in {"ham10000": 7, "aptos2019": 5, "pmg2000": 4}.items():
        config = model_config(f"diffmicv2_resnet18.{name}")
        assert (config.num_classes, config.num_rois, config.roi_size, config.latent_dim) == (classes, 6, 32, 6144)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("diffmicv2_resnt18", "did you mean diffmicv2_resnet18"),
        ("diffmicv2_nano.ham1000", r"did you mean diffmicv2_nano\.ham10000"),
        ("zzz", "the names are diffmicv1_resnet18"),
        ("tests", r"write local-dir:tests"),
    ],
)
def test_unknown_names_suggest_the_nearest(wrong: str, message: str, monkeypatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    for function in (diffmiczoo.create_model, diffmiczoo.model_info):
        with pytest.raises(ValueError, match=message):
            function(wrong)


def test_registering_a_name_twice_is_an_error() -> None:
    def diffmicv2_nano():
        raise AssertionError

    with pytest.raises(ValueError, match="registered already"):
        register_model(diffmicv2_nano)


NANO = "diffmicv2_nano.ham10000"


def test_a_bare_architecture_is_described_as_it_is_built() -> None:
    info = diffmiczoo.model_info("diffmicv2_nano")
    assert info.weights == f"shipped as {NANO}" and info.entry is None and info.metrics == {}
    assert info.config.image_size == diffmiczoo.create_model("diffmicv2_nano").config.image_size
