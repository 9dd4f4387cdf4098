"""Recipes that fit an architecture: the paper's for paper-sized models, a short one for CPUs."""

from __future__ import annotations

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.recipe import Recipe

NANO_ENCODER = "tf_efficientnet_lite0"

#: Section IV-A: DCG 100 epochs at 2e-4, diffusion 1000 epochs from 1e-3 to 1e-5.
PAPER = Recipe()

#: ChestX-ray14 in the paper: 20 and 100 epochs.
PAPER_CHEST = Recipe(dcg_epochs=20, diffusion_epochs=100)

#: For diffmicv2_nano started from ImageNet encoders; docs/method.md has the measurements behind it.
NANO = Recipe(
    dcg_epochs=10,
    dcg_lr=1e-3,
    diffusion_epochs=12,
    diffusion_lr=2e-2,
    encoder_lr=5e-4,
    weight_decay=0.05,
    warmup_epochs=1.0,
    ema_decay=0.99,
    precision="bf16",
    batch_size=64,
    vflip=0.5,
    rotation=180.0,
    min_scale=0.7,
    color_jitter=0.1,
)


def preset_recipe(config: DiffMICConfig) -> Recipe:
    """Returns the recipe for a model: the one for CPU-sized encoders, else the paper's for this kind of task."""
    if config.raw_encoder == NANO_ENCODER:
        return NANO
    return PAPER_CHEST if config.task == "multilabel" else PAPER
