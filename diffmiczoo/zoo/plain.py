"""`timm/NAME`: plain classifiers in the zoo, under timm's own names. Light: timm is imported where it is asked."""

from __future__ import annotations

import fnmatch
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError

#: What a plain classifier's name begins with; a name of timm's follows.
PREFIX = "timm/"

DESCRIPTION = "A plain classifier: timm's {} as a whole, with its own pre-processing, and no DCG or diffusion."

#: A region of interest is a seventh of the picture, as in the paper (32 of 224 pixels).
_ROIS_PER_SIDE = 7


def is_plain(name: str) -> bool:
    """Returns whether a name asks for a plain classifier, which timm may know or not."""
    return name.startswith(PREFIX)


def known_to_timm(name: str) -> bool:
    """Returns whether timm has the model of a plain classifier's name."""
    import timm

    return is_plain(name) and bool(timm.is_model(name.removeprefix(PREFIX)))


def list_plain(pattern: str, pretrained: bool = False) -> list[str]:
    """Lists plain classifiers whose name fits a pattern as in a shell, or contains it."""
    import timm

    wild = pattern if any(sign in pattern for sign in "*?[") else f"{pattern}*"
    # With tags where a pattern asks for one, such as "timm/resnet18.*".
    tags = True if "." in pattern else None
    names = [PREFIX + name for name in timm.list_models(pretrained=pretrained, include_tags=tags)]
    return fnmatch.filter(names, wild)


def plain_config(name: str) -> DiffMICConfig:
    """Returns the config of a plain classifier: image size, mean, std and interpolation are timm's own.

    Raises:
        ValueError: timm does not know the name, or the model is not for square pictures with three channels.
    """
    import timm

    from diffmiczoo.nn.encoders import check_timm_name

    timm_name = name.removeprefix(PREFIX)
    check_timm_name(timm_name)
    published = timm.models.get_pretrained_cfg(timm_name)
    if published is None:
        return DiffMICConfig(predictor="classifier", dcg_encoder=timm_name, num_points=1, sampling_steps=1)
    channels, height, width = published.input_size
    if channels != 3 or height != width:
        raise InvalidValueError(f"{name} is for pictures of {channels} × {height} × {width}; models here take squares")
    return DiffMICConfig(
        predictor="classifier",
        dcg_encoder=timm_name,
        image_size=height,
        roi_size=plain_roi_size(height),
        mean=_colours(published.mean),
        std=_colours(published.std),
        roi_saliency="probability",
        interpolation="bilinear" if published.interpolation == "bilinear" else "bicubic",
        num_points=1,  # of a diffusion, which there is none of
        sampling_steps=1,
    )


def check_stays_plain(config: DiffMICConfig, overrides: dict[str, Any], ablation: str | None) -> None:
    """Refuses to make another kind of model of a plain classifier.

    Raises:
        ValueError: an ablation or a predictor asks for a DCG or a diffusion.
    """
    asked = overrides.get("predictor", config.predictor)
    if config.predictor == "classifier" != asked:
        found = f"predictor={asked!r}" if ablation is None else f"ablation={ablation!r}"
        raise InvalidValueError(
            f"{found} is for models with a DCG, and timm's {config.dcg_encoder} is a plain classifier here; take one, "
            f"such as diffmicv2_nano, with dcg_encoder={config.dcg_encoder!r}"
        )


def _colours(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def plain_roi_size(image_size: int) -> int:
    """Returns the side of a plain classifier's ROIs in pixels."""
    return max(4, round(image_size / _ROIS_PER_SIDE))
