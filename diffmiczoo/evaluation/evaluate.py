"""`evaluate`: a model's metrics on labelled images, of the whole model or of its DCG alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.results import Answers
from diffmiczoo.inference.probabilities import logits_to_probs
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.settings import FAST, using

Loader = DataLoader[tuple[Tensor, Tensor]]


def evaluate(
    model: DiffMICv2,
    data: Any,
    *,
    split: str | None = None,
    dcg_alone: bool = False,
    batch_size: int = 32,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: bool | None = None,
) -> Metrics:
    """Computes metrics with 95 % bootstrap intervals on labelled images; groups are drawn whole.

    Args:
        model: predicts with its own sampling steps, calibration and thresholds.
        data: anything that `fit` takes.
        split: which images; by default "test" where the data have splits, else all.
        dcg_alone: judge the DCG's own prediction, softmax (multi-label: sigmoid) of 0.5 · (ŷ_g + ŷ_l), instead.
        batch_size: images computed at once.
        bootstrap: resamples, 0 for no intervals.
        seed: of the resampling.
        progress: show bars; by default where the standard error is a terminal.

    Raises:
        ValueError: the data's classes are not the model's, or no image belongs to the split that was asked for.
        ImageError: an image cannot be read.
    """
    manifest = images_to_judge(model.config, data, split)
    probs = probabilities(model, manifest, dcg_alone=dcg_alone, batch_size=batch_size, progress=progress)
    thresholds = None if dcg_alone else model.config.thresholds
    return Answers.of(manifest, probs, model.config, thresholds).metrics(bootstrap, seed, progress)


def images_to_judge(config: DiffMICConfig, data: Any, split: str | None = None) -> Manifest:
    """Returns the images that `evaluate` judges a model by.

    Raises:
        ValueError: the data's classes are not the model's, or no image belongs to the split that was asked for.
    """
    manifest = as_manifest(data, class_names=config.class_names or None, task=config.task)
    if manifest.class_names != config.labels:
        raise ValueError(
            f"{manifest.name} has the classes {list(manifest.class_names)}, the model {list(config.labels)}"
        )
    if split is not None or manifest.has_splits:
        return manifest.split(split or "test")
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
    return logits_to_probs(collect_scores(model, dcg_scores, loader, progress)[0], model.config.task)


def answers_of_both(
    model: DiffMICv2, manifest: Manifest, batch_size: int = 32, progress: bool | None = None
) -> dict[str, Answers]:
    """Returns what a model ("model") and its DCG alone ("dcg") answer for the images of a manifest, from one pass.

    Raises:
        ImageError: an image cannot be read.
    """
    config, items = model.config, [record.item() for record in manifest.records]
    prediction = model.predict(items, batch_size=batch_size, progress=progress)
    dcg_probs = logits_to_probs(prediction.dcg_logits, config.task)
    return {
        "model": Answers.of(manifest, prediction.probs, config, config.thresholds),
        "dcg": Answers.of(manifest, dcg_probs, config, None),
    }


def dcg_scores(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the DCG's own prediction 0.5 · (ŷ_g + ŷ_l), (B, C) logits, for preprocessed images."""
    return model.priors(images).dcg_logits


def both_scores(model: DiffMICv2, images: Tensor) -> Tensor:
    """Returns the model's scores and its DCG's, (B, 2, C), for preprocessed images; the DCG is computed once."""
    priors = model.priors(images)
    return torch.stack([model.scores(images, priors), priors.dcg_logits], dim=1)


@torch.inference_mode()
def collect_scores(
    model: DiffMICv2,
    scores: Callable[[DiffMICv2, Tensor], Tensor],
    loader: Loader,
    progress: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns what `scores` gives for the batches of a loader, (N, …), and the targets, on the CPU."""
    like = model.default_noise
    hide = None if progress is None else not progress
    with eval_mode(model), using(FAST, like.device):
        rows = [
            (scores(model, images.to(like)).float().cpu(), targets)
            for images, targets in tqdm(loader, desc="evaluate", unit="batch", disable=hide, leave=False)
        ]
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])
