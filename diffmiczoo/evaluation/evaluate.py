"""`evaluate`: a model's metrics on labelled images, of the whole model or of its DCG alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.classes import match_classes
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.data.summary import log_manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.evaluation.trained_on import count_trained_on
from diffmiczoo.inference.probabilities import logits_to_probs
from diffmiczoo.inference.tensors import pool_members
from diffmiczoo.inference.views import Answer, mean_over_views
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import FAST, using


class Batches(Protocol):
    """What gives normalised images (B, 3, S, S) and targets, such as a `DataLoader`."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]: ...


def evaluate(
    model: DiffMICv2,
    data: Any,
    *,
    split: str | None = None,
    class_names: Any = None,
    dcg_alone: bool = False,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Metrics:
    """Computes metrics with 95 % bootstrap intervals on labelled images; groups are drawn whole.

    Args:
        model: predicts with its own sampling steps, calibration and decision rule.
        data: anything that `fit` takes.
        split: which images; by default "test" where the data have splits, else all.
        class_names: what the class numbers of the data stand for, 0 first, where they are numbers without names; or a
            dictionary of number → name.
        dcg_alone: measure the DCG's own prediction, softmax (multi-label: sigmoid) of 0.5 · (ŷ_g + ŷ_l), instead.
        batch_size: images computed at once.
        bootstrap: resamples, 0 for no intervals.
        seed: of the resampling.
        progress: show bars; by default where the standard error is a terminal.

    Raises:
        ValueError: the data's classes are not among the model's, or no image belongs to the split that was asked for.
        ImageError: an image cannot be read.

    Warns:
        UserWarning: the model was trained on some of the images; `Metrics.num_trained_on` is their number.
    """
    manifest = evaluation_split(model.config, data, split, class_names)
    probs = probabilities(model, manifest, dcg_alone=dcg_alone, batch_size=batch_size, progress=progress)
    predictions = LabelledPredictions.of(manifest, probs, model.config, fitted=not dcg_alone)
    metrics = predictions.metrics(bootstrap, seed, progress)
    return replace(metrics, num_trained_on=count_trained_on(model, manifest, progress))


def evaluation_split(config: DiffMICConfig, data: Any, split: str | None = None, class_names: Any = None) -> Manifest:
    """Returns the images that `evaluate` measures a model on, with the model's classes: by name, see `match_classes`.

    Raises:
        ValueError: the data's classes are not among the model's, or no image belongs to the split that was asked for.
    """
    manifest = as_manifest(data, class_names=class_names, task=config.task, known=config.labels)
    if manifest.task != config.task:
        raise InvalidValueError(f"{manifest.name} is {manifest.task}, the model {config.task}")
    manifest = match_classes(manifest, config)
    if split is not None or manifest.has_splits:
        manifest = manifest.split(split or "test")
    log_manifest(manifest)
    return manifest


def probabilities(
    model: DiffMICv2,
    manifest: Manifest,
    *,
    dcg_alone: bool = False,
    batch_size: int = 32,
    progress: bool | None = None,
) -> Tensor:
    """Returns the probabilities (N, C) of all images of a manifest, of the model or of its DCG alone.

    Raises:
        ImageError: an image cannot be read.
    """
    if not dcg_alone:
        items = [record.item() for record in manifest.records]
        return model.predict(items, batch_size=batch_size, progress=progress).probs
    loader = DataLoader(ImageDataset(manifest, model.config, progress=progress), batch_size)
    return logits_to_probs(collect_scores(model, dcg_logits, loader, progress)[0], model.config.task)


def dcg_logits(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits, for preprocessed images."""

    def compute(view: Tensor) -> Answer:
        priors = model.priors(view)
        return Answer(priors.dcg_logits, priors, priors.dcg_logits[:, :0])

    # As the model's own `tta` averages, so that what is calibrated is what is predicted.
    return mean_over_views(images, model.config.tta, compute).priors.dcg_logits


def scores_and_members(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the model's scores and the logits of the pool's members, (B, 1 + M, C), for preprocessed images.

    The members are those of `PredictionTensors.members`; the DCG is computed once.
    """
    found = mean_over_views(images, model.config.tta, lambda view: model.answer(view, model.priors(view)))
    members = pool_members(found.priors.global_prior, found.priors.local_prior, found.feature_logits)
    return torch.cat([found.scores[:, None], members], dim=1)


@torch.inference_mode()
def collect_scores(
    model: DiffMICv2,
    scores: Callable[[DiffMICv2, Tensor], Tensor],
    loader: Batches,
    progress: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns what `scores` gives for the batches of a loader, (N, …), and the targets, on the CPU."""
    like = model.default_noise
    rows = []
    bar = progress_bar(len(loader), "evaluate", "batch", progress, leave=False)
    with eval_mode(model), using(FAST, like.device), bar:
        for images, targets in loader:
            rows.append((scores(model, images.to(like)).float().cpu(), targets))
            bar.update()
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])
