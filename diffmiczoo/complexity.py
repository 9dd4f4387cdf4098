"""Parameters and multiply-accumulates of a model, counted without memory for its weights."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2

PARTS = ("dcg", "feature_prior", "unet")


def count_parameters(config: DiffMICConfig) -> dict[str, int]:
    """Returns the number of parameters of the parts "dcg", "feature_prior" and "unet", and their "total"."""
    with torch.device("meta"):
        model = DiffMICv2(config)
    parts = dict(model.named_children())
    counts = {part: sum(p.numel() for p in parts[part].parameters()) if part in parts else 0 for part in PARTS}
    return {**counts, "total": sum(counts.values())}


def count_macs(config: DiffMICConfig) -> dict[str, int]:
    """Returns the multiply-accumulates of one image: "condition" once, "unet" per step, "total" of a prediction.

    Counts convolutions, matrix products and attention; half of what PyTorch's FLOP counter gives.
    """
    with torch.device("meta"):
        model = DiffMICv2(config).eval()
        images = torch.empty(1, 3, config.image_size, config.image_size)
    with torch.no_grad():
        if config.predictor != "diffusion":
            with FlopCounterMode(display=False) as dcg_counter:
                model.priors(images)
            once = dcg_counter.get_total_flops() // 2
            return {"condition": once, "unet": 0, "total": once}
        with FlopCounterMode(display=False) as condition_counter:
            condition = model.condition(images)
        with FlopCounterMode(display=False) as unet_counter:
            model.predict_noise(torch.empty_like(condition.guidance_map), 0, condition)
    once, per_step = condition_counter.get_total_flops() // 2, unet_counter.get_total_flops() // 2
    total = once + per_step * config.sampling_steps * config.num_samples
    return {"condition": once, "unet": per_step, "total": total}
