"""`Teachers`: trained models whose answers a model learns beside the labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.known_pictures import count_known
from diffmiczoo.data.labels import is_bare
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.errors import DiffMICError, InvalidValueError, warn
from diffmiczoo.hub.companions import weights_digest
from diffmiczoo.images.preprocessing import denormalize
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.zoo.factory import create_model

#: What stands for the folders of this machine in a recipe beside weights; no source begins so.
_SOMEWHERE = "…/"


class Teachers:
    """Answers with the mean probability of several models to the very pictures that a batch trains on.

    They see each picture as it was augmented, so that what they say is about what the student sees. Their calibration
    is a part of their answer, and no temperature is added.

    Args:
        models: source → model, at least one, with the student's classes in any order.
        config: the student's.

    Source: Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2, with several
    teachers; Beyer et al., *Knowledge distillation: A good teacher is patient and consistent*, CVPR 2022, for the
    same view.
    """

    def __init__(self, models: Sequence[tuple[str, DiffMICv2]], config: DiffMICConfig) -> None:
        self.models, self.config = models, config
        self.orders = [[model.config.labels.index(name) for name in config.labels] for _, model in models]
        self.answers = [
            model.prediction_function(model.config.sampling_steps, model.config.num_samples, PredictOptions(seed=0))
            for _, model in models
        ]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Maps images (B, 3, S, S), normalised as the student's are, to probabilities (B, C) on their device.

        Raises:
            ValueError: one answers with NaN or infinity.
        """
        squares, found = denormalize(images, self.config), []
        for (source, model), answer, order in zip(self.models, self.answers, self.orders, strict=True):
            size = model.config.input_size
            # Of the square that the student sees, not of the file: the same augmented pixels.
            same = squares.shape[-1] == size
            seen = squares if same else F.resize(squares, [size, size], antialias=True).clamp(0, 1)
            probs = answer(seen).probs[:, order]
            if not bool(torch.isfinite(probs).all()):
                raise InvalidValueError(f"teacher {source} answers with NaN or infinity; leave it out")
            found.append(probs)
        # Cloned: tensors that were made in inference mode cannot take part in a gradient.
        return torch.stack(found).mean(0).clone().to(images)

    @property
    def digest(self) -> str:
        """A hash of all that their answers depend on."""
        parts = [f"{model.config.to_dict()} {weights_digest(model)}" for _, model in self.models]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()

    @property
    def training_pictures(self) -> list[PictureSet]:
        """What each of them was trained on, where that is known and they see the same squares as their student."""
        models = [model for _, model in self.models if model.config.input_size == self.config.input_size]
        return [model.training_pictures for model in models if model.training_pictures is not None]

    def check_held_back(self, held_back: Manifest, progress: bool | None = None) -> None:
        """Warns where teachers were trained on pictures that their student is to be measured on.

        Args:
            held_back: images for validation and test.
            progress: show bars; by default where the standard error is a terminal.

        Warns:
            UserWarning: names the teacher and how many it has seen.
        """
        for source, model in self.models:
            if model.training_pictures is None:
                continue
            if count := count_known(model.training_pictures, held_back, model.config, progress):
                warn(
                    f"teacher {source} was trained on {count:,} of the {len(held_back):,} images that are held back "
                    "for validation and test: they choose the epoch, calibrate and measure as if they were new, and "
                    "are not. Train all seeds on one table of splits, such as the split.csv of the first run"
                )


def load_teachers(recipe: Recipe, config: DiffMICConfig, device: torch.device) -> Teachers | None:
    """Loads the recipe's teachers of a student; None where it has none.

    Args:
        recipe: its `teachers`: directories, repositories "organisation/name", or what `create_model` takes.
        config: the student's, with its classes.
        device: where they answer.

    Raises:
        ValueError: one cannot be loaded, was never trained, or has another task, other classes or another crop.

    Warns:
        UserWarning: classes are numbers without names, which may stand for others.
    """
    if not recipe.teachers:
        return None
    models = [(source, _loaded(source, device)) for source in recipe.teachers]
    for source, model in models:
        _check_teacher(model, config, source)
    return Teachers(models, config)


def _loaded(source: str, device: torch.device) -> DiffMICv2:
    if source.startswith(_SOMEWHERE):
        raise InvalidValueError(
            f"teacher {source}: a recipe beside weights does not say in which folders the teachers were; give "
            "teachers=[...] anew"
        )
    place = os.path.expanduser(source)
    is_name = ":" in source or "/" not in source or source.startswith("timm/")
    try:
        if is_name and not os.path.isdir(place):
            return create_model(source, pretrained=True, device=device)
        if not os.path.isdir(place) and source.count("/") != 1:
            raise InvalidValueError("there is no such directory")
        return DiffMICv2.from_pretrained(place, device=device)
    except DiffMICError as error:
        raise InvalidValueError(f"teacher {source}: {error}") from error


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
    if is_bare(config.labels):
        warn(
            f"teacher {source} and the model that learns have class numbers without names; they are taken for the "
            "same classes, which may be wrong: class_names=[...] says what they stand for"
        )


def shown_teachers(recipe: Recipe) -> Recipe:
    """Returns a recipe without the folders in which teachers were: what may be published."""
    shown = [
        _SOMEWHERE + "/".join(Path(source).parts[-2:]) if os.path.isdir(os.path.expanduser(source)) else source
        for source in recipe.teachers
    ]
    return recipe.replace(teachers=tuple(shown))
