"""`create_model`: a name → a model, with its weights if asked for."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.labels import names_of
from diffmiczoo.errors import InvalidTypeError, InvalidValueError, warn
from diffmiczoo.hub.checksums import ChecksumError, verify
from diffmiczoo.hub.client import DownloadOptions, fetch, weights_directory_of
from diffmiczoo.hub.names import parse_model_name
from diffmiczoo.hub.serialization import load_model, read_config
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.devices import as_device
from diffmiczoo.zoo.architectures import ablation_fields, architectures
from diffmiczoo.zoo.encoder_weights import fetch_backbones, fetch_efficientsam
from diffmiczoo.zoo.plain import check_stays_plain, is_plain, plain_config, plain_roi_size
from diffmiczoo.zoo.registry import list_models, pretrained_weights, resolve
from diffmiczoo.zoo.timm_arguments import check_numbers, config_fields
from diffmiczoo.zoo.weights import Weights


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    task: str | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    pretrained_backbones: bool = False,
    in_chans: int = 3,
    ablation: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    **config_overrides: Any,
) -> DiffMICv2:
    """Builds a model by name, with trained weights if asked for.

    Args:
        name: an architecture ("diffmicv2_nano"), weights ("diffmicv2_nano.ham10000"), a data set's recommended
            weights ("diffmicv2_ham10000"), "timm/NAME" for a plain classifier, any that timm has with its own head
            (`diffmiczoo.nn.plain.PlainClassifier`), "hf-hub:ORGANISATION/REPOSITORY[@REVISION]", or "local-dir:PATH"
            of a directory that `save_pretrained` wrote.
        pretrained: load the trained weights; never falls back to random ones. Needs no network for weights that ship
            with the package.
        num_classes: C; other than the weights' own: the layers that depend on it are rebuilt, with a warning.
        class_names: C names, a list, array, Index or the like; other than the weights' own: the same, but rows of
            classes that the weights know by name are kept. With `ordinal=True` they are grades, the lowest first.
        task: "multiclass" or "multilabel".
        device: where the model lives; "auto" for a GPU of CUDA where there is one; the CPU by default.
        dtype: of its floating-point tensors; float32 by default.
        pretrained_backbones: start the encoders from published weights (ImageNet's from timm, EfficientSAM's); not
            together with `pretrained`.
        in_chans: 3, or 1 for batches (B, 1, S, S) of grey images, which any model takes; `predict` needs neither.
        ablation: a row of the paper's table IV, "c1" to "c6", or "dcg" for the DCG alone; see
            `diffmiczoo.zoo.architectures.ABLATIONS`.
        revision: commit, branch or tag of the Hub's repository; the commit that the table of weights names by default.
        token: for the Hub; HF_TOKEN by default.
        cache_dir: where downloads are stored; huggingface_hub's own cache by default.
        local_files_only: never ask the network.
        config_overrides: any field of `DiffMICConfig`; timm's `img_size` is `image_size`.

    Returns:
        The model in eval mode.

    Warns:
        UserWarning: layers were rebuilt for other classes, or "hf-hub:" or "local-dir:" gives random weights because
            `pretrained` is not set.

    Raises:
        ValueError: the name is unknown (the nearest names are suggested), it has no weights, an override is not a
            field, or contradicts the weights.
        TypeError: `class_names` is one text or no names, or `num_classes` not a whole number.
        FileNotFoundError: a local directory has no weights.
        HubError: the Hub does not give the weights, or their content is wrong.
    """
    if pretrained and pretrained_backbones:
        raise InvalidValueError("pretrained=True loads the encoders as well; leave pretrained_backbones out")
    if pretrained and ablation is not None:
        raise InvalidValueError(f"ablation={ablation!r} is a model to train anew; leave pretrained=True out")
    check_numbers(in_chans, num_classes)
    overrides = ({} if ablation is None else ablation_fields(ablation)) | config_fields(config_overrides)
    overrides |= {} if task is None else {"task": task}
    options = DownloadOptions(token, cache_dir, local_files_only)
    if pretrained:
        model = load_model(weights_directory(name, revision, options), DiffMICv2, overrides, device=device, dtype=dtype)
        _apply_classes(model, num_classes, class_names)
        if overrides.get("ordinal"):  # new layers forget it, because the order of new classes is not known
            model.config = model.config.replace(ordinal=True)
        return model
    if parse_model_name(name).kind != "registered":
        warn(
            f"{name!r}: without pretrained=True the model has random weights, of the architecture that is described "
            f"there; create_model({name!r}, pretrained=True) loads the trained ones"
        )
    own = get_config(name, revision=revision, options=options).uncalibrated()
    check_stays_plain(own, overrides, ablation)
    # At once: a label_adjustment, for example, has as many values as there are classes.
    config = own.replace(**(_class_fields(own, num_classes, class_names) | _fitting_rois(own, overrides)))
    if not pretrained_backbones:
        return DiffMICv2(config).to(device=device and as_device(device), dtype=dtype).eval()
    model = DiffMICv2(config, pretrained_backbones=fetch_backbones(config, options))
    fetch_efficientsam(model, options)
    return model.to(device=device and as_device(device), dtype=dtype).eval()


def _fitting_rois(config: DiffMICConfig, overrides: dict[str, Any]) -> dict[str, Any]:
    """Adds to the fields that are changed of a config an ROI size that goes with another image size.

    Of models with the published rule for ROIs the size is published too, and stays.
    """
    size = overrides.get("image_size")
    if "roi_size" in overrides or not isinstance(size, int):
        return overrides
    if config.predictor == "classifier":
        return {**overrides, "roi_size": plain_roi_size(size)}
    if config.roi_saliency == "sum":
        return overrides
    source = overrides.get("roi_source_size", config.roi_source_size) or size
    if not isinstance(source, int):
        return overrides
    return {**overrides, "roi_size": max(4, round(config.roi_size * source / config.input_size))}


def get_config(
    name: str, pretrained: bool = False, *, revision: str | None = None, options: DownloadOptions | None = None
) -> DiffMICConfig:
    """Returns the `DiffMICConfig` that `create_model` of the same arguments starts from.

    Args:
        name: as for `create_model`.
        pretrained: of the weights, which may be other ones than the architecture's own.
        revision: of the Hub's repository, as for `create_model`.
        options: how the Hub is asked.

    Raises:
        ValueError: the name is unknown, has no weights while `pretrained` is set, or does not stand for a config.
        FileNotFoundError, HubError: as `create_model` raises them.
    """
    if pretrained or parse_model_name(name).kind != "registered":
        return read_config(weights_directory(name, revision, options))
    architecture, weights = resolve(name)
    if is_plain(name):
        return plain_config(name)
    if weights is not None and weights.directory is not None:
        return read_config(weights.directory)
    config = architectures()[architecture]()
    if not isinstance(config, DiffMICConfig):
        raise InvalidTypeError(f"the factory of {architecture!r} returned {config!r}; expected a DiffMICConfig")
    return config if weights is None else config.replace(**weights.config)


def weights_directory(name: str, revision: str | None = None, options: DownloadOptions | None = None) -> Path:
    """Returns the directory that holds the weights of a name: shipped with the package, in the cache, or from the Hub.

    Args:
        name: as for `create_model`.
        revision: of the Hub's repository; the one that the table names by default.
        options: how the Hub is asked.

    Raises:
        ValueError: the name is unknown or has no weights; the message names weights that exist.
        FileNotFoundError: a local directory does not exist.
        HubError: the Hub does not give them, or their content is wrong.
    """
    options = options or DownloadOptions()
    parsed = parse_model_name(name)
    if parsed.kind != "registered":
        return weights_directory_of(parsed.at(revision), options)
    weights = pretrained_weights(name)
    if weights is None:
        raise InvalidValueError(_not_published_message(name))
    if weights.directory is not None and revision is None:
        _verify_shipped(weights.directory, weights)
        return weights.directory
    if weights.revision is None:
        raise InvalidValueError(
            f"{name!r} ships with the package and has no other revision; leave revision={revision!r} out"
        )
    hashes = weights.files if revision in (None, weights.revision) else None
    return fetch(weights.repository, revision or weights.revision, hashes, options)


def _verify_shipped(directory: Path, weights: Weights) -> None:
    for filename, expected in weights.files.items():
        try:
            verify(directory / filename, expected)
        except ChecksumError as error:
            raise ChecksumError(f"{weights.name}: {error}; install diffmiczoo again") from error


def _not_published_message(name: str) -> str:
    if is_plain(name):
        return (
            f"{name!r} has no weights that were trained on medical images; pretrained_backbones=True starts from "
            f"ImageNet's. To train it: diffmiczoo fit --model {name} --pretrained-backbones --train DIR --output DIR"
        )
    exist = ", ".join(list_models(pretrained=True)) or "none"
    wanted = resolve(name)[1]
    data = "DIR" if wanted is None else wanted.dataset.name
    return (
        f"{name!r} has no published weights; weights exist for: {exist}. To train it: "
        f"diffmiczoo fit --model {name} --train {data} --output runs/{name}"
    )


def _apply_classes(model: DiffMICv2, num_classes: int | None, class_names: Sequence[str] | None) -> None:
    """Gives a loaded model other classes: names only where the weights have none, else new layers for them."""
    own = model.config
    wanted, names = _classes(own, num_classes, class_names)
    if names and own.class_names and names != own.class_names and set(names) == set(own.class_names):
        raise InvalidValueError(f"the weights have the same class_names in another order: {list(own.class_names)}")
    if wanted != own.num_classes or (names and own.class_names and names != own.class_names):
        model.reset_classifier(wanted, names)
    elif names:
        model.config = own.replace(class_names=names)


def _class_fields(config: DiffMICConfig, num_classes: int | None, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Returns the fields of other classes than a config's; these are no grades in order unless that is asked for."""
    wanted, names = _classes(config, num_classes, class_names)
    if not names and wanted == config.num_classes:
        return {}
    ordinal = config.ordinal and names == config.class_names
    return {"num_classes": wanted, "class_names": names, "ordinal": ordinal}


def _classes(
    config: DiffMICConfig, num_classes: int | None, class_names: Sequence[str] | None
) -> tuple[int, tuple[str, ...]]:
    """Returns the number of classes that is asked for, the config's own by default, and the names given."""
    names = () if class_names is None else names_of(class_names)
    if num_classes is None:
        return len(names) or config.num_classes, names
    return operator.index(num_classes), names
