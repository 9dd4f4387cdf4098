"""One stream of the DCG after the other, each encoder started from those that were trained before it.

ROIs are cut without a gradient, so the global stream learns the same whether a local one learns beside it or not. After
it, the local stream has better ROIs from its first step, and its encoder starts from one that knows such pictures:
docs/experiments/local-stream.md has the measurements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffmiczoo.diffusion.losses import ClassLoss, cross_entropy
from diffmiczoo.images.preprocessing import check_batch
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.encoders import timm_model
from diffmiczoo.nn.roi import whole_view
from diffmiczoo.runtime.modes import frozen

#: Stage → the encoders that may start from others: (trained, starts).
_STARTS = {
    "local": (("dcg.global_encoder", "dcg.local_encoder"),),
    "diffusion": (
        ("dcg.global_encoder", "feature_prior.raw_encoder"),
        ("dcg.local_encoder", "feature_prior.roi_encoder"),
    ),
}


def stream_loss(
    model: DiffMICv2,
    stream: str,
    images: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    class_loss: ClassLoss = cross_entropy,
) -> Tensor:
    """Cross-entropy (multi-label: binary) of one of the DCG's streams; for the local one the global one is frozen.

    Args:
        model: trained in place.
        stream: "global" or "local".
        images: (B, 3, R, R) float, as `preprocess` gives them.
        labels: (B, C) of 0..1.
        weights: (B, C) ≥ 0, of the terms; 1 by default.
        class_loss: in place of the cross-entropy.
    """
    dcg, config = model.dcg, model.config
    images = check_batch(images, config)
    whole = whole_view(images, config)
    if stream == "global":
        return class_loss(dcg.global_stream(whole)[1].float(), labels, config, weights)
    with frozen(dcg.global_encoder):
        saliency, global_prior = dcg.global_stream(whole)
    rois, _ = dcg.find_rois(images, saliency, global_prior, config)
    return class_loss(dcg.local_stream(rois)[0].float(), labels, config, weights)


@torch.no_grad()
def start_from_trained(model: DiffMICv2, stage: str) -> None:
    """Copies tensors of trained encoders into those that a stage trains, where names and shapes are the same.

    An encoder with more stages than the trained one keeps its own tensors there; one of another architecture keeps all.
    """
    config = model.config
    names = {"feature_prior.raw_encoder": config.raw_encoder, "feature_prior.roi_encoder": config.roi_encoder}
    for trained, starts in _STARTS.get(stage, ()):
        if names.get(starts, config.dcg_encoder) != config.dcg_encoder or not _has(model, starts):
            continue
        known = timm_model(model.get_submodule(trained)).state_dict()
        encoder = timm_model(model.get_submodule(starts))
        own = encoder.state_dict()
        fitting = {key: known[key] for key in own if key in known and known[key].shape == own[key].shape}
        encoder.load_state_dict({**own, **fitting})


def _has(model: DiffMICv2, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    return getattr(model.get_submodule(parent), name, None) is not None
