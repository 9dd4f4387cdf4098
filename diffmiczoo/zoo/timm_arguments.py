"""Arguments of `timm.create_model` that people bring along: what they mean here, or what to do instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.timm_interface import NO_CLASSES

_FEATURES = "model.forward_features(batch), model.condition(batch) and model.embed(images) give features"

#: Argument → what to do instead.
_INSTEAD = {
    "features_only": _FEATURES,
    "out_indices": _FEATURES,
    "output_stride": _FEATURES,
    "scriptable": "sampling is a loop that TorchScript does not take; torch.export.export(model, (batch,)) works",
    "exportable": "torch.export.export(model, (batch,)) works without it",
    "no_jit": "leave it out, no layer is compiled by TorchScript",
    "checkpoint_path": "create_model('local-dir:DIR', pretrained=True) loads weights, model.load_state_dict a file",
    "pretrained_cfg": "the fields of DiffMICConfig, such as image_size, mean and crop_mode, are arguments",
    "pretrained_cfg_overlay": "the fields of DiffMICConfig, such as image_size, mean and crop_mode, are arguments",
    "drop_rate": "there is no dropout; augmentation and weight decay are fields of the Recipe of diffmiczoo.fit",
    "drop_path_rate": "there is no dropout; augmentation and weight decay are fields of the Recipe of diffmiczoo.fit",
    "global_pool": "features are averages over positions; leave it out",
}

#: Values with which an argument asks for nothing.
_NOTHING = (None, False, 0, 0.0, "", "avg")


def config_fields(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a config among arguments of `create_model` that may be timm's.

    timm's `img_size` is `image_size`. Arguments that ask for nothing, such as `features_only=False`, are left out.

    Raises:
        ValueError: an argument of timm's has no meaning here; the message tells what to do instead.
    """
    fields = {}
    for name, value in arguments.items():
        if name == "img_size" and value is not None:
            fields["image_size"] = value
        elif name not in _INSTEAD:
            fields[name] = value
        elif value not in _NOTHING:
            raise InvalidValueError(f"{name}={value!r} is an argument of timm without a meaning here: {_INSTEAD[name]}")
    size = arguments.get("img_size")
    if size is not None and arguments.get("image_size", size) != size:
        raise InvalidValueError(f"img_size={size} and image_size={arguments['image_size']} mean the same; give one")
    fields.pop("img_size", None)
    return fields


def check_numbers(in_chans: int, num_classes: int | None) -> None:
    """Refuses channels that a model cannot take, which are not colours or grey, and timm's number of classes 0.

    Raises:
        ValueError: the message tells what to do.
    """
    if num_classes == 0:
        raise InvalidValueError(NO_CLASSES)
    if in_chans not in (1, 3):
        raise InvalidValueError(
            f"in_chans={in_chans}: models take 3 channels, or 1 for grey, which counts as three equal ones; reduce the "
            "images to one of these"
        )
