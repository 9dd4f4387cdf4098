"""Names of models, and what is known about each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from factories import SMALL_ENCODERS, TINY

import diffmiczoo
from diffmiczoo.zoo.architectures import architectures, register_model
from diffmiczoo.zoo.factory import get_config
from diffmiczoo.zoo.registry import all_names, describe, has_weights, resolve
from diffmiczoo.zoo.weights import ALIASES, WEIGHTS


def test_names() -> None:
    names = diffmiczoo.list_models()
    assert len(set(names)) == len(names) == len(all_names())
    assert {"diffmicv2_resnet18", "diffmicv2_resnet50", "diffmicv2_densenet169", "diffmicv2_nano"} <= set(names)
    assert {"diffmicv2_nano.ham10000", "diffmicv2_resnet18.ham10000", "diffmicv2_densenet169.chestxray14"} <= set(names)
    assert set(ALIASES) <= set(names) and set(ALIASES.values()) <= set(WEIGHTS)


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
    assert info.config == get_config(name) and info.architecture in architectures()
    assert info.parameters["total"] == sum(info.parameters[part] for part in ("dcg", "feature_prior", "unet"))
    assert info.macs["total"] > info.macs["condition"] > 0
    assert info.weights.startswith("shipped") is has_weights(name)
    assert (info.weights == "shipped") is bool(info.metrics)
    assert (info.license is None) is (info.entry is None)
    assert resolve(name)[1] is None or info.entry == resolve(name)[1].name
    assert json.loads(json.dumps(info.to_dict()))["name"] == name
    assert len(describe(name)) > 40


def test_paper_entries_have_the_papers_settings() -> None:
    chest = get_config("diffmicv2_densenet169.chestxray14")
    assert (chest.task, chest.num_classes, chest.num_rois, chest.roi_size) == ("multilabel", 14, 4, 112)
    for name, classes in {"ham10000": 7, "aptos2019": 5, "pmg2000": 4}.items():
        config = get_config(f"diffmicv2_resnet18.{name}")
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


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch):
    """Registers architectures as another package would, until the test ends."""
    from diffmiczoo.zoo import architectures as module

    monkeypatch.setattr(module, "_ARCHITECTURES", dict(module._ARCHITECTURES))

    def register(*names: str) -> None:
        for name in names:

            def factory() -> diffmiczoo.DiffMICConfig:
                """A model that this test registers."""
                return diffmiczoo.DiffMICConfig(**TINY, **SMALL_ENCODERS)

            factory.__name__ = name
            assert diffmiczoo.register_model(factory) is factory

    return register


def test_an_architecture_from_outside_is_like_our_own(registered) -> None:
    registered("mine_resnet9")
    assert diffmiczoo.list_models("mine*") == ["mine_resnet9"] and diffmiczoo.list_models("mine", pretrained=True) == []
    assert "mine_resnet9" in diffmiczoo.list_models(tags=False)
    model = diffmiczoo.create_model("mine_resnet9", num_classes=3)
    assert model.config.latent_dim == TINY["latent_dim"] and model.config.num_classes == 3
    info = diffmiczoo.model_info("mine_resnet9")
    assert info.description == "A model that this test registers." and info.weights == "none"
    assert info.parameters["total"] > 0
    with pytest.raises(ValueError, match="did you mean mine_resnet9"):
        diffmiczoo.create_model("mine_resnet")
    with pytest.raises(ValueError, match="has no published weights"):
        diffmiczoo.create_model("mine_resnet9", pretrained=True)


def test_names_are_sorted_as_people_count(registered) -> None:
    registered("mine_resnet50", "mine_resnet9", "mine_resnet18", "mine_resnet101d", "mine_resnet18a")
    expected = ["mine_resnet9", "mine_resnet18", "mine_resnet18a", "mine_resnet50", "mine_resnet101d"]
    assert diffmiczoo.list_models("mine") == expected


def test_a_factory_that_returns_something_else_is_named(registered) -> None:
    def mine() -> dict:
        return {}

    registered()
    diffmiczoo.register_model(mine)
    with pytest.raises(TypeError, match=r"the factory of 'mine' returned \{\}; expected a DiffMICConfig"):
        diffmiczoo.create_model("mine")


def test_the_short_name_of_a_data_set_is_taken() -> None:
    def diffmicv2_busi() -> diffmiczoo.DiffMICConfig:
        raise AssertionError

    with pytest.raises(ValueError, match="registered already"):
        diffmiczoo.register_model(diffmicv2_busi)


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
