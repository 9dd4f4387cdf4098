"""Checkpoints of the released DiffMIC-v2 program → our models."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.labels import names_of
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.serialization import build_without_memory
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.encoders import EFFICIENTSAM
from diffmiczoo.zoo.state_dicts import Checkpoint, load_strict, preview, raise_if_any, read_checkpoint

#: Prefix of a released checkpoint's key → prefix of ours; in the order in which they are tried.
RELEASED = {
    "aux_model.ds_net.f.": "dcg.global_encoder.model.model.",
    "aux_model.left_postprocess_net.gn_conv_last.": "dcg.saliency_conv.",
    "aux_model.dn_resnet.f.": "dcg.local_encoder.model.model.",
    "aux_model.mil_attn_": "dcg.attention.",
    "aux_model.classifier_linear.": "dcg.local_classifier.",
    "model.cond_weight": "feature_prior.Q",
    "model.encoder_x.f.": "feature_prior.raw_encoder.model.",
    "model.encoder_x.g.": "feature_prior.raw_proj.",
    "model.norm.": "feature_prior.raw_norm.",
    "model.encoder_x_l.f.": "feature_prior.roi_encoder.model.model.",
    "model.encoder_x_l.g.": "feature_prior.roi_proj.",
    "model.norm_l.": "feature_prior.roi_norm.",
    "model.lin4.": "unet.out_conv.",
    **{f"model.lin{n}.lin.": f"unet.block{n}.conv." for n in (1, 2, 3)},
    **{f"model.lin{n}.embed.": f"unet.block{n}.gamma." for n in (1, 2, 3)},
    **{f"model.unetnorm{n}.": f"unet.block{n}.norm." for n in (1, 2, 3)},
}

#: Tensors that the released program stores and never uses.
UNUSED = ("aux_model.fusion_dnn.",)

#: What tells the keys of the two networks apart where a file holds one of them without its prefix.
_FIRST_WORDS = {
    "model.": ("cond_weight", "encoder_x.", "encoder_x_l.", "norm.", "norm_l.", "lin1.", "lin2.", "lin3.", "lin4."),
    "aux_model.": ("ds_net.", "left_postprocess_net.", "dn_resnet.", "mil_attn_", "classifier_linear.", "fusion_dnn."),
}

_RESNET_CHILDREN = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
_RESNETS: dict[tuple[bool, tuple[int, ...]], str] = {
    (False, (2, 2, 2, 2)): "resnet18",
    (False, (3, 4, 6, 3)): "resnet34",
    (True, (3, 4, 6, 3)): "resnet50",
    (True, (3, 4, 23, 3)): "resnet101",
    (True, (3, 8, 36, 3)): "resnet152",
}
_DENSENETS: dict[tuple[int, ...], str] = {
    (6, 12, 24, 16): "densenet121",
    (6, 12, 32, 32): "densenet169",
    (6, 12, 48, 32): "densenet201",
}

#: ROI sides of the paper's settings by number of ROIs; the tensors do not tell them.
ROI_SIZES = {4: 112}


def convert_official(
    checkpoint: Checkpoint,
    dcg_checkpoint: Checkpoint | None = None,
    *,
    class_names: Sequence[str] = (),
    task: str = "multiclass",
    roi_size: int | None = None,
) -> DiffMICv2:
    """Takes over a checkpoint of the released DiffMIC-v2 program.

    Classes, H, K, T, L and the encoders are read from the tensors; Np is K, and the config carries that program's other
    choices (see docs/method.md). Its weights keep their own licence.

    Args:
        checkpoint: a file (Lightning's, or a plain state dict) or a state dict, with the keys `model.` and
            `aux_model.`; or the diffusion network alone.
        dcg_checkpoint: the DCG network, where it is a file or state dict of its own.
        class_names: C names.
        task: "multiclass" or "multilabel"; the tensors do not tell.
        roi_size: side of an ROI in pixels; the tensors do not tell. By default the paper's: 112 for 4 ROIs, else 32.

    Returns:
        The model in eval mode, trained.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file is not a checkpoint or holds objects that could run code, or tensors are missing, unknown, of
            another shape or not finite; the message lists them.
    """
    tensors = _with_prefixes(read_checkpoint(checkpoint), "checkpoint")
    if dcg_checkpoint is not None:
        more = _with_prefixes(read_checkpoint(dcg_checkpoint), "dcg_checkpoint")
        raise_if_any("both checkpoints hold", sorted(tensors.keys() & more.keys()))
        tensors |= more
    unknown = sorted(key for key in tensors if not key.startswith((*RELEASED, *UNUSED)))
    raise_if_any("not of the released DiffMIC-v2 program:", unknown)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(UNUSED)}
    config = _released_config(tensors, names_of(class_names), task, roi_size)
    model = build_without_memory(DiffMICv2, config)
    load_strict(model, dict(_released_to_ours(key, tensor) for key, tensor in tensors.items()))
    model.finish_loading(torch.device("cpu"), torch.float32)
    model.trained = True
    return model.eval()


def _with_prefixes(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    if any(key.startswith(tuple(_FIRST_WORDS)) for key in tensors):
        return dict(tensors)
    for prefix, words in _FIRST_WORDS.items():
        if any(key.startswith(words) for key in tensors):
            return {prefix + key: tensor for key, tensor in tensors.items()}
    raise InvalidValueError(f"{name}: not of the released DiffMIC-v2 program; its first tensors are {preview(tensors)}")


def _released_config(
    tensors: dict[str, Tensor], class_names: tuple[str, ...], task: str, roi_size: int | None
) -> DiffMICConfig:
    num_rois = _size(tensors, "model.cond_weight", 2) - 1
    positions, width = (
        _size(tensors, "model.encoder_x.f.pos_embed", 1),
        _size(tensors, "model.encoder_x.f.pos_embed", 2),
    )
    raw_encoder = next((name for name, (size, _) in EFFICIENTSAM.items() if size == width), None)
    grid = math.isqrt(positions - 1)
    if raw_encoder is None or grid * grid != positions - 1:
        raise InvalidValueError(
            f"model.encoder_x.f.pos_embed has {positions} positions of width {width}; expected a class position and a "
            f"square, of width {' or '.join(str(size) for size, _ in EFFICIENTSAM.values())}"
        )
    return DiffMICConfig().replace(
        num_classes=_size(tensors, "model.lin4.weight", 0),
        class_names=class_names,
        task=task,
        image_size=16 * grid,
        dcg_encoder=_encoder_name(tensors, "aux_model.ds_net.f."),
        num_rois=num_rois,
        num_points=num_rois,
        roi_size=roi_size or ROI_SIZES.get(num_rois, 32),
        roi_channels="first",
        attention_dim=_size(tensors, "aux_model.mil_attn_V.weight", 0),
        raw_encoder=raw_encoder,
        roi_encoder=_encoder_name(tensors, "model.encoder_x_l.f."),
        latent_dim=_size(tensors, "model.lin4.weight", 1),
        kernel_size=_size(tensors, "model.lin1.lin.weight", 2),
        num_train_timesteps=_size(tensors, "model.lin1.embed.weight", 0) - 1,
        init="interpolated",
        loss="focal",
    )


def _size(tensors: dict[str, Tensor], key: str, axis: int) -> int:
    if key not in tensors:
        raise InvalidValueError(
            f"{key} is missing; a released checkpoint holds the diffusion (model.) and the DCG (aux_model.)"
        )
    shape = tuple(tensors[key].shape)
    if axis >= len(shape):
        raise InvalidValueError(f"{key} has shape {shape}; expected at least {axis + 1} axes")
    return shape[axis]


def _encoder_name(tensors: dict[str, Tensor], prefix: str) -> str:
    keys = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
    if not keys:
        raise InvalidValueError(
            f"{prefix}* is missing; a released checkpoint holds the diffusion (model.) and the DCG (aux_model.)"
        )
    dense = tuple(_count(keys, rf"0\.denseblock{n}\.denselayer(\d+)\.") for n in (1, 2, 3, 4))
    blocks = tuple(_count(keys, rf"{n}\.(\d+)\.") for n in (4, 5, 6, 7))
    bottleneck = any(".conv3." in key for key in keys)
    name = _DENSENETS.get(dense) or _RESNETS.get((bottleneck, blocks))
    if name is None:
        raise InvalidValueError(
            f"{prefix}* is neither a ResNet nor a DenseNet that is known: its first tensors are {preview(keys)}"
        )
    return name


def _count(keys: Sequence[str], pattern: str) -> int:
    return len({match[1] for key in keys if (match := re.match(pattern, key))})


def _released_to_ours(key: str, tensor: Tensor) -> tuple[str, Tensor]:
    prefix = next(prefix for prefix in RELEASED if key.startswith(prefix))
    rest = key.removeprefix(prefix)
    if RELEASED[prefix].endswith(".model.model."):
        # The released program keeps a backbone's children in a list: of a DenseNet its `features`, of a ResNet all.
        child, _, inner = rest.partition(".")
        rest = f"features.{inner}" if inner.startswith(("conv0", "norm0", "dense", "trans", "norm5")) else rest
        rest = f"{_RESNET_CHILDREN[child]}.{inner}" if rest[0].isdigit() and child in _RESNET_CHILDREN else rest
    name = RELEASED[prefix] + rest
    if name.endswith("raw_encoder.model.pos_embed"):
        return name, tensor[:, 1:]
    if name == "feature_prior.Q":
        return name, tensor[0]
    return name, tensor[:, :, 0, 0] if name == "feature_prior.raw_proj.weight" else tensor
