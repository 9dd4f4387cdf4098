"""`Teachers`: trained models whose answers a model learns beside the labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.preprocessing import denormalize
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.zoo.factory import create_model


class Teachers:
    """Answers with the mean probability of several models to the very pictures that a batch trains on.

    They see each picture as it was augmented, so that what they say is about what the student sees. Their calibration
    is a part of their answer, and no temperature is added.

    Args:
        models: at least one, with the student's classes in any order.
        config: the student's.

    Source: Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2, with several
    teachers; Beyer et al., *Knowledge distillation: A good teacher is patient and consistent*, CVPR 2022, for the
    same view.
    """

    def __init__(self, models: Sequence[DiffMICv2], config: DiffMICConfig) -> None:
        self.config, self.sizes = config, [model.config.input_size for model in models]
        self.orders = [[model.config.labels.index(name) for name in config.labels] for model in models]
        self.answers = [
            model.prediction_function(model.config.sampling_steps, model.config.num_samples, PredictOptions(seed=0))
            for model in models
        ]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S), normalised as the student's are, to probabilities (B, C) on their device."""
        squares, found = denormalize(images, self.config), []
        for size, answer, order in zip(self.sizes, self.answers, self.orders, strict=True):
            # Of the square that the student sees, not of the file: the same augmented pixels.
            same = squares.shape[-1] == size
            seen = squares if same else F.resize(squares, [size, size], antialias=True).clamp(0, 1)
            found.append(answer(seen).probs[:, order])
        # Cloned: tensors that were made in inference mode cannot take part in a gradient.
        return torch.stack(found).mean(0).clone().to(images)


def load_teachers(recipe: Recipe, config: DiffMICConfig, device: torch.device) -> Teachers | None:
    """Loads the recipe's teachers of a student; None where it has none.

    Args:
        recipe: its `teachers`: directories, repositories "organisation/name", or what `create_model` takes.
        config: the student's, with its classes.
        device: where they answer.

    Raises:
        ValueError: one was never trained, or has another task, other classes or another crop.
        FileNotFoundError, HubError: the weights are not there.
    """
    if not recipe.teachers:
        return None
    models = [_loaded(source, device) for source in recipe.teachers]
    for source, model in zip(recipe.teachers, models, strict=True):
        _check_teacher(model, config, source)
    return Teachers(models, config)


def _loaded(source: str, device: torch.device) -> DiffMICv2:
    is_name = ":" in source or "/" not in source
    if is_name and not os.path.isdir(source):
        return create_model(source, pretrained=True, device=device)
    return DiffMICv2.from_pretrained(source, device=device)


def _check_teacher(model: DiffMICv2, config: DiffMICConfig, source: str) -> None:
    theirs = model.config
    if not model.trained:
        raise InvalidValueError(f"teacher {source}: its last stage was never trained")
    for field in ("task", "labels", "crop_mode"):
        found, wanted = getattr(theirs, field), getattr(config, field)
        if found != wanted and not (field == "labels" and sorted(found) == sorted(wanted)):
            name = "the classes" if field == "labels" else field
            raise InvalidValueError(
                f"teacher {source} has {name} {found!r}, the model that learns {wanted!r}; a teacher answers about the "
                "same classes of the same part of a picture"
            )


def shown_teachers(recipe: Recipe) -> Recipe:
    """Returns a recipe in which teachers are called by the last two parts of their paths: what may be published."""
    return recipe.replace(teachers=tuple("/".join(PurePath(source).parts[-2:]) for source in recipe.teachers))
