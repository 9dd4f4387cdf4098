"""What weights know about their limits: fitted on validation pictures, measured on test and foreign ones."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.classes import match_classes
from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.members import MemberLogits, collect_members
from diffmiczoo.metrics.held_back import HeldBack
from diffmiczoo.metrics.trust import DeferralOutcome, SetCoverage, TrustReport
from diffmiczoo.model import DiffMICv2
from diffmiczoo.trust.arrays import coverage_band, groups_needed
from diffmiczoo.trust.conformal import ALPHAS
from diffmiczoo.trust.gate import fit_gate
from diffmiczoo.trust.selective import aurc, risk_coverage
from diffmiczoo.trust.stored import Trust

#: Training images that a gate's covariance is computed from.
MOST_TRAINING = 2000

#: Errors whose deferral is measured.
ERRORS = (0.02, 0.05, 0.1, 0.2)


class Known(HeldBack):
    """What a model says of the labelled pictures of a manifest."""

    @classmethod
    def of(cls, members: MemberLogits, manifest: Manifest, config: DiffMICConfig) -> HeldBack:
        """Returns what members say of the pictures of a manifest, with the config's calibration and decision rule."""
        return cls.of_images(members.probs(config), members.targets, members.features, manifest, config)

    @classmethod
    def of_images(
        cls, probs: Tensor, targets: Tensor, features: Tensor, manifest: Manifest, config: DiffMICConfig
    ) -> HeldBack:
        """Returns the same from probabilities (N, C), targets and features (N, H) of the pictures of a manifest."""
        groups = manifest.groups()
        numbers = np.arange(len(probs)) if groups is None else group_numbers(groups)[0]
        return cls.from_probs(probs, targets, numbers, config, features)


def fit_limits(model: DiffMICv2, data: Any, *, progress: bool | None = None) -> Trust:
    """Fits what weights know about their limits, and gives it to the model; `save_pretrained` stores it with them.

    The model predicts at most `MOST_TRAINING` images of the split "train" and all of "val"; its weights stay as they
    are. Call it after the last change of weights, calibration or sampling, which it is fitted for.

    Args:
        model: trained and calibrated.
        data: anything that `fit` takes, with the splits that the model was trained with.
        progress: show bars; by default where the standard error is a terminal.

    Returns:
        The model's `trust`.

    Raises:
        ValueError: the data have no such splits, or their classes are not the model's.
        ImageError: an image cannot be read.
    """
    manifest = as_manifest(data, class_names=model.config.class_names or None, task=model.config.task)
    training = some_of(manifest.split("train"), MOST_TRAINING)
    val = match_classes(manifest.split("val"), model.config)
    known = Known.of(collect_members(model, val, progress=progress, features=True), val, model.config)
    features = collect_members(model, training, progress=progress, features=True).features
    model.trust = fit_trust(model.config, features, known)
    return model.trust


def some_of(manifest: Manifest, most: int) -> Manifest:
    """Returns at most so many images of a manifest, drawn the same each time."""
    records = list(manifest.records)
    return manifest.with_records(random.Random(0).sample(records, min(most, len(records))))


def fit_trust(config: DiffMICConfig, training_features: Tensor, held_back: HeldBack) -> Trust:
    """Fits gate, sets and deferral of a model.

    Args:
        config: of the model, with its calibration.
        training_features: (N, H) F of training pictures; (0, H) or (N, 0) for no gate.
        held_back: validation pictures: no training has seen them.

    Returns:
        What weights are stored with; the gate is None where there are too few validation groups.

    Raises:
        ValueError: an array has values that are not finite.
    """
    gate, foreign = None, None
    if training_features.numel() and held_back.features.shape[1]:
        gate = fit_gate(training_features.numpy(), held_back.features, held_back.groups)
    if gate is not None:
        foreign = gate.score(held_back.features) > 1
    return held_back.trust(config, gate, foreign)


def measure_trust(
    trust: Trust, config: DiffMICConfig, test: HeldBack, foreign: Mapping[str, Tensor] | None = None
) -> TrustReport:
    """Measures on test pictures, and on pictures of other kinds.

    Args:
        trust: fitted for the same model.
        config: the model's.
        test: pictures that neither training nor calibration has seen.
        foreign: name → (N, H) features F of pictures of another kind.

    Raises:
        ValueError: features are of another model.
    """
    kept, band, flagged = None, None, dict[str, tuple[float, int]]()
    inside = np.ones(len(test.probs), dtype=bool)
    if trust.gate is not None:
        inside = trust.gate.score(test.features) <= 1
        kept = float(inside.mean())
        band = coverage_band(trust.gate.groups, len(inside), 1 - trust.gate.keep)
        for name, features in (foreign or {}).items():
            flagged[name] = (float((trust.gate.score(features.numpy()) > 1).mean()), len(features))
    sets = [_coverage(trust, config, test, alpha, by_class) for alpha in ALPHAS for by_class in (False, True)]
    least = None if trust.deferral is None else trust.deferral.least()
    return TrustReport(
        kept,
        band,
        flagged,
        tuple(each for each in sets if each is not None),
        tuple(_outcome(trust, test, inside, error) for error in ERRORS),
        aurc(test.uncertainty, test.wrong),
        _risks(test),
        None if least == 1.0 else least,
    )


def _coverage(trust: Trust, config: DiffMICConfig, test: HeldBack, alpha: float, by_class: bool) -> SetCoverage | None:
    if trust.sets is None:
        return None
    inside = trust.sets.contains(test.probs, alpha, by_class=by_class)
    hit, shown = inside & test.truth, test.truth.any(1)
    classes = {}
    for number, name in enumerate(config.labels):
        count, groups = int(test.truth[:, number].sum()), trust.sets.class_groups[number]
        if count:
            band = _band(groups, count, alpha) if by_class else None
            classes[name] = (float(hit[:, number].sum() / count), band)
    covered = float((hit.sum(1)[shown] / test.truth[shown].sum(1)).mean())
    one = config.task == "multiclass" and not by_class
    band = _band(trust.sets.groups, int(shown.sum()), alpha) if one else None
    return SetCoverage(alpha, by_class, float(inside.sum(1).mean()), covered, band, classes)


def _band(groups: int, count: int, alpha: float) -> tuple[float, float] | None:
    return None if groups < groups_needed(alpha) else coverage_band(groups, count, alpha)


def _outcome(trust: Trust, test: HeldBack, inside: np.ndarray, error: float) -> DeferralOutcome:
    try:
        limit = -1.0 if trust.deferral is None else trust.deferral.step(error).limit
    except InvalidValueError:
        limit = -1.0
    kept = inside & (test.uncertainty <= limit)
    if limit < 0 or not kept.any():
        return DeferralOutcome(error, None, None, 0)
    return DeferralOutcome(error, float(1 - kept.mean()), float(test.wrong[kept].mean()), int(kept.sum()))


def _risks(test: HeldBack) -> tuple[float, ...]:
    risks, count = risk_coverage(test.uncertainty, test.wrong), len(test.wrong)
    return tuple(float(risks[max(round(count * tenth / 10), 1) - 1]) for tenth in range(1, 11))
