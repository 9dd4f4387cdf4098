"""A model from a loop of one's own is calibrated and marked as trained, and keeps both on every way that it goes."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import pictures, small_model, tiny_model, write_images

import diffmiczoo
from diffmiczoo.data.duplicates import content_hash
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.metrics.calibration import fit_calibration, fit_thresholds, pseudo_images
from diffmiczoo.model import DiffMICv2

NAMES = ("dark", "light")


@pytest.fixture(scope="module")
def calibrated(common_manifest: Path) -> DiffMICv2:
    """A calibrated model; nobody may change it."""
    model = tiny_model(class_names=NAMES).train()
    with pytest.warns(UserWarning, match="24 validation images"):
        assert model.calibrate(common_manifest, split="train") is model
    return model


def test_calibration_is_that_of_fit(calibrated: DiffMICv2, common_manifest: Path) -> None:
    train = read_manifest(common_manifest, class_names=NAMES).split("train")
    found = calibrated.predict([record.item() for record in train.records])
    targets = torch.from_numpy(train.targets())
    expected = fit_calibration(found.scores, found.members, targets, calibrated.config.uncalibrated())
    assert (calibrated.config.temperature, calibrated.config.prior_weight) == tuple(expected.values())
    assert calibrated.trained and found.calibrated and found.trained and calibrated.training


def test_too_few_images_leave_probabilities_as_they_are(common_manifest: Path) -> None:
    model = tiny_model(class_names=NAMES)
    with pytest.warns(UserWarning, match="8 validation images .* are too few to calibrate 2 classes: .* at least 12"):
        model.calibrate(common_manifest)
    assert model.trained and model.config == model.config.uncalibrated()


def test_splits_and_classes_are_those_of_evaluate(common_manifest: Path) -> None:
    model = tiny_model(class_names=NAMES)
    with pytest.warns(UserWarning, match="24 validation images"):
        model.calibrate(common_manifest, split="train")
    other = tiny_model(class_names=("cat", "dog"))
    with pytest.raises(diffmiczoo.DiffMICError, match="dark"):
        other.calibrate(common_manifest)
    assert not other.trained and other.config.temperature is None


def test_several_labels_get_thresholds(tmp_path: Path) -> None:
    write_images(tmp_path, [f"{number}.png" for number in range(24)])
    rows = [f"{number}.png,{int(number % 2 == 0)},{int(number % 3 == 0)}" for number in range(24)]
    (tmp_path / "labels.csv").write_text("file,a,b\n" + "\n".join(rows) + "\n")
    model = tiny_model(task="multilabel", class_names=("a", "b"))
    with pytest.warns(UserWarning, match="24 validation images"):
        model.calibrate(tmp_path / "labels.csv")
    found = model.predict([tmp_path / f"{number}.png" for number in range(24)])
    truth = torch.tensor([[number % 2 == 0, number % 3 == 0] for number in range(24)]).long()
    assert model.config.thresholds == fit_thresholds(found.probs, truth, pseudo_images=pseudo_images(24))


def test_what_fails_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    (tmp_path / "light").mkdir()
    (tmp_path / "dark" / "a.png").write_bytes(b"no picture")
    (tmp_path / "light" / "b.png").write_bytes(b"no picture")
    model = tiny_model(class_names=NAMES)
    with pytest.raises(diffmiczoo.ImageError, match=r"a\.png"):
        model.calibrate(tmp_path)
    assert not model.trained and model.config.temperature is None


# ---------------------------------------------------------------------- ways that a model goes


def through_torch_save(value: Any, **options: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, **options)


def loaded(state: Any) -> DiffMICv2:
    model = tiny_model(class_names=NAMES)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    model.load_state_dict(state)
    return model


WAYS: dict[str, Callable[[DiffMICv2], DiffMICv2]] = {
    "state_dict": lambda model: loaded(model.state_dict()),
    "state_dict in a file": lambda model: loaded(through_torch_save(model.state_dict(), weights_only=True)),
    "state_dict copied": lambda model: loaded(copy.deepcopy(model.state_dict())),
    "into a model without names": lambda model: _into(tiny_model(), model),
    "the model in a file": lambda model: through_torch_save(model, weights_only=False),
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deepcopy": copy.deepcopy,
}


def _into(target: DiffMICv2, model: DiffMICv2) -> DiffMICv2:
    target.load_state_dict(model.state_dict())
    return target


@pytest.mark.parametrize("way", WAYS)
def test_every_way_keeps_the_predictions(calibrated: DiffMICv2, way: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other = WAYS[way](calibrated)
        one, two = calibrated.predict(pictures(2)), other.predict(pictures(2))
    assert torch.equal(one.probs, two.probs) and two.class_names == NAMES and two.calibrated and two.trained


def test_a_saved_model_keeps_them_too(calibrated: DiffMICv2, tmp_path: Path) -> None:
    calibrated.save_pretrained(tmp_path)
    other = DiffMICv2.from_pretrained(tmp_path)
    assert other.config == calibrated.config and other.trained
    assert np.array_equal(other.predict_proba(pictures(2)), calibrated.predict_proba(pictures(2)))


def test_weights_that_say_nothing_leave_the_config_alone(calibrated: DiffMICv2) -> None:
    plain = OrderedDict(calibrated.state_dict().items())
    other = loaded(plain)
    assert other.config.temperature is None and not other.trained
    with pytest.warns(UserWarning, match="not trained"):
        other.predict(pictures(1))


def test_a_state_dict_has_no_further_keys(calibrated: DiffMICv2) -> None:
    state = calibrated.state_dict()
    assert {name for name, _ in calibrated.named_parameters()} <= set(state)
    assert not any("diffmiczoo" in key for key in state)
    assert all(isinstance(value, torch.Tensor) for value in state.values())


def test_a_calibrated_model_keeps_its_own(calibrated: DiffMICv2) -> None:
    own = tiny_model(class_names=NAMES, temperature=0.5)
    own.trained = True
    with pytest.warns(UserWarning, match=r"another temperature .*, here 0\.5"):
        own.load_state_dict(calibrated.state_dict())
    assert own.config.temperature == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"class_names": ("light", "dark")}, r"another class_names \('dark', 'light'\), here \('light', 'dark'\)"),
        ({"class_names": NAMES, "crop_mode": "border"}, "another crop_mode center, here border"),
        ({"class_names": NAMES, "mean": (0.0, 0.0, 0.0)}, "another mean"),
        (
            {"class_names": NAMES, "roi_saliency": "top", "tta": "flips"},
            "another roi_saliency sum, here top; tta none, here flips",
        ),
        ({"class_names": NAMES, "task": "multilabel"}, "another task multiclass, here multilabel"),
    ],
    ids=str,
)
def test_weights_of_another_kind_of_model_are_named(calibrated: DiffMICv2, fields: dict, message: str) -> None:
    model = tiny_model(**fields)
    with pytest.warns(UserWarning, match=message):
        model.load_state_dict(calibrated.state_dict())


def test_parts_of_a_state_dict_tell_nothing(calibrated: DiffMICv2) -> None:
    state = calibrated.state_dict()
    del state["unet.out_conv.weight"]
    model = small_model(num_classes=2)
    model.load_state_dict(state, strict=False)
    assert not model.trained and model.config.temperature is None


def test_images_that_the_weights_have_learned_from_are_told(common_manifest: Path) -> None:
    model = tiny_model(class_names=NAMES)
    squares = model.preprocess([common_manifest.parent / f"{number}.png" for number in range(20, 28)])
    pixels = squares * torch.tensor(model.config.std).view(3, 1, 1) + torch.tensor(model.config.mean).view(3, 1, 1)
    model.training_pictures = PictureSet.of(content_hash(one.numpy()) for one in (pixels * 255).round().byte())
    with pytest.warns(UserWarning, match="4 of 8 images were used to train these weights.*calibrate on images"):
        model.calibrate(common_manifest)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_state_dict_from_within_a_wrapper_is_loaded(calibrated: DiffMICv2, prefix: str) -> None:
    model = tiny_model(class_names=NAMES)
    state = calibrated.state_dict(prefix=prefix)
    keys = list(state)
    model.load_state_dict(state)
    assert list(state) == keys and model.trained and model.config == calibrated.config
    assert torch.equal(model.state_dict()[keys[0].removeprefix(prefix)], state[keys[0]])


def test_weights_of_another_number_of_classes_say_so(calibrated: DiffMICv2) -> None:
    with pytest.raises(diffmiczoo.DiffMICError, match="model with 2 classes, this one has 3; create it"):
        small_model(num_classes=3).load_state_dict(calibrated.state_dict())


def test_accuracy_that_labels_cannot_give_up_is_refused(common_manifest: Path) -> None:
    model = tiny_model(class_names=NAMES)
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=rf"balance_labels={value} is outside 0\.0\.\.1\.0"):
            model.calibrate(common_manifest, balance_labels=value)
    with pytest.raises(ValueError, match=r"balance_labels=0\.1 is for one label out of several"):
        tiny_model(class_names=NAMES, task="multilabel").calibrate(common_manifest, balance_labels=0.1)
    assert not model.trained
