"""`create_model`: weights, overrides, classes, and directories that are broken."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY
from safetensors.torch import load_file, save_file

import diffmiczoo


@pytest.fixture
def saved(tmp_path):
    """A tiny trained model in a directory."""
    torch.manual_seed(0)
    model = diffmiczoo.create_model("diffmicv2_nano", num_classes=3, **{**TINY, **SMALL_ENCODERS})
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def test_unpublished_weights_are_an_error_that_helps() -> None:
    with pytest.raises(ValueError, match="no published weights") as caught:
        diffmiczoo.create_model("diffmicv2_resnet18.ham10000", pretrained=True)
    assert "diffmicv2_ham10000" in str(caught.value) and "diffmiczoo fit --model" in str(caught.value)


def test_overrides_reach_the_config() -> None:
    model = diffmiczoo.create_model("diffmicv2_busi", **{**TINY, **SMALL_ENCODERS}, skip=True, task="multilabel")
    assert model.config.skip and model.config.latent_dim == 8 and model.config.task == "multilabel"
    assert model.config.labels == ("benign", "malignant", "normal") and not model.training and not model.trained
    model = diffmiczoo.create_model("diffmicv2_busi", class_names=["a", "b"], **{**TINY, **SMALL_ENCODERS})
    assert model.config.num_classes == 2 and model.config.labels == ("a", "b")
    with pytest.raises(ValueError, match="did you mean latent_dim"):
        diffmiczoo.create_model("diffmicv2_nano", latent_dims=3)
    with pytest.raises(ValueError, match="leave pretrained_backbones out"):
        diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True, pretrained_backbones=True)


@pytest.mark.parametrize(
    ("name", "fields", "roi_size"),
    [
        ("diffmicv2_nano", {"image_size": 64}, 19),
        ("diffmicv2_nano", {"image_size": 384}, 112),
        ("diffmicv2_nano", {"image_size": 96, "roi_source_size": 192}, 56),
        ("diffmicv2_nano", {"image_size": 96, "roi_size": 40}, 40),
        ("diffmicv2_nano.aptos2019", {"image_size": 160}, 64),  # cut from 224 pixels, which stay
        ("diffmicv2_resnet18", {"image_size": 96}, 32),  # the paper's
    ],
)
def test_regions_keep_their_share_of_another_image_size(name: str, fields: dict, roi_size: int) -> None:
    with torch.device("meta"):
        config = diffmiczoo.create_model(name, **fields).config
    assert (config.roi_size, config.image_size) == (roi_size, fields["image_size"])


def test_small_pictures_have_regions_that_differ() -> None:
    model = diffmiczoo.create_model("diffmicv2_nano", num_classes=3, image_size=64)
    model.trained = True
    rois = model.predict(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)).rois[0]
    assert len({tuple(each) for each in rois.tolist()}) == len(rois) == 4


def test_local_directory(saved) -> None:
    model = diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True, device="cpu", dtype=torch.float64)
    assert model.trained and next(model.parameters()).dtype == torch.float64
    assert diffmiczoo.DiffMICv2.from_pretrained(saved).trained
    assert diffmiczoo.model_info(f"local-dir:{saved}").weights == "local"
    with pytest.warns(UserWarning, match="random weights"):
        fresh = diffmiczoo.create_model(f"local-dir:{saved}")
    assert not fresh.trained and fresh.config == model.config
    with pytest.raises(FileNotFoundError, match="is not a directory"):
        diffmiczoo.create_model("local-dir:nowhere", pretrained=True)


def test_other_classes_on_trained_weights(saved) -> None:
    renamed = diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True, class_names=["a", "b", "c"])
    assert renamed.trained and renamed.config.labels == ("a", "b", "c")
    with pytest.warns(UserWarning, match="num_classes is now 4"):
        changed = diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True, num_classes=4)
    assert not changed.trained and changed.config.num_classes == 4
    stored = load_file(saved / "model.safetensors")
    assert torch.equal(changed.state_dict()["feature_prior.Q"], stored["feature_prior.Q"])


def test_overrides_that_do_not_fit_the_weights_are_errors(saved) -> None:
    with pytest.raises(ValueError, match="has shape"):
        diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True, latent_dim=16)
    assert diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True, sampling_steps=2).config.sampling_steps == 2


def test_float16_files_load_as_float32_and_save_refuses_what_does_not_fit(saved, tmp_path) -> None:
    model = diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True)
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    assert load_file(tmp_path / "half" / "model.safetensors")["feature_prior.Q"].dtype == torch.float16
    assert next(diffmiczoo.DiffMICv2.from_pretrained(tmp_path / "half").parameters()).dtype == torch.float32
    with torch.no_grad():
        model.feature_prior.Q[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"feature_prior\.Q has values that torch\.float16 cannot hold"):
        model.save_pretrained(tmp_path / "half", dtype=torch.float16)


def _break(saved, what: str) -> None:
    weights, config = saved / "model.safetensors", saved / "config.json"
    tensors = load_file(weights)
    if what == "missing tensor":
        tensors.pop("feature_prior.Q")
        save_file(tensors, weights)
    elif what == "unknown tensor":
        save_file({**tensors, "extra": torch.zeros(1)}, weights)
    elif what == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif what == "no config":
        config.unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "other library":
        config.write_text(json.dumps({"library": "other"}))
    elif what == "hostile size":
        values = json.loads(config.read_text())
        values["config"]["latent_dim"] = 10**12
        config.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing tensor", r"missing feature_prior\.Q"),
        ("unknown tensor", "unknown extra"),
        ("truncated", "not a safetensors file, or cut short"),
        ("no config", r"config\.json does not exist"),
        ("no weights", r"model\.safetensors does not exist"),
        ("other library", "expected a description of a diffmiczoo model"),
        ("hostile size", "latent_dim=1000000000000 is outside"),
    ],
)
def test_broken_directories_never_give_a_model(saved, what: str, message: str) -> None:
    _break(saved, what)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        diffmiczoo.create_model(f"local-dir:{saved}", pretrained=True)


def test_a_failed_save_leaves_the_old_files(saved) -> None:
    model = diffmiczoo.DiffMICv2.from_pretrained(saved)
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    with torch.no_grad():
        model.feature_prior.Q[0, 0] = 1e6
    with pytest.raises(ValueError, match="cannot hold"):
        model.save_pretrained(saved, dtype=torch.float16)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_shutil_copy_of_a_directory_is_enough_to_move_weights(saved, tmp_path) -> None:
    shutil.copytree(saved, tmp_path / "elsewhere")
    images = torch.randn(2, 3, 64, 64)
    first, second = (diffmiczoo.DiffMICv2.from_pretrained(path) for path in (saved, tmp_path / "elsewhere"))
    with torch.no_grad():
        assert torch.equal(first(images), second(images))


NANO = "diffmicv2_nano.ham10000"


def test_weights_are_not_given_another_meaning() -> None:
    names = diffmiczoo.create_model(NANO, pretrained=True).config.class_names
    with pytest.raises(ValueError, match="task='multilabel' contradicts the weights"):
        diffmiczoo.create_model(NANO, pretrained=True, task="multilabel")
    with pytest.raises(ValueError, match="the same class_names in another order"):
        diffmiczoo.create_model(NANO, pretrained=True, class_names=names[::-1])
    with pytest.warns(UserWarning, match="num_classes is now 7"):
        other = diffmiczoo.create_model(NANO, pretrained=True, class_names=list("abcdefg"))
    assert not other.trained and other.config.temperature is None and other.config.labels == tuple("abcdefg")
    assert diffmiczoo.create_model(NANO, pretrained=True, class_names=names).trained


def test_a_model_without_weights_has_no_temperature() -> None:
    model = diffmiczoo.create_model(NANO)
    assert not model.trained and model.config.temperature is None and model.config.image_size == 192


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_classes": 0}, ValueError, "num_classes=0: a model cannot lose its classes"),
        ({"num_classes": 1}, ValueError, "num_classes=1 is outside 2"),
        ({"num_classes": 2.5}, TypeError, "float"),
        ({"class_names": "abc"}, TypeError, "class_names='abc' is one text; expected a list of names"),
        ({"num_classes": 4, "class_names": ["a", "b"]}, ValueError, "class_names has 2 names, but num_classes is 4"),
    ],
)
def test_wrong_classes(pretrained: bool, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        diffmiczoo.create_model(NANO, pretrained=pretrained, **options)


def test_numbers_of_numpy_are_whole_numbers() -> None:
    assert diffmiczoo.create_model(NANO, num_classes=np.int64(3)).config.num_classes == 3


def test_names_come_in_any_form_and_grades_keep_their_order(tmp_path) -> None:
    grades = ["none", "mild", "moderate", "severe"]
    for names in (np.array(grades), dict.fromkeys(grades).keys(), (name for name in grades)):
        model = diffmiczoo.create_model("diffmicv2_nano", class_names=names, ordinal=True, **TINY, **SMALL_ENCODERS)
        assert model.config.class_names == tuple(grades) and model.config.ordinal
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    name = f"local-dir:{tmp_path}/weights"
    assert diffmiczoo.create_model(name, class_names=[0, 1]).config.class_names == ("0", "1")
    assert not diffmiczoo.create_model(name, class_names=["a", "b"]).config.ordinal
    with pytest.warns(UserWarning, match="but for the rows of mild, severe; fit"):
        other = diffmiczoo.create_model(name, pretrained=True, class_names=["no", "mild", "severe"], ordinal=True)
    assert other.config.class_names == ("no", "mild", "severe") and other.config.ordinal
