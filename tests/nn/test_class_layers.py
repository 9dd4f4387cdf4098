"""Which fields of a config shape weights, and the layers that follow the number of classes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from factories import SMALL_ENCODERS, TINY, tiny_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.class_layers import SHAPING_FIELDS

BASE = DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS})
OTHER = {
    "num_classes": 4,
    "predictor": "global",
    "dcg_encoder": "test_efficientnet",
    "dcg_out_index": 1,
    "dcg_trunk": True,
    "local_out_index": 1,
    "attention_dim": 5,
    "num_rois": 3,
    "raw_encoder": "test_efficientnet",
    "raw_out_index": 1,
    "roi_features": False,
    "roi_encoder": "test_efficientnet",
    "roi_out_index": 1,
    "latent_dim": 9,
    "feature_norm": "none",
    "kernel_size": 3,
    "num_train_timesteps": 60,
}
FREE = {
    "class_names": ("a", "b", "c"),
    "ordinal": True,
    "crop_mode": "squash",
    "interpolation": "bicubic",
    "saliency_top": 0.5,
    "roi_channels": "first",
    "num_points": 4,
    "guidance": "fused",
    "prior_activation": "probs",
    "feature_weighting": "none",
    "roi_saliency": "spread",
    "skip": True,
    "heterologous": False,
    "process_mean": "prior",
    "loss": "focal",
    "mmd_weight": 0.5,
    "sampler": "ancestral",
    "sampling_steps": 5,
    "num_samples": 2,
    "init": "guided",
    "shared_noise": True,
    "clip_sample": False,
    "temperature": 2.0,
    "prior_weight": 0.5,
}


def shapes(config: DiffMICConfig) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in DiffMICv2(config).state_dict().items()}


def test_every_shaping_field_is_tried() -> None:
    assert set(OTHER) == set(SHAPING_FIELDS)
    assert {*OTHER, *FREE} <= {field.name for field in dataclasses.fields(DiffMICConfig)}


@pytest.mark.parametrize("field", OTHER)
def test_shaping_fields_shape_weights(field: str) -> None:
    assert shapes(BASE.replace(**{field: OTHER[field]})) != shapes(BASE)


@pytest.mark.parametrize("field", FREE)
def test_other_fields_do_not(field: str) -> None:
    assert shapes(BASE.replace(**{field: FREE[field]})) == shapes(BASE)


@torch.no_grad()
@pytest.mark.parametrize("fields", [{}, {"guidance": "none"}, {"kernel_size": 3}, {"predictor": "dcg"}])
def test_rows_of_known_classes_are_kept_by_name(fields: dict) -> None:
    """As the layers are linear in their rows, the scores of the kept classes are what they were."""
    torch.manual_seed(0)
    model = DiffMICv2(BASE.replace(class_names=("a", "b", "c"), **fields)).to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.warns(UserWarning, match="random weights but for the rows of c, a; fit"):
        model.reset_classifier(4, ["c", "x", "a", "y"])
    after = model.state_dict()
    out = ["dcg.saliency_conv.weight", "dcg.local_classifier.weight", "unet.out_conv.weight", "unet.out_conv.bias"]
    for name in (name for name in out if name in before):
        assert torch.equal(after[name][[0, 2]], before[name][[2, 0]]) and len(after[name]) == 4
        assert not torch.equal(after[name][1], before[name][1])
    if "predictor" in fields:
        return
    groups = 1 if "guidance" in fields else 2
    new, old = (weights["unet.block1.conv.weight"].unflatten(1, (groups, -1)) for weights in (after, before))
    assert torch.equal(new[:, :, [0, 2]], old[:, :, [2, 0]]) and new.shape[2] == 4
    assert torch.equal(after["unet.block1.conv.bias"], before["unet.block1.conv.bias"])


def test_the_one_size_of_a_vision_transformer_stays() -> None:
    with torch.device("meta"):
        model = tiny_model(predictor="dcg", dcg_encoder="vit_tiny_patch16_224")
    for name in ("image_size", "roi_size"):
        with pytest.raises(ValueError, match=f"{name}: shapes the weights and cannot be changed any more"):
            model.config = model.config.replace(**{name: 48})
    model.config = model.config.replace(roi_source_size=96)
    with torch.device("meta"):
        model = tiny_model()
    model.config = model.config.replace(image_size=96)
    assert model.config.image_size == 96
