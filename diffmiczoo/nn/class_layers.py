"""The layers whose size follows the number of classes, and the fields that shape all others."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import PatchEmbed
from torch import nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidTypeError, InvalidValueError

#: Path of the layer → which of its channels are multiples of the number of classes.
CLASS_LAYERS = {
    "dcg.saliency_conv": "out",
    "dcg.local_classifier": "out",
    "dcg.classifier": "out",
    "unet.block1.conv": "in",
    "unet.out_conv": "out",
    "feature_prior.classifier": "out",
}


#: Fields of a config that decide which layers there are and of what shapes.
SHAPING_FIELDS = (
    *("num_classes", "predictor", "dcg_encoder", "dcg_out_index", "dcg_trunk", "local_out_index", "attention_dim"),
    *("num_rois", "raw_encoder", "raw_out_index", "roi_features", "roi_encoder", "roi_out_index", "latent_dim"),
    *("feature_norm", "kernel_size", "num_train_timesteps"),
)


def check_same_layers(old: DiffMICConfig, new: DiffMICConfig, model: nn.Module) -> None:
    """Refuses a config that another model's weights would be needed for.

    Args:
        old: the config so far.
        new: the config from now on.
        model: what was built for the old one.

    Raises:
        ValueError: names the fields that differ.
    """
    changed = [name for name in SHAPING_FIELDS if getattr(old, name) != getattr(new, name)]
    # Without guidance the U-Net's first layer sees y_t alone; all other kinds give it as many channels.
    changed += ["guidance"] if (old.guidance == "none") != (new.guidance == "none") else []
    changed += ["feature_loss_weight"] if bool(old.feature_loss_weight) != bool(new.feature_loss_weight) else []
    changed += [name for name in _fixed_sizes(model) if getattr(old, name) != getattr(new, name)]
    if changed:
        raise InvalidValueError(
            f"{', '.join(changed)}: shapes the weights and cannot be changed any more; create another model, or call "
            "reset_classifier for other classes"
        )


def _fixed_sizes(model: nn.Module) -> list[str]:
    """Returns the fields whose sizes in pixels a model's vision transformers were built for and take alone."""
    strict = [path for path, module in model.named_modules() if isinstance(module, PatchEmbed) and _is_strict(module)]
    of_rois = [any(part in path for part in ("local_encoder", "roi_encoder")) for path in strict]
    return [*(["roi_size"] if any(of_rois) else []), *(["image_size"] if not all(of_rois) else [])]


def _is_strict(patches: PatchEmbed) -> bool:
    return bool(patches.strict_img_size) and patches.img_size is not None


def rebuild_class_layers(model: nn.Module, old: DiffMICConfig, new: DiffMICConfig) -> str:
    """Replaces the layers that depend on the number of classes by fresh ones, and keeps the rows of known names.

    Args:
        model: may lack some of the layers; those are skipped.
        old: the config so far.
        new: the config from now on.

    Returns:
        What was done, for a message.
    """
    kept = [
        (place, old.class_names.index(name)) for place, name in enumerate(new.class_names) if name in old.class_names
    ]
    paths = [path for path in CLASS_LAYERS if _has(model, path)]
    for path in paths:
        parent, name = path.rsplit(".", 1)
        before = model.get_submodule(path)
        fresh = _resized(before, new.num_classes, old.num_classes, CLASS_LAYERS[path])
        fresh.to(next(before.parameters()))
        if kept:
            _keep_rows(before, fresh, CLASS_LAYERS[path], (old.num_classes, new.num_classes), kept)
        setattr(model.get_submodule(parent), name, fresh)
    known = ", ".join(new.class_names[place] for place, _ in kept)
    return f"{', '.join(paths)} were rebuilt with random weights" + (f" but for the rows of {known}" if known else "")


@torch.no_grad()
def _keep_rows(old: Any, fresh: Any, side: str, counts: tuple[int, int], kept: list[tuple[int, int]]) -> None:
    """Copies what a layer knows of some classes; the inputs of a layer are blocks of a channel per class."""
    to, source = (list(places) for places in zip(*kept, strict=True))
    if side == "in":
        before, after = (
            layer.weight.view(layer.weight.shape[0], -1, count, *layer.weight.shape[2:])
            for layer, count in zip((old, fresh), counts, strict=True)
        )
        after[:, :, to] = before[:, :, source]
        if old.bias is not None:
            fresh.bias.copy_(old.bias)
        return
    fresh.weight[to] = old.weight[source]
    if old.bias is not None:
        fresh.bias[to] = old.bias[source]


def _has(model: nn.Module, path: str) -> bool:
    return path in dict(model.named_modules())


def _resized(layer: nn.Module, num_classes: int, old_classes: int, side: str) -> nn.Module:
    def size(channels: int, which: str) -> int:
        return channels // old_classes * num_classes if which == side else channels

    has_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return nn.Linear(size(layer.in_features, "in"), size(layer.out_features, "out"), bias=has_bias)
    if isinstance(layer, nn.Conv2d):
        kernel, padding = layer.kernel_size[0], int(layer.padding[0])
        inputs, outputs = size(layer.in_channels, "in"), size(layer.out_channels, "out")
        return nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=has_bias)
    raise InvalidTypeError(f"{type(layer).__name__} has no number of classes")
