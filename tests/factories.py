"""Models, recipes and checkpoints that many tests share, small enough for a fraction of a second."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.recipe import Recipe

#: Small enough for a fraction of a second; every part is there.
TINY = {
    "image_size": 64,
    "roi_size": 32,
    "num_rois": 2,
    "num_points": 3,
    "latent_dim": 8,
    "attention_dim": 4,
    "num_train_timesteps": 50,
    "sampling_steps": 3,
}

#: The smallest backbones that timm has, instead of the architecture's own.
SMALL_ENCODERS = {
    "dcg_encoder": "test_resnet",
    "dcg_out_index": -1,
    "local_out_index": -1,
    "raw_encoder": "test_resnet",
    "raw_out_index": -1,
    "roi_encoder": "test_resnet",
    "roi_out_index": -1,
}


QUICK = Recipe(
    dcg_epochs=2, diffusion_epochs=2, batch_size=8, dcg_lr=1e-2, diffusion_lr=1e-2, ema_decay=0.5, rotation=10, seed=3
)


def tiny_model(**fields) -> DiffMICv2:
    """A model of two classes with the smallest encoders, not in eval mode."""
    torch.manual_seed(0)
    return DiffMICv2(DiffMICConfig(**{"num_classes": 2, **TINY, **SMALL_ENCODERS, **fields}))


def released_checkpoint(folder: Path, keys: str) -> dict[str, Tensor]:
    """Returns the state dict that `procedural_weights.py` defines, under the released program's names."""
    spec = importlib.util.spec_from_file_location("procedural_weights", folder / "procedural_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tensors = module.procedural_state_dict(folder / f"keys_{keys}.json", 0)
    return {key: torch.from_numpy(np.asarray(value)) for key, value in tensors.items()}
