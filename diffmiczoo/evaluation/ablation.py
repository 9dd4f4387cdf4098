"""What each member of a model's pool is worth: alone, with the others, and with a logistic regression in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.evaluate import evaluation_split
from diffmiczoo.evaluation.members import MemberLogits, collect_members
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.ablation import RIVALS, Ablation
from diffmiczoo.metrics.calibration import pseudo_images
from diffmiczoo.metrics.decisions import fit_decision
from diffmiczoo.metrics.pool import fit_pool
from diffmiczoo.model import DiffMICv2


@dataclass(frozen=True)
class SplitLogits:
    """Logits (N, …, C) for the validation images, and for those that are measured."""

    val: Tensor
    measured: Tensor


def ablate(
    config: DiffMICConfig,
    val: MemberLogits,
    measured: MemberLogits,
    images: Manifest,
    *,
    logistic: SplitLogits | None = None,
    bootstrap: int = 1000,
) -> Ablation:
    """Measures the members of a diffusion's pool, each calibrated on the same validation images.

    Args:
        config: of the model.
        val: what its members say of validation images.
        measured: what they say of the images that are measured.
        images: those.
        logistic: adds rows with a logistic regression on F.
        bootstrap: resamples of the differences; 0 for none.

    Raises:
        ValueError: the model has no second stage.
    """
    check_second_stage(config)
    found = {}
    for row, own, members in _rows(config, val, measured, logistic):
        probs, val_probs = _calibrated(own, members, val.targets, config)
        rule = fit_decision(val_probs, val.targets, config.uncalibrated())
        found[row] = LabelledPredictions.of(images, probs.float(), rule)
    values = {row: each.metrics(0).values for row, each in found.items()}
    rivals = [row for row in RIVALS if row in found and bootstrap and found["pool"].num_units > 1]
    return Ablation(values, {row: found["pool"].difference(found[row], bootstrap) for row in rivals})


def check_second_stage(config: DiffMICConfig) -> None:
    """Raises for a model whose pool has nothing but a DCG's priors.

    Raises:
        ValueError: the model has no second stage.
    """
    if config.predictor != "diffusion":
        raise InvalidValueError(
            f"predictor={config.predictor!r} has no second stage to compare with; take a model with 'diffusion'"
        )


def calibration_images(config: DiffMICConfig, data: Any, images: Manifest, class_names: Any = None) -> Manifest:
    """Returns the validation images that members are calibrated on; raises before any image is predicted.

    Args:
        config: of the model.
        data: anything that `fit` takes, with a split "val".
        images: those that are to be measured.
        class_names: as for `evaluate`.

    Raises:
        ValueError: the model has no second stage, there is no split "val", or it is what is to be measured.
    """
    check_second_stage(config)
    val = evaluation_split(config, data, "val", class_names)
    _check_others(val, images)
    return val


def _check_others(val: Manifest, images: Manifest) -> None:
    if {record.path for record in val.records} & {record.path for record in images.records}:
        raise InvalidValueError(
            "members are calibrated on split 'val', and the images to be measured are among them; measure another split"
        )


def ablation_of(
    model: DiffMICv2,
    val: Manifest,
    predicted: PredictionsWithDcg,
    images: Manifest,
    batch_size: int = 32,
    bootstrap: int = 1000,
) -> Ablation:
    """Predicts validation images and measures the members by what `predict_with_dcg` has found for other images.

    Raises:
        ValueError: the model has no second stage, or the images to be measured are the validation images.
        ImageError: an image cannot be read.
    """
    _check_others(val, images)
    if predicted.members is None:
        raise InvalidValueError("the predictions do not hold what they were made of; predict_with_dcg keeps it")
    found = collect_members(model, val, batch_size)
    return ablate(model.config, found, predicted.members, images, bootstrap=bootstrap)


def _rows(
    config: DiffMICConfig, val: MemberLogits, measured: MemberLogits, logistic: SplitLogits | None
) -> Iterator[tuple[str, SplitLogits | None, SplitLogits]]:
    """Yields each row's name, the logits that have a temperature, and the members (N, M, C) that have weights."""

    def members(places: slice) -> SplitLogits:
        return SplitLogits(val.members[:, places], measured.members[:, places])

    none, both = members(slice(0)), members(slice(0, 2))
    yield "global", None, members(slice(0, 1))
    yield "local", None, members(slice(1, 2))
    yield "priors", None, both
    if logistic is not None:
        yield "logistic", logistic, none
        yield "logistic_pool", logistic, both
    if val.members.shape[1] > 2:
        yield "feature", None, members(slice(2, 3))
        yield "all_priors", None, members(slice(None))
    sampler = SplitLogits(score_logits(val.scores, config), score_logits(measured.scores, config))
    yield "sampler", sampler, none
    yield "pool", sampler, members(slice(None))


def _calibrated(
    own: SplitLogits | None, members: SplitLogits, targets: Tensor, config: DiffMICConfig
) -> tuple[Tensor, Tensor]:
    """Returns probabilities (N, C) of the images that are measured, and of the validation images."""
    few = pseudo_images(len(targets))
    pool = fit_pool(None if own is None else own.val, members.val, targets, task=config.task, pseudo_images=few)
    weights = torch.tensor(pool.weights, dtype=torch.float64)
    measured, val = (torch.einsum("m,nmc->nc", weights, each.double()) for each in (members.measured, members.val))
    if own is not None:
        measured = measured + own.measured.double() / pool.temperature
        val = val + own.val.double() / pool.temperature
    return logits_to_probs(measured, config.task), logits_to_probs(val, config.task)
