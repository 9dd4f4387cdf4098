"""`DescribedState`: a state dict that says which config its weights belong to, without a key more than its tensors."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from diffmiczoo.config import CALIBRATION_FIELDS, DiffMICConfig
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.metrics.recalibration import Recalibration
from diffmiczoo.trust.stored import Trust

#: Where torch keeps what belongs to a state dict besides tensors; `torch.save` writes it, safetensors does not.
_KEY = "diffmiczoo"

#: Weights with a row per class; every model has one of them.
_CLASS_ROWS = ("dcg.local_classifier.weight", "dcg.saliency_conv.weight", "dcg.classifier.weight")

#: Fields that change what the same weights say.
_MEANING = (
    "task",
    "class_names",
    "image_size",
    "roi_source_size",
    "crop_mode",
    "interpolation",
    "mean",
    "std",
    "predictor",
    "saliency_top",
    "roi_size",
    "roi_saliency",
    "roi_channels",
    "guidance",
    "prior_activation",
    "feature_weighting",
    "process_mean",
    "sampler",
    "init",
    "clip_sample",
    "tta",
)


class DescribedState(nn.Module):
    """A module whose `state_dict` carries its config and whether it is trained, for `load_state_dict` to compare.

    Attributes:
        config: what it is; may be set.
        trained: whether its weights come from training.
        trust, recalibration: what the weights know about their limits, and how they were recalibrated; no state dict
            carries them.
    """

    config: DiffMICConfig
    trained: bool
    trust: Trust | None
    recalibration: Recalibration | None

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the weights; see `torch.nn.Module.state_dict`.

        The calibration is no weight but part of the config. Both travel in the dict's `_metadata`, as far as it does:
        through `torch.save` and copies of the dict itself, not through safetensors or a dict that is built from its
        items. `save_pretrained` and `torch.save(model)` keep all in any case.
        """
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        if (metadata := getattr(state, "_metadata", None)) is not None and prefix[:-1] in metadata:
            metadata[prefix[:-1]][_KEY] = {"trained": self.trained, "config": self.config.to_dict()}
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads weights; see `torch.nn.Module.load_state_dict`.

        A model that is neither trained nor calibrated takes over the calibration that comes with the weights, names of
        classes where it has none, and that they are trained, so that it predicts the same. Weights that were saved
        from within DataParallel, DistributedDataParallel or `torch.compile` are loaded as well.

        Raises:
            ValueError: the weights are of a model with another number of classes.

        Warns:
            UserWarning: the weights are of a model with other classes, another task, other pre-processing, or another
                calibration than the model's own, which is kept.
        """
        fresh = not self.trained and self.config == self.config.uncalibrated()
        state_dict = _unwrapped(state_dict, self._modules)
        _check_classes(state_dict, self.config.num_classes)
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.trust = self.recalibration = None  # they were fitted to other weights
        described = (getattr(state_dict, "_metadata", None) or {}).get("", {}).get(_KEY)
        if described is None or result.missing_keys or result.unexpected_keys:
            return result
        theirs = DiffMICConfig.from_dict(described["config"], source="state_dict")
        if fresh:
            names = self.config.class_names or theirs.class_names
            fitted = theirs.calibration if theirs.task == self.config.task else {}
            self.config = self.config.replace(class_names=names, **fitted)
            self.trained = described["trained"]
        own, compared = self.config, _MEANING if fresh else (*_MEANING, *CALIBRATION_FIELDS)
        other = [name for name in compared if getattr(own, name) != getattr(theirs, name)]
        if other:
            shown = "; ".join(f"{name} {getattr(theirs, name)}, here {getattr(own, name)}" for name in other)
            warn(f"the weights are of a model with another {shown}: predictions will not be those of that model")
        return result


def _unwrapped(state_dict: Mapping[str, Any], modules: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a state dict whose keys do not begin with the name that a wrapper of torch's gives the model."""
    for prefix in ("module.", "_orig_mod."):
        if prefix[:-1] in modules or not state_dict or not all(key.startswith(prefix) for key in state_dict):
            continue
        state, metadata = OrderedDict(state_dict), getattr(state_dict, "_metadata", None)
        state._metadata = OrderedDict(metadata or {})  # type: ignore[attr-defined]
        consume_prefix_in_state_dict_if_present(state, prefix)
        return _unwrapped(state, modules)
    return state_dict


def _check_classes(state_dict: Mapping[str, Any], num_classes: int) -> None:
    weight = next((state_dict[name] for name in _CLASS_ROWS if name in state_dict), None)
    if weight is not None and len(weight) != num_classes:
        raise InvalidValueError(
            f"the weights are of a model with {len(weight)} classes, this one has {num_classes}; create it with "
            f"num_classes={len(weight)}, or call reset_classifier({len(weight)}) first. To learn other classes from "
            "these weights, load them first and call finetune or reset_classifier then"
        )
