"""Plain classifiers: a timm model as a whole, with its own head, in the place of the DCG and without a local stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.nn.condition import Priors
from diffmiczoo.nn.dcg import DCG
from diffmiczoo.nn.encoders import Pretrained, check_patches, check_timm_name, packaged_weights
from diffmiczoo.nn.roi import whole_view
from diffmiczoo.runtime.checkpointing import checkpointed, set_checkpointing
from diffmiczoo.runtime.modes import frozen
from diffmiczoo.runtime.settings import full_precision

#: What timm's models raise where a picture's size or an argument does not suit them.
_UNSUITABLE = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class PlainTrunk(nn.Module):
    """A timm classifier without its last linear layer.

    Args:
        model: timm's classifier, an identity in the place of its last layer.
        num_features: of an image, what that layer was given.
    """

    def __init__(self, model: Any, num_features: int) -> None:
        super().__init__()
        self.model = model
        self.num_features = num_features
        self.grad_checkpointing = False

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S) to what timm pools: (B, D, h, w), (B, h, w, D) or tokens (B, N, D)."""
        compute: Callable[[Tensor], Tensor] = self.model.forward_features
        stored = not (self.grad_checkpointing and torch.is_grad_enabled())
        features: Tensor = compute(images) if stored else checkpointed(self.model, images, compute)
        return features

    def pooled(self, features: Tensor) -> Tensor:
        """Maps what `forward` returned to the features of an image, (B, `num_features`)."""
        found: Tensor = self.model.forward_head(features)
        return found.flatten(1)

    def pooled_by_position(self, features: Tensor) -> Tensor:
        """Maps what `forward` returned to (B, h, w, `num_features`), each position pooled as if there were no other.

        Without gradients and with the statistics of evaluation, because a map of positions is to look at.
        """
        with frozen(self) if self.training else torch.no_grad():
            rows, (height, width) = self._rows(features)
            return rearrange(self.pooled(rows), "(b h w) d -> b h w d", h=height, w=width)

    def _rows(self, features: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Returns every position as an image of its own, in timm's layout, and how many rows and columns there were."""
        if features.ndim == 4 and getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            return rearrange(features, "b h w d -> (b h w) 1 1 d"), (features.shape[1], features.shape[2])
        if features.ndim == 4:
            return rearrange(features, "b d h w -> (b h w) d 1 1"), (features.shape[2], features.shape[3])
        # Class and register tokens come first; in an image of one position all tokens are that one.
        before = int(getattr(self.model, "num_prefix_tokens", 0))
        side = math.isqrt(features.shape[1] - before)
        tokens = rearrange(features[:, before:], "b (h w) d -> (b h w) 1 d", h=side, w=side)
        return tokens.expand(-1, before + 1, -1), (side, side)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes activations again in the backward pass instead of storing them: block by block where timm can."""
        self.grad_checkpointing = not set_checkpointing(self.model, enable) and enable


class PlainClassifier(DCG):
    """Any timm classifier in the DCG's place: both priors are its logits, the saliency map is its class activation map.

    The map holds for each position the logits of an image that is the same everywhere. Where the head is an average
    over positions and a linear layer (ResNets, EfficientNets, DenseNets, Swin, …) that is the class activation map, the
    weights of a class applied to each position, and its mean over the positions is the logit. Where a norm or another
    layer stands between the average and the last layer (ConvNeXt, MobileNetV3) it is that in first approximation. Of a
    vision transformer it is the head applied to the patch tokens, in the place of a class token too. No gradients.

    Args:
        config: reads `dcg_encoder`, `image_size` and `num_classes`.
        pretrained: start from ImageNet weights, see `diffmiczoo.nn.encoders.Backbone`; the last layer only where these
            are for as many classes.

    Raises:
        ValueError: timm does not know the name, the model has not one last layer, or it cannot take the image size.

    Source: Zhou et al., *Learning Deep Features for Discriminative Localization*, CVPR 2016, section 2.
    """

    global_encoder: PlainTrunk

    def __init__(self, config: DiffMICConfig, pretrained: Pretrained = False) -> None:
        nn.Module.__init__(self)
        self.local_encoder = None
        model = _timm_classifier(config, pretrained)
        self.classifier = _take_last_layer(model, config)
        if not _is_for_these_classes(config, pretrained):
            # timm draws an EfficientNet's by the number of classes: with few ones training begins at a loss of 3 to 5.
            self.classifier.reset_parameters()
        check_patches(model, config.dcg_encoder, config.image_size)
        self.global_encoder = PlainTrunk(model, self.classifier.in_features)
        packaged = packaged_weights(config.dcg_encoder) if pretrained is not False else None
        if packaged is not None:
            own = model.state_dict()
            model.load_state_dict({key: packaged.get(key, own[key]) for key in own})
        _try(self, config)

    def stream_of(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the class activation map (B, C, h, w), without gradients, and the logits (B, C)."""
        logits = self.classifier(self.global_encoder.pooled(features))
        with torch.no_grad():
            by_class = self.classifier(self.global_encoder.pooled_by_position(features))
        return rearrange(by_class, "b h w c -> b c h w").contiguous(), logits

    def training_priors(self, images: Tensor, config: DiffMICConfig) -> Priors:
        """Returns the logits alone: training needs neither map nor ROIs."""
        logits = self.classifier(self.image_features(whole_view(images, config)))
        nothing = logits.new_empty(len(logits), 0)
        return Priors(logits, logits, nothing, nothing, nothing, nothing)

    def pooled(self, features: Tensor) -> Tensor:
        """Returns what the last layer is given, (B, `num_features`)."""
        return self.global_encoder.pooled(features)


def _timm_classifier(config: DiffMICConfig, pretrained: Pretrained) -> Any:
    """Returns timm's model with the config's classes, for its image size; packaged weights are not loaded yet."""
    name, size = config.dcg_encoder, config.image_size
    check_timm_name(name)
    published = timm.models.get_pretrained_cfg(name)
    fixed = published is not None and published.fixed_input_size
    fetched = pretrained is not False and packaged_weights(name) is None
    if fetched and not (published is not None and published.has_weights):
        raise InvalidValueError(f"timm {timm.__version__} has no pretrained weights of {name}; leave them out")
    file = pretrained.get(name) if isinstance(pretrained, Mapping) else None
    overlay = None if file is None else {"file": str(file)}
    # Most models take pictures of any size; the others are built for one.
    sized: dict[str, Any] = {"img_size": size} if fixed else {}
    try:
        return timm.create_model(
            name, pretrained=fetched, pretrained_cfg_overlay=overlay, num_classes=config.num_classes, **sized
        )
    except TypeError as error:
        if not fixed:
            raise
        raise InvalidValueError(
            f"timm's {name} cannot be built for pictures of {size} pixels: {_first_line(error)}"
        ) from error


def _is_for_these_classes(config: DiffMICConfig, pretrained: Pretrained) -> bool:
    """Whether the last layer came with the pretrained weights; packaged ones have none."""
    published = timm.models.get_pretrained_cfg(config.dcg_encoder)
    fetched = pretrained is not False and packaged_weights(config.dcg_encoder) is None
    return fetched and published is not None and published.num_classes == config.num_classes


def _take_last_layer(model: Any, config: DiffMICConfig) -> nn.Linear:
    """Takes the last linear layer out of timm's model, which returns from then on what that layer was given.

    Raises:
        ValueError: there is not just one.
    """
    path, name = model.pretrained_cfg.get("classifier"), config.dcg_encoder
    if not isinstance(path, str):
        raise InvalidValueError(
            f"timm's {name} is no plain classifier here: it has {'no' if not path else 'several'} last layers"
            + (f" ({', '.join(path)})" if path else "")
            + "; take a model with one"
        )
    inner = [(key, layer) for key, layer in model.get_submodule(path).named_modules() if _maps_to(layer, config)]
    if not inner:
        kind = type(model.get_submodule(path)).__name__
        raise InvalidValueError(f"timm's {name} is no plain classifier here: its last layer {path} is a {kind}")
    key, layer = inner[-1]
    parent, _, last = (f"{path}.{key}" if key else path).rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    return layer if isinstance(layer, nn.Linear) else _as_linear(layer)


def _maps_to(layer: nn.Module, config: DiffMICConfig) -> bool:
    """Returns whether a layer is linear, or a convolution over one pixel, and gives a number per class."""
    if isinstance(layer, nn.Linear):
        return layer.out_features == config.num_classes
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.out_channels == config.num_classes
    return False


@torch.no_grad()
def _as_linear(conv: Any) -> nn.Linear:
    linear = nn.Linear(conv.in_channels, conv.out_channels, bias=conv.bias is not None)
    linear.weight.copy_(conv.weight.flatten(1))
    if conv.bias is not None:
        linear.bias.copy_(conv.bias)
    return linear


def _try(classifier: PlainClassifier, config: DiffMICConfig) -> None:
    """Shows a classifier an empty picture, so that one that cannot take it is known before any training.

    Raises:
        ValueError: it cannot, or its features are no map of positions.
    """
    size = config.image_size
    try:
        with frozen(classifier), full_precision(classifier.classifier.weight.device):
            classifier.global_stream(torch.zeros(1, 3, size, size).to(classifier.classifier.weight))
    except _UNSUITABLE as error:
        raise InvalidValueError(
            f"timm's {config.dcg_encoder} takes no pictures of {size} pixels, or its features have no positions: "
            f"{_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
