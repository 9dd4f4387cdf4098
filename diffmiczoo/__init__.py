"""DiffMIC-v2 diffusion classifiers for medical images: a model zoo for PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from diffmiczoo._version import __version__

if TYPE_CHECKING:
    from diffmiczoo.config import DiffMICConfig
    from diffmiczoo.evaluation.evaluate import evaluate
    from diffmiczoo.hub.client import HubError
    from diffmiczoo.images.items import ImageError
    from diffmiczoo.inference.prediction import Prediction
    from diffmiczoo.model import DiffMICv2
    from diffmiczoo.nn.condition import Condition
    from diffmiczoo.training.fit import TrainingResult, finetune, fit
    from diffmiczoo.training.recipe import Recipe
    from diffmiczoo.zoo.convert import convert_official
    from diffmiczoo.zoo.encoder_weights import load_backbone
    from diffmiczoo.zoo.info import ModelInfo, model_info
    from diffmiczoo.zoo.registry import create_model, list_models

_HOME = {
    "Condition": "diffmiczoo.nn.condition",
    "DiffMICConfig": "diffmiczoo.config",
    "DiffMICv2": "diffmiczoo.model",
    "HubError": "diffmiczoo.hub.client",
    "ImageError": "diffmiczoo.images.items",
    "ModelInfo": "diffmiczoo.zoo.info",
    "Prediction": "diffmiczoo.inference.prediction",
    "Recipe": "diffmiczoo.training.recipe",
    "TrainingResult": "diffmiczoo.training.fit",
    "convert_official": "diffmiczoo.zoo.convert",
    "create_model": "diffmiczoo.zoo.registry",
    "evaluate": "diffmiczoo.evaluation.evaluate",
    "finetune": "diffmiczoo.training.fit",
    "fit": "diffmiczoo.training.fit",
    "list_models": "diffmiczoo.zoo.registry",
    "load_backbone": "diffmiczoo.zoo.encoder_weights",
    "model_info": "diffmiczoo.zoo.info",
}

__all__ = [
    "Condition",
    "DiffMICConfig",
    "DiffMICv2",
    "HubError",
    "ImageError",
    "ModelInfo",
    "Prediction",
    "Recipe",
    "TrainingResult",
    "__version__",
    "convert_official",
    "create_model",
    "evaluate",
    "finetune",
    "fit",
    "list_models",
    "load_backbone",
    "model_info",
]


def __getattr__(name: str) -> Any:
    # Importing torch and timm takes seconds, so a public name is loaded when it is first used.
    if name not in _HOME:
        raise AttributeError(f"module 'diffmiczoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
