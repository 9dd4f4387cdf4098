"""Which fields of a config shape weights, and the layers that follow the number of classes."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from factories import SMALL_ENCODERS, TINY

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.class_layers import SHAPING_FIELDS

BASE = DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS})
OTHER = {
    "num_classes": 4,
    "predictor": "global",
    "dcg_encoder": "test_efficientnet",
    "dcg_out_index": 1,
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
