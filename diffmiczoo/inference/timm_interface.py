"""`TimmInterface`: what programs written for timm ask of a model, answered from its config and its own parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from timm.models import PretrainedCfg, group_parameters
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.nn.class_layers import CLASS_LAYERS
from diffmiczoo.nn.condition import Condition, Priors
from diffmiczoo.nn.guidance import build_guidance_map

#: What timm may ask for where only averages over positions exist.
_POOLS = (None, "", "avg")

#: Said of 0 classes, timm's word for features.
NO_CLASSES = (
    "num_classes=0: a model cannot lose its classes; model.embed(images) gives features of pictures, "
    "model.forward_head(model.forward_features(batch), pre_logits=True) those of a batch"
)


class _Parts(Protocol):
    """What the interface uses of a model."""

    config: DiffMICConfig
    default_noise: Tensor
    dcg: Any
    feature_prior: Any

    @property
    def num_features(self) -> int: ...

    def priors(self, images: Tensor) -> Priors: ...

    def condition_from_priors(self, images: Tensor, priors: Priors) -> Condition: ...

    def sample(self, condition: Condition) -> Tensor: ...


class TimmInterface(nn.Module):
    """Names that timm's data, optimiser and feature functions read; all follow the config, so none can be out of date.

    Attributes:
        config: what the model is.
        weights_name: of the registered weights that it holds.
    """

    config: DiffMICConfig
    weights_name: str | None

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What `timm.data.resolve_data_config({}, model=model)` reads: input size, crop, interpolation, mean and std.

        With `crop_mode="border"` timm fills the border with the mean colour, this package with black: `transform` and
        `preprocess` do what the model was trained with.
        """
        architecture, _, tag = (self.weights_name or "").partition(".")
        return PretrainedCfg(
            architecture=architecture or None,
            tag=tag or None,
            **shared_cfg(self.config),
            classifier=tuple(self._class_layers()),  # type: ignore[arg-type]
        ).to_dict()

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The older name of `pretrained_cfg`."""
        return self.pretrained_cfg

    @property
    def num_classes(self) -> int:
        """C."""
        return self.config.num_classes

    @property
    def num_features(self) -> int:
        """Length H of an image's features: of F, or of the global encoder's average where the DCG predicts alone."""
        if self.config.predictor == "diffusion":
            return self.config.latent_dim
        return int(self.get_submodule("dcg.global_encoder").num_features)  # type: ignore[arg-type]

    @property
    def head_hidden_size(self) -> int:
        """Length of what `forward_head(…, pre_logits=True)` returns: `num_features`."""
        return self.num_features

    def forward_features(self: _Parts, images: Tensor) -> Tensor:
        """Computes all that `forward_head` needs, as tokens in the manner of a vision transformer.

        The first token, `[:, 0]`, is the image's features: F (eq. 6), or the average over the global encoder's features
        where the DCG predicts alone. The others hold the priors ŷ_g and ŷ_l, from which the prediction starts, filled
        up with zeros. So `forward_head(forward_features(images))` is `model(images)`.

        Args:
            images: (B, 3 or 1, S, S) float, as `preprocess` gives them.

        Returns:
            (B, 1 + n, H), n tokens for the 2 · C numbers of the priors.
        """
        priors = self.priors(images)
        features = priors.features
        if features is None:
            features = self.condition_from_priors(images, priors).feature_prior
        both = torch.cat([priors.global_prior, priors.local_prior], dim=1).to(features.dtype)
        filled = nn.functional.pad(both, (0, -both.shape[1] % features.shape[1]))
        return torch.cat([features[:, None], filled.unflatten(1, (-1, features.shape[1]))], dim=1)

    def forward_head(self: _Parts, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps what `forward_features` returned to the model's scores (B, C), or to the features alone.

        Args:
            features: (B, 1 + n, H).
            pre_logits: return the features (B, H) instead.

        Raises:
            ValueError: the features have another shape; F alone does not tell the classes, the priors belong to it.
        """
        config = self.config
        width = self.num_features
        fits = features.ndim == 3 and features.shape[2] == width
        if not fits or (features.shape[1] - 1) * width < 2 * config.num_classes:
            raise InvalidValueError(
                f"features have shape {tuple(features.shape)}; expected (B, 1 + n, {width}) as forward_features "
                "returns them, with the priors behind the features: the features alone do not tell the classes"
            )
        if pre_logits:
            return features[:, 0]
        global_prior, local_prior = features[:, 1:].flatten(1)[:, : 2 * config.num_classes].chunk(2, dim=1)
        nothing = features.new_empty(len(features), 0)
        priors = Priors(global_prior, local_prior, nothing, nothing, nothing, nothing)
        if config.predictor != "diffusion":
            return priors.dcg_logits
        guidance_map = build_guidance_map(global_prior, local_prior, config)
        condition = Condition.of(priors, guidance_map, features[:, 0]).to(self.default_noise.dtype)
        return self.sample(condition).mean((2, 3))

    def get_classifier(self) -> nn.ModuleList:
        """Returns the layers whose size follows the number of classes: the model has up to four, not one head."""
        return nn.ModuleList([self.get_submodule(path) for path in self._class_layers()])

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes the encoders' activations again in the backward pass instead of storing them: less memory, slower.

        Losses, gradients and running statistics stay as they are.
        """
        for encoder in self.encoders():
            encoder.set_grad_checkpointing(enable)  # type: ignore[operator]

    def no_weight_decay(self) -> set[str]:
        """Returns what timm's optimisers should not decay: position embeddings, and scales by timestep."""
        names = {name for name, _ in self.named_parameters() if name.endswith("gamma.weight")}
        for prefix, encoder in self._encoders().items():
            inner, path = _timm_model(encoder)
            own: Callable[[], set[str]] = getattr(inner, "no_weight_decay", set)
            names |= {f"{prefix}.{path}.{name}" for name in own()}
        return names & {name for name, _ in self.named_parameters()}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[float, ...]]:
        """Returns what tells timm's `param_groups_layer_decay` how far a parameter is from the model's output.

        The layers of each encoder are counted from its end, so that the last ones of all encoders share a rate; the
        heads of the DCG and of F come next, the U-Net last.

        Args:
            coarse: group an encoder's layers by stage, as its own `group_matcher` does.
        """
        depth: dict[str, float] = {}
        for prefix, encoder in self._encoders().items():
            inner, path = _timm_model(encoder)
            matcher = getattr(inner, "group_matcher", None)
            layers = group_parameters(inner, matcher(coarse=coarse), reverse=True) if matcher else {}
            last = max(layers.values(), default=0)
            depth |= {f"{prefix}.{path}.{name}": layer - last - 1.0 for name, layer in layers.items()}
        encoders = tuple(f"{prefix}." for prefix in self._encoders())

        def group(name: str) -> tuple[float, ...]:
            if name in depth or name.startswith(encoders):
                return (depth.get(name, -1.0),)
            return (float(name.startswith("unet.")),)

        return group

    def encoders(self) -> list[nn.Module]:
        """Returns the backbones of the DCG and of the image feature prior."""
        return list(self._encoders().values())

    def _class_layers(self) -> Iterator[str]:
        own = {name for name, _ in self.named_modules()}
        return (path for path in CLASS_LAYERS if path in own)

    def _encoders(self) -> dict[str, nn.Module]:
        """Returns the path of each encoder and the encoder."""
        return {
            f"{part}.{name}": child
            for part, module in self.named_children()
            for name, child in module.named_children()
            if "encoder" in name
        }


def shared_cfg(config: DiffMICConfig) -> dict[str, Any]:
    """Returns what timm's `PretrainedCfg` holds of a config: images and classes."""
    return {
        "input_size": (3, config.input_size, config.input_size),
        "fixed_input_size": True,
        "interpolation": config.interpolation,
        "crop_pct": 1.0,
        "crop_mode": config.crop_mode,
        "mean": config.mean,
        "std": config.std,
        "num_classes": config.num_classes,
        "label_names": config.labels,
    }


def _timm_model(encoder: nn.Module) -> tuple[nn.Module, str]:
    """Returns timm's own model inside an encoder and where it lies: timm wraps those that give feature maps."""
    inner = encoder.get_submodule("model")
    wrapped = dict(inner.named_children()).get("model")
    return (inner, "model") if wrapped is None else (wrapped, "model.model")


def check_pool(class_names: Any, global_pool: str | None, num_classes: int) -> Any:
    """Returns the names of classes, in whose place timm's second argument, the pooling, may stand.

    Raises:
        ValueError: another pooling than the average is asked for, or no classes, which is timm's word for features.
    """
    if num_classes == 0:
        raise InvalidValueError(NO_CLASSES)
    if isinstance(class_names, str) and class_names in (*_POOLS, "max", "avgmax", "catavgmax", "token", "map", "fast"):
        class_names, global_pool = None, class_names
    if global_pool not in _POOLS:
        raise InvalidValueError(f"global_pool={global_pool!r}: features are averages over positions here; leave it out")
    return class_names
