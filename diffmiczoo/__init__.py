"""DiffMIC-v2 diffusion classifiers for medical images: a model zoo for PyTorch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from diffmiczoo._version import __version__
from diffmiczoo.inference.exportable import hand_in

# For type checkers and editors, which do not run `__getattr__`; a test compares this list with `_HOME`.
if TYPE_CHECKING:
    from diffmiczoo.config import DiffMICConfig as DiffMICConfig
    from diffmiczoo.data.readers import read_manifest as read_manifest
    from diffmiczoo.errors import DiffMICError as DiffMICError
    from diffmiczoo.evaluation.audit import audit as audit
    from diffmiczoo.evaluation.evaluate import evaluate as evaluate
    from diffmiczoo.hub.errors import HubError as HubError
    from diffmiczoo.images.items import ImageError as ImageError
    from diffmiczoo.inference.prediction import Prediction as Prediction
    from diffmiczoo.model import DiffMICv2 as DiffMICv2
    from diffmiczoo.nn.condition import Condition as Condition
    from diffmiczoo.reporting.report import report as report
    from diffmiczoo.reporting.reproduction.reproduce import reproduce as reproduce
    from diffmiczoo.training.fit import TrainingResult as TrainingResult
    from diffmiczoo.training.fit import finetune as finetune
    from diffmiczoo.training.fit import fit as fit
    from diffmiczoo.training.recipe import Recipe as Recipe
    from diffmiczoo.zoo.architectures import register_model as register_model
    from diffmiczoo.zoo.convert import convert_official as convert_official
    from diffmiczoo.zoo.encoder_weights import load_backbone as load_backbone
    from diffmiczoo.zoo.factory import create_model as create_model
    from diffmiczoo.zoo.info import ModelInfo as ModelInfo
    from diffmiczoo.zoo.info import model_info as model_info
    from diffmiczoo.zoo.registry import is_model as is_model
    from diffmiczoo.zoo.registry import list_models as list_models
    from diffmiczoo.zoo.registry import list_pretrained as list_pretrained
    from diffmiczoo.zoo.timm_registry import register_timm as register_timm

#: Public name → the module that it lives in.
_HOME = {
    "Condition": "diffmiczoo.nn.condition",
    "DiffMICConfig": "diffmiczoo.config",
    "DiffMICError": "diffmiczoo.errors",
    "DiffMICv2": "diffmiczoo.model",
    "HubError": "diffmiczoo.hub.errors",
    "ImageError": "diffmiczoo.images.items",
    "ModelInfo": "diffmiczoo.zoo.info",
    "Prediction": "diffmiczoo.inference.prediction",
    "Recipe": "diffmiczoo.training.recipe",
    "TrainingResult": "diffmiczoo.training.fit",
    "audit": "diffmiczoo.evaluation.audit",
    "convert_official": "diffmiczoo.zoo.convert",
    "create_model": "diffmiczoo.zoo.factory",
    "evaluate": "diffmiczoo.evaluation.evaluate",
    "finetune": "diffmiczoo.training.fit",
    "fit": "diffmiczoo.training.fit",
    "is_model": "diffmiczoo.zoo.registry",
    "list_models": "diffmiczoo.zoo.registry",
    "list_pretrained": "diffmiczoo.zoo.registry",
    "load_backbone": "diffmiczoo.zoo.encoder_weights",
    "model_info": "diffmiczoo.zoo.info",
    "read_manifest": "diffmiczoo.data.readers",
    "register_model": "diffmiczoo.zoo.architectures",
    "register_timm": "diffmiczoo.zoo.timm_registry",
    "report": "diffmiczoo.reporting.report",
    "reproduce": "diffmiczoo.reporting.reproduction.reproduce",
}

__all__ = [*_HOME, "__version__"]

# What exports models lies above them, and loads torch.
hand_in(lambda: importlib.import_module("diffmiczoo.export.exporting").export_model)


def __getattr__(name: str) -> Any:
    # Importing torch and timm takes seconds, so a public name is loaded when it is first used.
    if name not in _HOME:
        raise AttributeError(f"module 'diffmiczoo' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
