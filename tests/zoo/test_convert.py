"""Checkpoints of other programs: taken over whole and exactly, or refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from click.testing import CliRunner
from einops import rearrange
from factories import SMALL_ENCODERS, TINY, released_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.client import HubError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.zoo import encoder_weights as backbones
from diffmiczoo.zoo.convert import RELEASED, convert_official
from diffmiczoo.zoo.encoder_weights import BackboneWeights, load_backbone


@pytest.fixture(scope="module")
def released(shared: Path) -> dict[str, Tensor]:
    return released_checkpoint(shared / "golden", "c5_h64_k4")


@pytest.fixture(scope="module")
def converted(released: dict[str, Tensor]) -> DiffMICv2:
    return convert_official(released)


def assert_same(model: DiffMICv2, other: DiffMICv2) -> None:
    assert model.config == other.config and model.trained and not model.training
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


# ---------------------------------------------------------------------- the released program


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


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_any_missing_tensor_is_noticed(released, data) -> None:
    needed = [key for key in released if key.startswith(tuple(RELEASED)) and "num_batches" not in key]
    key = data.draw(st.sampled_from(needed))
    with pytest.raises(ValueError, match=r"missing|neither"):
        convert_official(without(released, key))


# ---------------------------------------------------------------------- files


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (eval, (f"open({str(self.target)!r}, 'w')",))


FILES = {
    "empty": (b"", "is empty; was the download interrupted"),
    "web page": (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page, not a checkpoint"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a pointer of Git LFS"),
    "text": (b"hello", "no checkpoint|not a checkpoint"),
    "cut zip": (b"PK\x03\x04" + bytes(100), "not a checkpoint, or cut short"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_checkpoints(case: str, tmp_path: Path) -> None:
    content, message = FILES[case]
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        convert_official(path)
    assert str(path) in str(caught.value)


def test_a_checkpoint_that_would_run_code_is_refused(released, tmp_path: Path) -> None:
    torch.save({"state_dict": released, "callbacks": Evil(tmp_path / "was here")}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"holds Python objects besides tensors.*refused"):
        convert_official(tmp_path / "evil.ckpt")
    assert not (tmp_path / "was here").exists()


def test_a_missing_file_and_a_file_cut_short(released, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.pt does not exist"):
        convert_official(tmp_path / "nothing.pt")
    torch.save(released, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:100_000])
    with pytest.raises(ValueError, match="not a checkpoint, or cut short"):
        convert_official(tmp_path / "cut.pt")
    done = CliRunner().invoke(main, ["convert", str(tmp_path / "cut.pt"), "--output", str(tmp_path / "out")])
    assert done.exit_code == 2 and "Traceback" not in done.output and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- backbones


def efficientsam_checkpoint(width: int, depth: int = 12, grid: int = 64) -> dict[str, Tensor]:
    """Random tensors under the published names, with what the encoder does not use."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    tensors = {
        "image_encoder.pos_embed": draw(1, 1 + grid**2, width),
        "image_encoder.patch_embed.proj.weight": draw(width, 3, 16, 16),
        "image_encoder.patch_embed.proj.bias": draw(width),
        "image_encoder.neck.0.weight": draw(256, width, 1, 1),
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": draw(2, 128),
        "mask_decoder.iou_token.weight": draw(1, 256),
    }
    for n in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
        }.items():
            tensors[f"image_encoder.blocks.{n}.{name}"] = draw(*shape)
    return tensors


def plain_vit(images: Tensor, tensors: dict[str, Tensor], heads: int) -> Tensor:
    """EfficientSAM's encoder written out: pre-norm blocks, LayerNorm eps 1e-6, no final norm."""
    own = {key.removeprefix("image_encoder."): tensor for key, tensor in tensors.items()}
    x = F.conv2d(images, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], stride=16)
    side, width = x.shape[-1], x.shape[1]
    positions = rearrange(own["pos_embed"][:, 1:], "1 (h w) d -> 1 d h w", h=64)
    positions = F.interpolate(positions, (side, side), mode="bicubic", antialias=True, align_corners=False)
    x = rearrange(x + positions, "b d h w -> b (h w) d")
    for n in range(12):
        block = {key.removeprefix(f"blocks.{n}."): t for key, t in own.items() if key.startswith(f"blocks.{n}.")}
        normed = F.layer_norm(x, (width,), block["norm1.weight"], block["norm1.bias"], 1e-6)
        qkv = F.linear(normed, block["attn.qkv.weight"], block["attn.qkv.bias"])
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=heads)
        attended = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        attended = rearrange(attended, "b h n d -> b n (h d)")
        x = x + F.linear(attended, block["attn.proj.weight"], block["attn.proj.bias"])
        normed = F.layer_norm(x, (width,), block["norm2.weight"], block["norm2.bias"], 1e-6)
        hidden = F.gelu(F.linear(normed, block["mlp.fc1.weight"], block["mlp.fc1.bias"]))
        x = x + F.linear(hidden, block["mlp.fc2.weight"], block["mlp.fc2.bias"])
    return rearrange(x, "b (h w) d -> b d h w", h=side)


def small(**fields) -> DiffMICv2:
    return DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS, **fields})).eval()


@torch.no_grad()
@pytest.mark.parametrize(("name", "width", "heads"), [("efficientsam_ti", 192, 3), ("efficientsam_s", 384, 6)])
def test_efficientsam_weights_give_the_published_encoder(name: str, width: int, heads: int, tmp_path: Path) -> None:
    tensors = efficientsam_checkpoint(width)
    torch.save({"model": tensors}, tmp_path / "efficient_sam.pt")
    model = small(raw_encoder=name)
    load_backbone(model, "raw_encoder", tmp_path / "efficient_sam.pt")
    images = torch.randn(2, 3, 64, 64)
    expected = plain_vit(images, tensors, heads)
    torch.testing.assert_close(model.feature_prior.raw_encoder(images), expected, rtol=1e-4, atol=1e-4)


def test_efficientsam_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"raw_encoder: tensors that do not fit: .*has shape"):
        load_backbone(small(raw_encoder="efficientsam_ti"), "raw_encoder", efficientsam_checkpoint(384))
    with pytest.raises(ValueError, match=r"image_encoder\.pos_embed is missing"):
        load_backbone(small(raw_encoder="efficientsam_ti"), "raw_encoder", torchvision.models.resnet18().state_dict())


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121", "densenet169"])
def test_torchvision_weights_give_the_same_feature_map(name: str) -> None:
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)().eval()
    images = torch.randn(2, 3, 64, 64)
    if name.startswith("densenet"):
        expected = theirs.features(images).relu()
    else:
        expected = torch.nn.Sequential(*list(theirs.children())[:-2])(images)
    encoder = create_encoder(name, 64).eval()
    backbones.fill_encoder(encoder, theirs.state_dict())
    found = encoder(images)
    found = found.relu() if name.startswith("densenet") else found
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_old_names_of_densenets_are_understood() -> None:
    theirs = torchvision.models.densenet121().state_dict()
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv1.", ".conv.1."): tensor for key, tensor in theirs.items()}
    assert old.keys() != theirs.keys()
    first, second = create_encoder("densenet121", 64), create_encoder("densenet121", 64)
    backbones.fill_encoder(first, theirs)
    backbones.fill_encoder(second, old)
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())


@torch.no_grad()
def test_both_streams_of_the_dcg_and_the_roi_encoder(tmp_path: Path) -> None:
    model = small(dcg_encoder="resnet18", roi_encoder="resnet18")
    theirs = torchvision.models.resnet18().state_dict()
    load_backbone(model, "dcg_encoder", theirs)
    load_backbone(model, "roi_encoder", theirs)
    for path in ("dcg.global_encoder", "dcg.local_encoder", "feature_prior.roi_encoder"):
        own = model.get_submodule(path).state_dict()
        assert torch.equal(own["model.model.layer4.1.conv2.weight"], theirs["layer4.1.conv2.weight"]), path
    with pytest.raises(ValueError, match="part='encoder' is not one of 'raw_encoder', 'roi_encoder', 'dcg_encoder'"):
        load_backbone(model, "encoder", theirs)
    with pytest.raises(ValueError, match=r"tensors that do not fit: missing|has shape"):
        load_backbone(model, "roi_encoder", torchvision.models.resnet50().state_dict())
    with pytest.raises(ValueError, match="has none of the encoder's tensors"):
        load_backbone(model, "roi_encoder", {"a": torch.zeros(1)})


def test_pretrained_backbones_come_from_the_hub(hub, hub_client, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    tensors = efficientsam_checkpoint(192)
    torch.save({"model": tensors}, tmp_path / "weights.pt")
    hub.create_repo("org/sam", {"efficient_sam_vitt.pt": (tmp_path / "weights.pt").read_bytes()})
    source = BackboneWeights("org/sam", "efficient_sam_vitt.pt", "apache-2.0")
    monkeypatch.setitem(backbones.BACKBONES, "efficientsam_ti", source)
    encoders = {**SMALL_ENCODERS, "raw_encoder": "efficientsam_ti"}
    # The others start without weights here: timm's own are on the real Hub.
    monkeypatch.setattr(
        "diffmiczoo.model.create_encoder", lambda name, size, index, pretrained: create_encoder(name, size, index)
    )
    model = diffmiczoo.create_model("diffmicv2_resnet18", pretrained_backbones=True, **TINY, **encoders)
    stored = model.feature_prior.raw_encoder.model.state_dict()["blocks.3.attn.qkv.weight"]
    assert torch.equal(stored, tensors["image_encoder.blocks.3.attn.qkv.weight"])
    monkeypatch.setitem(backbones.BACKBONES, "efficientsam_ti", BackboneWeights("org/sam", "gone.pt", "apache-2.0"))
    with pytest.raises(HubError, match=r"holds no gone\.pt.*load_backbone\(model, 'raw_encoder', PATH\)"):
        diffmiczoo.create_model("diffmicv2_resnet18", pretrained_backbones=True, **TINY, **encoders)


def test_a_finished_model_never_fetches_a_backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm

    create = timm.create_model

    def watched(name, *args, **options):
        assert not options.get("pretrained"), name
        return create(name, *args, **options)

    monkeypatch.setattr(timm, "create_model", watched)
    monkeypatch.setattr(backbones, "fetch_efficientsam", lambda *_: pytest.fail("fetched"))
    assert diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True).trained
    model = small(raw_encoder="efficientsam_ti")
    model.save_pretrained(tmp_path)
    diffmiczoo.create_model(f"local-dir:{tmp_path}", pretrained=True)
