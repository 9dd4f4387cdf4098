"""The registered names in timm's registry, and timm's arguments in `create_model`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from factories import TINY, small_model, smooth_picture

import diffmiczoo
from diffmiczoo.zoo.architectures import _ARCHITECTURES


@pytest.fixture(scope="module", autouse=True)
def registered() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = diffmiczoo.register_timm()
        assert diffmiczoo.register_timm() == []
    return names


@pytest.fixture
def new_architecture() -> Iterator[str]:
    def diffmicv2_of_a_test() -> diffmiczoo.DiffMICConfig:
        """Of a test."""
        return diffmiczoo.DiffMICConfig(**TINY)

    diffmiczoo.register_model(diffmicv2_of_a_test)
    yield "diffmicv2_of_a_test"
    del _ARCHITECTURES["diffmicv2_of_a_test"]


def test_timm_lists_the_registered_names() -> None:
    assert timm.list_models("diffmicv2*") == diffmiczoo.list_models("diffmicv2*", tags=False)
    assert timm.list_models("diffmicv2_nano*", include_tags=True) == diffmiczoo.list_models(
        "diffmicv2_nano*", tags=True
    )
    assert set(timm.list_pretrained("diffmicv2*")) == set(diffmiczoo.list_pretrained()) - {
        "diffmicv2_nano",
        "diffmicv2_small",
    }
    assert timm.is_model("diffmicv2_nano.busi") and "resnet18" in timm.list_models("resnet*")


@pytest.mark.parametrize("name", ["diffmicv2_ham10000", "diffmicv2_nano.ham10000"])
def test_timm_builds_the_same_model(name: str) -> None:
    model, own = timm.create_model(name, pretrained=True), diffmiczoo.create_model(name, pretrained=True)
    assert model.config == own.config and model.trained
    picture = smooth_picture(140, 150)
    assert torch.equal(model.predict(picture).probs, own.predict(picture).probs)


def test_timms_number_of_classes() -> None:
    with pytest.warns(UserWarning, match="num_classes is now 4"):
        model = timm.create_model("diffmicv2_busi", pretrained=True, num_classes=4)
    assert model.num_classes == 4 and not model.trained
    model = timm.create_model("diffmicv2_nano", num_classes=3, img_size=64, **{**TINY, "image_size": 64})
    assert model.num_classes == 3 and model.config.image_size == 64 and not model.trained


def test_architectures_of_other_packages_follow(new_architecture: str) -> None:
    assert diffmiczoo.register_timm() == [new_architecture] and timm.is_model(new_architecture)
    assert diffmiczoo.is_model(new_architecture)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features_only": True}, "forward_features"),
        ({"out_indices": (1, 2)}, "forward_features"),
        ({"scriptable": True}, "torch.export"),
        ({"exportable": True}, "torch.export"),
        ({"checkpoint_path": "weights.pth"}, "load_state_dict"),
        ({"drop_path_rate": 0.1}, "no dropout"),
        ({"global_pool": "max"}, "averages"),
        ({"pretrained_cfg": {"mean": (0, 0, 0)}}, "image_size"),
        ({"img_size": 64, "image_size": 96}, "mean the same"),
        ({"in_chans": 4}, "in_chans=4"),
        ({"num_classes": 0}, "embed"),
    ],
    ids=str,
)
def test_timms_arguments_without_a_meaning(arguments: dict, message: str) -> None:
    with pytest.raises(diffmiczoo.DiffMICError, match=message):
        diffmiczoo.create_model("diffmicv2_nano", **arguments)


def test_timms_arguments_that_ask_for_nothing() -> None:
    nothing = {"features_only": False, "scriptable": None, "drop_rate": 0.0, "global_pool": "avg", "img_size": None}
    assert diffmiczoo.create_model("diffmicv2_nano", **TINY, **nothing).config.image_size == 64


def test_an_unknown_tag_through_timm_is_named() -> None:
    with pytest.raises(diffmiczoo.DiffMICError, match=r"unknown model 'diffmicv2_nano\.hamm'"):
        timm.create_model("diffmicv2_nano.hamm", pretrained=True)


@torch.no_grad()
def test_one_channel_is_grey() -> None:
    model = diffmiczoo.create_model("diffmicv2_nano", **TINY, in_chans=1).eval()
    size = model.config.image_size
    grey = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    colours = grey.repeat(1, 3, 1, 1)
    assert torch.equal(model(grey), model(colours))
    assert torch.equal(model.condition(grey).feature_prior, model.condition(colours).feature_prior)
    assert torch.equal(model.forward_head(model.forward_features(grey)), model(colours))
    with pytest.raises(diffmiczoo.DiffMICError, match=r"\(B, 3, 64, 64\)"):
        model(torch.randn(2, 2, size, size))


def test_training_takes_grey_batches() -> None:
    model = small_model()
    grey, targets = torch.randn(2, 1, 64, 64), torch.tensor([0, 2])
    for loss in (model.dcg_loss, lambda *given: model.training_loss(*given, torch.Generator().manual_seed(0))):
        assert torch.equal(loss(grey, targets), loss(grey.repeat(1, 3, 1, 1), targets))


def test_a_directory_without_pretrained_says_that_weights_are_random(tmp_path: Path) -> None:
    small_model(trained=True).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match=r"random weights.*pretrained=True\) loads the trained ones"):
        model = diffmiczoo.create_model(f"local-dir:{tmp_path}")
    assert not model.trained
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert diffmiczoo.create_model(f"local-dir:{tmp_path}", pretrained=True).trained
        diffmiczoo.create_model("diffmicv2_nano", **TINY)


def test_names_are_looked_up_as_in_timm() -> None:
    assert all(diffmiczoo.is_model(name) for name in diffmiczoo.list_models())
    assert not diffmiczoo.is_model("diffmicv2_nano.none") and not diffmiczoo.is_model("local-dir:here")
    pretrained = diffmiczoo.list_pretrained()
    assert pretrained == diffmiczoo.list_models(pretrained=True) and "diffmicv2_busi" in pretrained
    two = diffmiczoo.list_models(["*busi", "*ham10000"], exclude_filters="*.*")
    assert two == ["diffmicv2_busi", "diffmicv2_ham10000"]
