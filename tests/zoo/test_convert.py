"""Checkpoints of the released program: taken over whole and exactly, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.convert import RELEASED, convert_official


@pytest.fixture(scope="module")
def converted(released: dict[str, Tensor]) -> DiffMICv2:
    return convert_official(released)


def assert_same(model: DiffMICv2, other: DiffMICv2) -> None:
    assert model.config == other.config and model.trained and not model.training
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def test_the_config_is_that_programs(converted: DiffMICv2) -> None:
    config = converted.config
    assert (config.num_classes, config.latent_dim, config.num_rois, config.num_points) == (5, 64, 4, 4)
    assert (config.roi_channels, config.init, config.loss) == ("first", "interpolated", "focal")
    assert (config.raw_encoder, config.roi_encoder, config.dcg_encoder) == ("efficientsam_s", "resnet18", "resnet18")
    assert (config.image_size, config.num_train_timesteps, config.attention_dim) == (224, 1000, 128)
    assert config.roi_size == 112, "the paper's setting for four ROIs"


def test_every_form_of_a_checkpoint_gives_the_same_model(released, converted, tmp_path: Path) -> None:
    forms = {
        "plain.pt": released,
        "lightning.ckpt": {"state_dict": released, "epoch": 3, "hyper_parameters": {"lr": 1e-3}, "callbacks": {}},
        "parallel.pth": {f"module.{key}": tensor for key, tensor in released.items()},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
        assert_same(convert_official(tmp_path / name), converted)
    torch.save(part(released, "model."), tmp_path / "diffusion.pt")
    torch.save({"state_dict": part(released, "aux_model.")}, tmp_path / "dcg.pt")
    assert_same(convert_official(tmp_path / "diffusion.pt", tmp_path / "dcg.pt"), converted)
    assert_same(convert_official(str(tmp_path / "dcg.pt"), str(tmp_path / "diffusion.pt")), converted)


def test_converted_saved_and_loaded_it_predicts_the_same_bit_for_bit(released, tmp_path: Path, image_folder) -> None:
    torch.save({"state_dict": released}, tmp_path / "last.ckpt")
    arguments = [
        "convert",
        str(tmp_path / "last.ckpt"),
        "--output",
        str(tmp_path / "ours"),
        "--class-names",
        "a,b,c,d,e",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "5 classes, H 64, K 4 × 112 pixels, efficientsam_s, resnet18" in done.output
    model = convert_official(released, class_names=list("abcde"))
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True)
    assert_same(loaded, model)
    files = sorted(image_folder.rglob("*.png"))[:3]
    ours, theirs = loaded.predict(files), model.predict(files)
    assert torch.equal(ours.scores, theirs.scores) and torch.equal(ours.rois, theirs.rois)
    assert ours.class_names == tuple("abcde") and not ours.calibrated
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "holds a model already" in again.output
    assert CliRunner().invoke(main, [*arguments, "--force"]).exit_code == 0


def test_what_the_tensors_do_not_tell_can_be_given(released) -> None:
    config = convert_official(released, class_names=list("abcde"), task="multilabel", roi_size=64).config
    assert (config.task, config.roi_size, config.labels) == ("multilabel", 64, tuple("abcde"))


@torch.no_grad()
def test_a_densenet_as_roi_encoder(released) -> None:
    """Assumed, as no reference holds one: the list of a DenseNet's children is its `features`."""
    theirs = torchvision.models.densenet121().eval()
    tensors = {key: tensor for key, tensor in released.items() if not key.startswith("model.encoder_x_l.f.")}
    tensors |= {f"model.encoder_x_l.f.0.{key}": tensor for key, tensor in theirs.features.state_dict().items()}
    tensors["model.encoder_x_l.g.weight"] = torch.randn(64, 1024)
    model = convert_official(tensors)
    assert model.config.roi_encoder == "densenet121"
    images = torch.randn(2, 3, 112, 112)
    found = model.feature_prior.roi_encoder(images)
    torch.testing.assert_close(found.relu(), theirs.features(images).relu(), rtol=1e-4, atol=1e-4)


def without(tensors, key: str):
    return {name: tensor for name, tensor in tensors.items() if name != key}


BROKEN = {
    "unknown": (lambda t: {**t, "model.extra": torch.zeros(1)}, "not of the released DiffMIC-v2 program: model.extra"),
    "missing": (lambda t: without(t, "model.lin2.lin.bias"), r"missing unet\.block2\.conv\.bias"),
    "no diffusion": (lambda t: {k: v for k, v in t.items() if k.startswith("aux")}, "model.cond_weight is missing"),
    "no dcg": (
        lambda t: {k: v for k, v in t.items() if k.startswith("model.")},
        r"aux_model\.ds_net\.f\.\* is missing",
    ),
    "shape": (
        lambda t: {**t, "model.lin2.lin.weight": torch.zeros(3, 3, 1, 1)},
        r"block2\.conv\.weight has shape \(3, 3",
    ),
    "nan": (
        lambda t: {**t, "model.lin4.bias": torch.full((5,), float("nan"))},
        r"unet\.out_conv\.bias has values that are NaN or infinite",
    ),
    "width": (lambda t: {**t, "model.encoder_x.f.pos_embed": torch.zeros(1, 197, 200)}, "197 positions of width 200"),
    "axes": (lambda t: {**t, "model.lin4.weight": torch.zeros(5)}, r"model\.lin4\.weight has shape \(5,\)"),
    "encoder": (
        lambda t: {k: v for k, v in t.items() if not k.startswith("model.encoder_x_l.f.7.")},
        "neither a ResNet nor a DenseNet that is known",
    ),
    "object": (lambda t: {**t, "note": "text"}, "not tensors: note"),
    "another model": (lambda t: torchvision.models.resnet18().state_dict(), "its first tensors are conv1.weight"),
    "empty": (lambda t: {}, "expected a state dict"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_such_a_checkpoint_is_refused_by_name(case: str, released) -> None:
    change, message = BROKEN[case]
    with pytest.raises(ValueError, match=message):
        convert_official(change(released))


def test_long_lists_are_cut(released) -> None:
    with pytest.raises(ValueError, match=r"… \(30 in all\)"):
        convert_official({**released, **{f"model.extra{n}": torch.zeros(1) for n in range(30)}})


def test_the_same_network_twice_is_refused(released) -> None:
    with pytest.raises(ValueError, match="both checkpoints hold"):
        convert_official(released, part(released, "aux_model."))


@settings(deadline=None, max_examples=8)
@given(st.data())
def test_any_missing_tensor_is_noticed(released, data) -> None:
    needed = [key for key in released if key.startswith(tuple(RELEASED)) and "num_batches" not in key]
    key = data.draw(st.sampled_from(needed))
    with pytest.raises(ValueError, match=r"missing|neither"):
        convert_official(without(released, key))
