"""`register_timm`: the registered names in timm's own registry, for what builds models by `timm.create_model`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import timm
from timm.models import DefaultCfg, PretrainedCfg
from timm.models import register_model as register_with_timm

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.timm_interface import shared_cfg
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.architectures import architectures
from diffmiczoo.zoo.factory import create_model, get_config
from diffmiczoo.zoo.registry import list_models, pretrained_weights
from diffmiczoo.zoo.weights import WEIGHTS, WEIGHTS_DIRECTORY

#: Architecture → the weights that timm may list; timm looks for this name in the module of an entry point.
default_cfgs: dict[str, DefaultCfg] = {}


def register_timm() -> list[str]:
    """Makes the registered names known to timm: `timm.create_model("diffmicv2_ham10000", pretrained=True)` works.

    `timm.list_models("diffmicv2*")`, `timm.list_pretrained`, `timm.is_model` and timm's scripts know them too. May be
    called again, after `register_model` for example.

    Returns:
        The names that are new to timm.
    """
    names = [name for name in list_models(tags=False) if not timm.is_model(name)]
    for name in names:
        default_cfgs[name] = _default_cfg(name)
        register_with_timm(_entry_point(name))
    return names


def _entry_point(name: str) -> Callable[..., DiffMICv2]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> DiffMICv2:
        wanted = name if pretrained_cfg is None or pretrained_cfg == "" else f"{name}.{_tag(pretrained_cfg)}"
        return create_model(wanted, pretrained, pretrained_cfg_overlay=pretrained_cfg_overlay, **arguments)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Builds {name} as `diffmiczoo.create_model` does."
    return build


def _tag(pretrained_cfg: str | dict[str, Any] | PretrainedCfg) -> str:
    if isinstance(pretrained_cfg, str):
        return pretrained_cfg
    values = pretrained_cfg if isinstance(pretrained_cfg, dict) else pretrained_cfg.to_dict()
    if not isinstance(values.get("tag"), str):
        raise InvalidValueError(
            "pretrained_cfg names no tag of registered weights; the fields of DiffMICConfig, such as image_size and "
            "mean, are arguments"
        )
    return str(values["tag"])


def _default_cfg(name: str) -> DefaultCfg:
    """Returns what timm lists of a name: for an architecture all of its weights, the recommended ones first."""
    tags = {weights.dataset.name: weights.name for weights in WEIGHTS.values() if weights.architecture == name}
    if name not in architectures() or not tags:
        tags = {"": name}
    first = pretrained_weights(name)
    order = sorted(tags, key=lambda tag: first is None or tags[tag] != first.name)
    cfgs = {tag: _pretrained_cfg(tags[tag]) for tag in order}
    return DefaultCfg(deque(order), cfgs, any(cfg.has_weights for cfg in cfgs.values()))


def _pretrained_cfg(name: str) -> PretrainedCfg:
    config, weights = get_config(name), pretrained_weights(name)
    shipped = weights is not None and weights.ships
    return PretrainedCfg(
        file=str(WEIGHTS_DIRECTORY.joinpath(weights.name, "model.safetensors")) if weights and shipped else None,
        hf_hub_id=None if weights is None or shipped else weights.repository,
        **shared_cfg(config),
    )
