"""Parameters and multiply-accumulates of a model, counted without memory for its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.inference.views import VIEWS
from diffmiczoo.model import DiffMICv2

PARTS = ("dcg", "feature_prior", "unet")
STAGES = ("dcg", "raw_encoder", "roi_encoder", "feature_prior", "condition", "unet", "total")


def count_parameters(config: DiffMICConfig) -> dict[str, int]:
    """Returns the number of parameters of the parts "dcg", "feature_prior" and "unet", and their "total"."""
    with torch.device("meta"):
        model = DiffMICv2(config)
    parts = dict(model.named_children())
    counts = {part: sum(p.numel() for p in parts[part].parameters()) if part in parts else 0 for part in PARTS}
    return {**counts, "total": sum(counts.values())}


def count_macs(config: DiffMICConfig) -> dict[str, int]:
    """Returns the multiply-accumulates of one image, per stage.

    "dcg", "raw_encoder", "roi_encoder" and "feature_prior" (both encoders and their projections); "condition" is what
    is computed once, "unet" one step of the sampler, "total" a prediction with the config's own steps, runs
    and views (`tta`). Counts convolutions, matrix products and attention; half of what PyTorch's FLOP counter gives.
    """
    with torch.device("meta"):
        model = DiffMICv2(config).eval()
        images = torch.empty(1, 3, config.input_size, config.input_size)
        whole = torch.empty(1, 3, config.image_size, config.image_size)
        rois = torch.empty(config.num_rois, 3, config.roi_size, config.roi_size)
    macs = dict.fromkeys(STAGES, 0) | {"dcg": _macs_of(model.dcg.training_priors, images, config)}
    if config.predictor == "diffusion":
        macs["raw_encoder"] = _macs_of(model.feature_prior.raw_encoder, whole)
        if model.feature_prior.roi_encoder is not None:
            macs["roi_encoder"] = _macs_of(model.feature_prior.roi_encoder, rois)
        macs["feature_prior"] = _macs_of(model.feature_prior, whole, rois[None])
        y_t = torch.empty(1, config.num_classes, config.num_points, config.num_points, device="meta")
        t = torch.zeros(1, 1, 1, dtype=torch.long, device="meta")
        macs["unet"] = _macs_of(model.unet, y_t, t, y_t, torch.empty(1, config.latent_dim, device="meta"))
    macs["condition"] = macs["dcg"] + macs["feature_prior"]
    view = macs["condition"] + macs["unet"] * config.sampling_steps * config.num_samples
    macs["total"] = len(VIEWS[config.tta]) * view
    return macs


def _macs_of(part: Callable[..., Any], *inputs: Tensor | DiffMICConfig) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        part(*inputs)
    return counter.get_total_flops() // 2
