"""Pretrained backbones: taken over whole and exactly, or refused."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
import torchvision
from einops import rearrange
from factories import SMALL_ENCODERS, TINY, small_model
from torch import Tensor

import diffmiczoo
from diffmiczoo.hub.errors import HubError
from diffmiczoo.hub.reachable import why_unreachable
from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.zoo import encoder_weights as backbones
from diffmiczoo.zoo.encoder_weights import BackboneWeights, load_backbone


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


@torch.no_grad()
@pytest.mark.parametrize(("name", "width", "heads"), [("efficientsam_ti", 192, 3), ("efficientsam_s", 384, 6)])
def test_efficientsam_weights_give_the_published_encoder(name: str, width: int, heads: int, tmp_path: Path) -> None:
    tensors = efficientsam_checkpoint(width)
    torch.save({"model": tensors}, tmp_path / "efficient_sam.pt")
    model = small_model(raw_encoder=name)
    load_backbone(model, "raw_encoder", tmp_path / "efficient_sam.pt")
    images = torch.randn(2, 3, 64, 64)
    expected = plain_vit(images, tensors, heads)
    torch.testing.assert_close(model.feature_prior.raw_encoder(images), expected, rtol=1e-4, atol=1e-4)


def test_efficientsam_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"raw_encoder: tensors that do not fit: .*has shape"):
        load_backbone(small_model(raw_encoder="efficientsam_ti"), "raw_encoder", efficientsam_checkpoint(384))
    with pytest.raises(ValueError, match=r"image_encoder\.pos_embed is missing"):
        load_backbone(
            small_model(raw_encoder="efficientsam_ti"), "raw_encoder", torchvision.models.resnet18().state_dict()
        )


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
    model = small_model(dcg_encoder="resnet18", roi_encoder="resnet18")
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
    with pytest.raises(ValueError, match="part='roi_encoder': the model has no such encoder"):
        load_backbone(small_model(predictor="dcg"), "roi_encoder", theirs)


def test_pretrained_backbones_come_from_the_hub(hub, hub_client, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    tensors = efficientsam_checkpoint(192)
    torch.save({"model": tensors}, tmp_path / "weights.pt")
    hub.create_repo("org/sam", {"efficient_sam_vitt.pt": (tmp_path / "weights.pt").read_bytes()})
    source = BackboneWeights("org/sam", "efficient_sam_vitt.pt", "apache-2.0")
    monkeypatch.setitem(backbones.BACKBONES, "efficientsam_ti", source)
    encoders = {**SMALL_ENCODERS, "raw_encoder": "efficientsam_ti"}
    small = timm.create_model("test_resnet")
    hub.create_repo("timm/test_resnet.r160_in1k", {"model.safetensors": safetensors.torch.save(small.state_dict())})
    model = diffmiczoo.create_model("diffmicv2_resnet18", pretrained_backbones=True, **TINY, **encoders)
    stored = model.feature_prior.raw_encoder.model.state_dict()["blocks.3.attn.qkv.weight"]
    assert torch.equal(stored, tensors["image_encoder.blocks.3.attn.qkv.weight"])
    weight = model.dcg.global_encoder.model.model.state_dict()["conv1.0.weight"]
    assert torch.equal(weight, small.state_dict()["conv1.0.weight"])
    monkeypatch.setitem(backbones.BACKBONES, "efficientsam_ti", BackboneWeights("org/sam", "gone.pt", "apache-2.0"))
    shutil.rmtree(Path(os.environ["HF_HOME"]) / "hub" / "models--org--sam")
    with pytest.raises(HubError, match=r"holds no gone\.pt"):
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
    model = small_model(raw_encoder="efficientsam_ti")
    model.save_pretrained(tmp_path)
    diffmiczoo.create_model(f"local-dir:{tmp_path}", pretrained=True)


@pytest.mark.parametrize("endpoint", ["http://no.such.host.invalid", "http://127.0.0.1:9"])
def test_without_a_network_it_is_said_at_once_and_before_anything_is_built(endpoint: str, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    monkeypatch.setattr("diffmiczoo.zoo.factory.DiffMICv2", lambda *_, **__: pytest.fail("built"))
    started = time.monotonic()
    with pytest.raises(HubError) as caught:
        diffmiczoo.create_model("diffmicv2_nano", pretrained_backbones=True, **TINY, **SMALL_ENCODERS)
    assert time.monotonic() - started < 6
    text = str(caught.value)
    for part in ("pretrained_backbones=True needs the weights of test_resnet", "not in the cache", "cannot be reached"):
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("encoder", ["test_resnet", "efficientsam_ti"])
@pytest.mark.parametrize("offline", ["HF_HUB_OFFLINE", "local_files_only"])
def test_the_network_is_not_asked_where_it_may_not_be(encoder: str, offline: str, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline == "HF_HUB_OFFLINE")
    monkeypatch.setattr(backbones, "why_unreachable", lambda address: pytest.fail("asked"))
    encoders = {**SMALL_ENCODERS, "dcg_encoder": encoder}
    with pytest.raises(HubError, match=f"weights of {encoder} .* the network may not be asked"):
        diffmiczoo.create_model(
            "diffmicv2_nano", pretrained_backbones=True, local_files_only=offline == "local_files_only",
            **TINY, **encoders,
        )  # fmt: skip


def test_a_proxy_is_left_to_say_what_it_reaches(monkeypatch) -> None:
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy.invalid:3128"})
    monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: False)
    assert why_unreachable("https://no.such.host.invalid") is None
