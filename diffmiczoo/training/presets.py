"""Recipes that fit an architecture: the paper's for paper-sized models, a short one for CPUs."""

from __future__ import annotations

from diffmiczoo.registry import LOCAL_PREFIX, model_config, resolve
from diffmiczoo.training.recipe import Recipe

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


def preset_recipe(name: str) -> Recipe:
    """Returns the recipe for a registered name or a local directory.

    Raises:
        ValueError: the name is unknown; the nearest names are suggested.
    """
    if name.startswith(LOCAL_PREFIX):
        config = model_config(name)
        return NANO if config.raw_encoder == "tf_efficientnet_lite0" else PAPER
    architecture, _ = resolve(name)
    return {"diffmicv2_nano": NANO, "diffmicv2_densenet169": PAPER_CHEST}.get(architecture, PAPER)
