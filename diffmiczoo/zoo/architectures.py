"""Architectures: a few lines each, in the paper's and timm's vocabulary; the docstring is the architecture's card."""

from __future__ import annotations

from collections.abc import Callable

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.zoo.weights import ALIASES

_ARCHITECTURES: dict[str, Callable[[], DiffMICConfig]] = {}


def register_model(factory: Callable[[], DiffMICConfig]) -> Callable[[], DiffMICConfig]:
    """Registers a function that returns a `DiffMICConfig` as an architecture of the same name.

    From then on `create_model`, `list_models` and `model_info` know the name; the docstring is its description.

    Args:
        factory: takes no arguments.

    Returns:
        The function itself, so that this is a decorator.

    Raises:
        ValueError: the name is taken.
    """
    name = factory.__name__
    if name in _ARCHITECTURES or name in ALIASES:
        raise InvalidValueError(f"an architecture called {name!r} is registered already")
    _ARCHITECTURES[name] = factory
    return factory


def architectures() -> dict[str, Callable[[], DiffMICConfig]]:
    """Returns name → factory of every registered architecture."""
    return dict(_ARCHITECTURES)


@register_model
def diffmicv2_resnet18() -> DiffMICConfig:
    """DiffMIC-v2 at paper size: EfficientSAM-S sees the whole image, a ResNet-18 six 32-pixel ROIs, H = 6144.

    The setting of the paper for PMG2000, HAM10000 and APTOS2019 (section IV-A), at 224 pixels.
    """
    return DiffMICConfig()


@register_model
def diffmicv2_resnet50() -> DiffMICConfig:
    """DiffMIC-v2 at paper size with a ResNet-50 as ROI encoder (section IV-A)."""
    return DiffMICConfig(roi_encoder="resnet50")


@register_model
def diffmicv2_densenet169() -> DiffMICConfig:
    """DiffMIC-v2 at paper size with a DenseNet-169 as ROI encoder of four 112-pixel ROIs.

    The setting of the paper for ChestX-ray14 (section IV-A).
    """
    return DiffMICConfig(roi_encoder="densenet169", num_rois=4, roi_size=112)


@register_model
def diffmicv2_nano() -> DiffMICConfig:
    """DiffMIC-v2 for CPUs, under 5 million parameters: EfficientNet-Lite0 encoders, 192 pixels, H = 128.

    The global stream is EfficientNet-Lite0 up to a stride of 16, which keeps ROIs precise. Four ROIs of 56 pixels
    lie where the most probable class has its evidence; they pass through as much of it in the DCG, and up to a
    stride of 8 in F, which sees the whole image by a full EfficientNet-Lite0.
    """
    return DiffMICConfig(
        image_size=192,
        mean=(0.498, 0.498, 0.498),  # EfficientNet-Lite's own: (x - 127) / 128 for x in 0..255
        std=(0.502, 0.502, 0.502),
        dcg_encoder="tf_efficientnet_lite0",
        dcg_out_index=3,
        local_out_index=3,
        num_rois=4,
        roi_size=56,
        roi_saliency="top",
        raw_encoder="tf_efficientnet_lite0",
        roi_encoder="tf_efficientnet_lite0",
        roi_out_index=2,
        latent_dim=128,
        sampling_steps=5,
        num_samples=8,
        clip_sample=False,
    )


@register_model
def diffmicv2_small() -> DiffMICConfig:
    """DiffMIC-v2 for GPUs and patient CPUs, under 8 million parameters: EfficientNet-Lite2, 224 pixels, H = 256.

    The global stream is all of EfficientNet-Lite2. Four ROIs of 56 pixels lie where the most probable class has its
    evidence; they pass through four of its stages in the DCG and three in F, which sees the whole image by three too.
    """
    return DiffMICConfig(
        image_size=224,
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        dcg_encoder="tf_efficientnet_lite2",
        dcg_trunk=True,
        local_out_index=3,
        num_rois=4,
        roi_size=56,
        roi_saliency="top",
        raw_encoder="tf_efficientnet_lite2",
        raw_out_index=2,
        roi_encoder="tf_efficientnet_lite2",
        roi_out_index=2,
        latent_dim=256,
        sampling_steps=5,
        num_samples=8,
        clip_sample=False,
    )


@register_model
def diffmicv1_resnet18() -> DiffMICConfig:
    """DiffMIC (v1): one noise vector, a ResNet-18 for the whole image, and a process that ends at the DCG's prediction.

    The softmax of the fused prior is the mean of the forward and the reverse process, training adds a maximum mean
    discrepancy for each of the DCG's streams, and sampling is ancestral (Yang et al., DiffMIC, MICCAI 2023).
    """
    return DiffMICConfig(
        num_points=1,
        guidance="fused",
        prior_activation="probs",
        raw_encoder="resnet18",
        roi_features=False,
        heterologous=False,
        process_mean="prior",
        mmd_weight=0.5,
        sampler="ancestral",
        sampling_steps=100,
        init="guided",
        clip_sample=False,
    )


_VANILLA = {"num_points": 1, "heterologous": False}
_WITHOUT_F: dict[str, object] = {"feature_loss_weight": 0.0}
_RAW_ONLY = {**_VANILLA, "roi_features": False}

#: Row of the paper's table IV → the fields of `DiffMICConfig` that it changes. A vanilla diffusion has one noise vector
#: and one timestep; C5 and C6 add the whole feature prior, and the guidance map over all noise points.
ABLATIONS: dict[str, dict[str, object]] = {
    "dcg": {"predictor": "dcg", **_WITHOUT_F},
    "c1": {"predictor": "global", **_WITHOUT_F},
    "c2": {**_RAW_ONLY, "guidance": "none"},
    "c3": {**_RAW_ONLY, "guidance": "global"},
    "c4": {**_RAW_ONLY, "guidance": "local"},
    "c5": {**_VANILLA, "guidance": "none"},
    "c6": {"heterologous": False},
}


def ablation_fields(name: str) -> dict[str, object]:
    """Returns the fields that an ablation changes.

    Raises:
        ValueError: there is no such ablation.
    """
    if name not in ABLATIONS:
        raise InvalidValueError(f"ablation={name!r} is not one of {', '.join(map(repr, ABLATIONS))}")
    return ABLATIONS[name]
