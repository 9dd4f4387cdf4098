"""Checkpoints of other programs → ours: the released DiffMIC-v2, and pretrained backbones."""

from __future__ import annotations

import math
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub import Access, HubError, fetch_file
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.encoders import EFFICIENTSAM, Backbone, EfficientSAM

Checkpoint = str | os.PathLike[str] | Mapping[str, Any]

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

_SHOWN = 10


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
    tensors = _with_prefixes(_read(checkpoint), "checkpoint")
    if dcg_checkpoint is not None:
        more = _with_prefixes(_read(dcg_checkpoint), "dcg_checkpoint")
        _refuse("both checkpoints hold", sorted(tensors.keys() & more.keys()))
        tensors |= more
    unknown = sorted(key for key in tensors if not key.startswith((*RELEASED, *UNUSED)))
    _refuse("not of the released DiffMIC-v2 program:", unknown)
    tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(UNUSED)}
    config = _released_config(tensors, tuple(class_names), task, roi_size)
    model = DiffMICv2(config)
    _fill(model, dict(_released_to_ours(key, tensor) for key, tensor in tensors.items()))
    model.trained = True
    return model.eval()


def load_backbone(model: DiffMICv2, part: str, checkpoint: Checkpoint) -> None:
    """Fills one of a model's encoders with pretrained weights of its own kind.

    Args:
        model: changed in place.
        part: "raw_encoder", "roi_encoder" or "dcg_encoder" (both of the DCG's streams).
        checkpoint: a file or state dict: torchvision's or timm's of a ResNet or DenseNet, timm's of any other backbone,
            or EfficientSAM's published one, of which the image encoder without its neck is taken. Classifiers are left
            out.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: `part` is none of these, or the tensors do not fit; the message lists them.
    """
    parts = {
        "raw_encoder": ("feature_prior.raw_encoder",),
        "roi_encoder": ("feature_prior.roi_encoder",),
        "dcg_encoder": ("dcg.global_encoder", "dcg.local_encoder"),
    }
    if part not in parts:
        raise ValueError(f"part={part!r} is not one of {', '.join(map(repr, parts))}")
    tensors = _read(checkpoint)
    for path in parts[part]:
        fill_encoder(model.get_submodule(path), tensors, f"{part}: ")


def fill_encoder(encoder: nn.Module, tensors: dict[str, Tensor], what: str = "") -> None:
    """Fills an encoder, see `load_backbone`."""
    if isinstance(encoder, EfficientSAM):
        _fill(encoder.model, _image_encoder(tensors, encoder), what)
    elif isinstance(encoder, Backbone):
        inner = encoder.model.model
        own = inner.state_dict()
        renamed = {_timm_name(key): tensor for key, tensor in tensors.items()}
        # A feature map before the last leaves later stages out, and no encoder has a classifier.
        known = {key: tensor for key, tensor in renamed.items() if key in own}
        if not known:
            raise ValueError(f"{what}the checkpoint has none of the encoder's tensors, its first are {_few(renamed)}")
        _fill(inner, known, what)
    else:
        raise ValueError(f"{what}{type(encoder).__name__} takes no pretrained weights")


@dataclass(frozen=True)
class BackboneWeights:
    """Where a backbone's published weights are; revision None follows the repository's main branch."""

    repository: str
    filename: str
    license: str
    revision: str | None = None


#: Backbones that timm does not fetch itself. No commit of this repository could be confirmed, so none is pinned.
BACKBONES = {
    "efficientsam_ti": BackboneWeights("merve/EfficientSAM", "efficient_sam_vitt.pt", "apache-2.0"),
    "efficientsam_s": BackboneWeights("merve/EfficientSAM", "efficient_sam_vits.pt", "apache-2.0"),
}


def fetch_efficientsam(model: DiffMICv2, access: Access | None = None) -> None:
    """Fills every EfficientSAM encoder of a model with its published weights from the Hub or the cache.

    Raises:
        HubError: the Hub does not give them; the message tells how to go on without it.
        ValueError: they do not fit.
    """
    for path, encoder in model.named_modules():
        if not isinstance(encoder, EfficientSAM):
            continue
        source = BACKBONES[encoder.name]
        try:
            file = fetch_file(source.repository, source.filename, source.revision, access or Access())
        except HubError as error:
            raise HubError(
                f"{error}. Or get {source.filename} elsewhere and call "
                "diffmiczoo.convert.load_backbone(model, 'raw_encoder', PATH)"
            ) from error
        fill_encoder(encoder, _read(file), f"{path}: ")


# ---------------------------------------------------------------------- files


def _read(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint under their names, without wrappers."""
    source = "the state dict" if isinstance(checkpoint, Mapping) else os.fspath(checkpoint)
    values: Any = checkpoint if isinstance(checkpoint, Mapping) else _load(Path(source))
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(values, Mapping) and isinstance(values.get(wrapper), Mapping):
            values = values[wrapper]
    if not isinstance(values, Mapping) or not values:
        raise ValueError(f"{source}: expected a state dict (name → tensor), found {type(values).__name__}")
    others = sorted(str(key) for key, value in values.items() if not isinstance(value, Tensor))
    _refuse(f"{source}: not tensors:", others)
    return {str(key).removeprefix("module."): value for key, value in values.items()}


def _load(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    _recognise(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: not a safetensors file, or cut short ({error})") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: is no checkpoint, or holds Python objects besides tensors. Loading those can run any code, so it "
            "is refused. Whoever made the file can store its state dict alone: "
            "torch.save(checkpoint['state_dict'], 'weights.pt')"
        ) from error
    except Exception as error:  # bytes that are no pickle make the unpickler fail in any way
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a checkpoint, or cut short ({first})") from error


def _recognise(path: Path) -> None:
    """Names what people often have instead of a checkpoint."""
    with path.open("rb") as file:
        head = file.read(200)
    if not head:
        raise ValueError(f"{path}: is empty; was the download interrupted?")
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path}: is a pointer of Git LFS, not the file; fetch it with `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ValueError(f"{path}: is a web page, not a checkpoint; was it downloaded without logging in?")


# ---------------------------------------------------------------------- from the released names to ours


def _with_prefixes(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    if any(key.startswith(tuple(_FIRST_WORDS)) for key in tensors):
        return dict(tensors)
    for prefix, words in _FIRST_WORDS.items():
        if any(key.startswith(words) for key in tensors):
            return {prefix + key: tensor for key, tensor in tensors.items()}
    raise ValueError(f"{name}: not of the released DiffMIC-v2 program; its first tensors are {_few(tensors)}")


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
        raise ValueError(
            f"model.encoder_x.f.pos_embed has {positions} positions of width {width}; expected a class position and a "
            f"square, of width {' or '.join(str(size) for size, _ in EFFICIENTSAM.values())}"
        )
    return DiffMICConfig(
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
        raise ValueError(
            f"{key} is missing; a released checkpoint holds the diffusion (model.) and the DCG (aux_model.)"
        )
    shape = tuple(tensors[key].shape)
    if axis >= len(shape):
        raise ValueError(f"{key} has shape {shape}; expected at least {axis + 1} axes")
    return shape[axis]


def _encoder_name(tensors: dict[str, Tensor], prefix: str) -> str:
    keys = [key.removeprefix(prefix) for key in tensors if key.startswith(prefix)]
    if not keys:
        raise ValueError(
            f"{prefix}* is missing; a released checkpoint holds the diffusion (model.) and the DCG (aux_model.)"
        )
    dense = tuple(_count(keys, rf"0\.denseblock{n}\.denselayer(\d+)\.") for n in (1, 2, 3, 4))
    blocks = tuple(_count(keys, rf"{n}\.(\d+)\.") for n in (4, 5, 6, 7))
    bottleneck = any(".conv3." in key for key in keys)
    name = _DENSENETS.get(dense) or _RESNETS.get((bottleneck, blocks))
    if name is None:
        raise ValueError(
            f"{prefix}* is neither a ResNet nor a DenseNet that is known: its first tensors are {_few(keys)}"
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


# ---------------------------------------------------------------------- backbones


def _image_encoder(tensors: dict[str, Tensor], encoder: EfficientSAM) -> dict[str, Tensor]:
    """Returns EfficientSAM's image encoder under timm's names, its positions resized to the encoder's grid."""
    from timm.layers import resample_abs_pos_embed

    prefix = "image_encoder."
    found = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    found = {key: tensor for key, tensor in found.items() if not key.startswith("neck.")}
    positions = found.get("pos_embed")
    if positions is None:
        raise ValueError(f"{prefix}pos_embed is missing; expected EfficientSAM's checkpoint, found {_few(tensors)}")
    grid = encoder.model.patch_embed.grid_size
    resized = resample_abs_pos_embed(positions[:, 1:].float(), new_size=list(grid), num_prefix_tokens=0)
    return found | {"pos_embed": resized}


def _timm_name(key: str) -> str:
    """Old torchvision DenseNets call `norm1` "norm.1"; otherwise timm kept torchvision's names."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key)


def _fill(module: nn.Module, tensors: dict[str, Tensor], what: str = "") -> None:
    """Loads tensors that have to be exactly a module's own; counters of batches may be missing.

    Raises:
        ValueError: they are not, or are not finite.
    """
    own = module.state_dict()
    counters = {key: tensor for key, tensor in own.items() if key.endswith("num_batches_tracked")}
    problems = [f"missing {key}" for key in own if key not in tensors and key not in counters]
    problems += [f"unknown {key}" for key in tensors if key not in own]
    for key, tensor in tensors.items():
        if key in own and tensor.shape != own[key].shape:
            problems.append(f"{key} has shape {tuple(tensor.shape)}, expected {tuple(own[key].shape)}")
        elif tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            problems.append(f"{key} has values that are NaN or infinite")
    _refuse(f"{what}tensors that do not fit:", problems)
    module.load_state_dict(counters | tensors)


def _refuse(what: str, names: Sequence[str]) -> None:
    if names:
        raise ValueError(f"{what} {_few(names)} ({len(names)} in all)")


def _few(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", …" if len(listed) > _SHOWN else "")
