"""One model out of several runs: the mean of their weights, with statistics of BatchNorm that belong to it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.diffusion.losses import label_vectors, sample_training_noise
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.evaluate import evaluation_split
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import eval_mode, seeded_generator
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import StageLoss, create_stages

#: Fields of a config that a run learns by, and nothing else.
_LEARNING_FIELDS = ("loss", "mmd_weight", "feature_loss_weight", "class_names")


def average_weights(
    sources: Sequence[str | os.PathLike[str]],
    data: Any,
    *,
    split: str | None = None,
    batch_size: int = 32,
    progress: bool | None = None,
) -> DiffMICv2:
    """Returns a model with the mean of several runs' weights: as fast as one of them.

    The mean is of use for runs that began with the same weights and went apart by order, augmentation and settings;
    layers that began at random are others in each run, and their mean is none of them. The result is not calibrated.

    Args:
        sources: directories with weights, such as runs/…/best; at least two, with the same config.
        data: the training images, for the statistics of BatchNorm: anything that `fit` takes.
        split: which of them; by default "train" where they have splits.
        batch_size: images computed at once, ≥ 2.
        progress: show a bar; by default where the standard error is a terminal.

    Raises:
        ValueError: there is one source or one image only, `batch_size` is 1, a run's last stage was never trained, or
            the runs have other configs or classes.
        FileNotFoundError, ImageError: as `from_pretrained` and `fit` do.

    Source: Wortsman et al., *Model Soups*, ICML 2022; Izmailov et al., *Averaging Weights Leads to Wider Optima*,
    UAI 2018, section 3.2, for BatchNorm.
    """
    given = 1 if isinstance(sources, str | os.PathLike) else len(sources)
    if given < 2:
        raise InvalidValueError(f"found {given} source; a mean needs a list with the weights of at least two runs")
    if batch_size < 2:
        raise InvalidValueError(
            f"batch_size={batch_size} must be at least 2: BatchNorm's statistics are those of batches"
        )
    models = [DiffMICv2.from_pretrained(source) for source in sources]
    first, seen = models[0], [model.training_pictures for model in models if model.training_pictures is not None]
    for source, model in zip(sources, models, strict=True):
        _check_same(first.config, model.config, sources[0], source)
        if not model.trained:
            raise InvalidValueError(
                f"{source}: its last stage was never trained; a mean needs runs that were trained to their end"
            )
    manifest = evaluation_split(first.config, data, split or "train")
    if len(manifest) < 2:
        raise InvalidValueError(f"{manifest.name}: found 1 image; BatchNorm's statistics need at least two")
    first.training_pictures = reduce(PictureSet.union, seen) if seen else None
    states = [model.state_dict() for model in models]
    first.load_state_dict({name: _mean([state[name] for state in states]) for name in states[0]})
    first.config = first.config.uncalibrated()
    first.weights_name = first.loaded_from = first.trust = first.recalibration = None
    loader = DataLoader(
        ImageDataset(manifest, first.config, progress=progress),
        batch_size,
        shuffle=True,  # classes one after the other would have less variance in a batch than there is
        generator=seeded_generator(0),
        drop_last=len(manifest) >= batch_size,
    )
    _estimate_statistics(first, loader, progress)
    return first


def _check_same(first: DiffMICConfig, other: DiffMICConfig, first_name: Any, other_name: Any) -> None:
    """Raises where a mean of two runs' weights would be none, or where it is not clear what to do with it.

    Raises:
        ValueError: names the fields that differ, or the classes.
    """
    if other.labels != first.labels:
        raise InvalidValueError(f"{other_name} has the classes {other.labels}, {first_name} {first.labels}")
    mine, theirs = first.uncalibrated().to_dict(), other.uncalibrated().to_dict()
    fields = [name for name in mine if mine[name] != theirs[name] and name not in _LEARNING_FIELDS]
    if bool(first.feature_loss_weight) != bool(other.feature_loss_weight):
        fields.append("feature_loss_weight")
    if fields:
        shown = "; ".join(f"{name}={theirs[name]!r} and {mine[name]!r}" for name in fields[:5])
        raise InvalidValueError(
            f"{other_name} and {first_name} are other models: {shown}; take runs with the same config"
        )


def _mean(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(tensors)).mean(0) if tensors[0].is_floating_point() else tensors[0]


@torch.no_grad()
def _estimate_statistics(model: DiffMICv2, loader: DataLoader[Any], progress: bool | None) -> None:
    """Sets mean and variance of every BatchNorm to those over a loader's images, stage by stage as they are trained.

    Not `torch.optim.swa_utils.update_bn`: a pass of the whole model in training mode would show the diffusion what a
    DCG in training mode says, and the U-Net the timesteps of sampling alone.
    """
    generator = seeded_generator(0)
    for stage in create_stages(Recipe(), model.config):
        loss = StageLoss(model, stage)
        norms = [norm for name in stage.modules for norm in _norms(model.get_submodule(name))]
        bar = progress_bar(len(loader), f"statistics of {stage.name}", "batch", progress, leave=False)
        with eval_mode(model), _estimating(norms), bar:
            for images, targets in loader:
                labels = label_vectors(targets, model.config)
                noise = sample_training_noise(model.config, len(images), generator)
                loss(images, labels, None, noise)
                bar.update()


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [each for each in module.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]


@contextmanager
def _estimating(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Lets BatchNorms forget their statistics and take the plain mean over the batches that they see within it."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
