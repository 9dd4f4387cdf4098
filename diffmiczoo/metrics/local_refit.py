"""What is fitted to local pictures: calibration, decision rule, prediction sets, deferral, the gate's limit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.metrics.calibration import LEAST_IMAGES, fit_thresholds, pseudo_images
from diffmiczoo.metrics.checks import indicator
from diffmiczoo.metrics.decisions import fit_label_adjustment
from diffmiczoo.metrics.held_back import HeldBack
from diffmiczoo.metrics.local_fit import LocalPictures, fit_local_calibration, folds
from diffmiczoo.metrics.local_outcome import Outcome, changes
from diffmiczoo.metrics.recalibration import Change
from diffmiczoo.trust.arrays import group_shares, quantile
from diffmiczoo.trust.gate import Gate
from diffmiczoo.trust.stored import Trust

#: From so many groups (patients, lesions) on local pictures are fitted to; docs/experiments/recalibration.md.
LEAST_GROUPS = 50

#: Accuracy that a `label_adjustment` may cost where the weights have one.
_MOST_LOST = 0.01

# A limit is rounded to single precision with the distances that are compared with it.
_ROUNDING = 1e-6


@dataclass(frozen=True, eq=False)
class Refit:
    """What was fitted to local pictures.

    Attributes:
        config: with the new calibration.
        trust: what the weights know about their limits now.
        changes: before and after, on pictures that the fit did not see.
    """

    config: DiffMICConfig
    trust: Trust
    changes: tuple[Change, ...]


def refit(pictures: LocalPictures, config: DiffMICConfig, trust: Trust | None, *, resamples: int = 1000) -> Refit:
    """Fits calibration and limits to local pictures, and measures what that is worth on pictures that were left out.

    Where the new probabilities are no more likely for pictures that were left out, the present calibration stays, and
    only decision rule and limits are fitted. Sets and deferral are fitted to probabilities of pictures that the
    calibration was not fitted to: those of each fifth of the groups from a fit to the others.

    Args:
        pictures: labelled; no training has seen them.
        config: of the model, with the calibration that is to be replaced.
        trust: what goes with it.
        resamples: of the bootstrap, ≥ 1.

    Raises:
        ValueError: there are too few groups, or the labels tell nothing.
    """
    check_targets(pictures.targets, pictures.groups, config)
    found = _cross_fitted(pictures, config, trust, fit_local_calibration, resamples)
    gain = next(each.difference for each in found.changes if each.name == "nll")
    if gain is not None and gain[0] < 0:
        return found
    return _cross_fitted(pictures, config, trust, _present, resamples)


#: Labelled pictures and the present config → one with another calibration, the decision rule left.
_Calibrate = Callable[[LocalPictures, DiffMICConfig], DiffMICConfig]


def _present(pictures: LocalPictures, config: DiffMICConfig) -> DiffMICConfig:
    return config


def _cross_fitted(
    pictures: LocalPictures, config: DiffMICConfig, trust: Trust | None, calibrate: _Calibrate, resamples: int
) -> Refit:
    parts, probs = [], torch.empty(pictures.scores.shape, dtype=torch.float64)
    for left_out in folds(pictures.groups):
        rest, out = pictures.some(~left_out), pictures.some(left_out)
        own = fit_decisions(rest, calibrate(rest, config))
        parts.append((left_out, Outcome.of(out, own, fit_limits(rest, own, trust, rest.probs(own)))))
        probs[torch.from_numpy(left_out)] = out.probs(own).double()
    new = fit_decisions(pictures, calibrate(pictures, config))
    before, after = Outcome.of(pictures, config, trust), Outcome.assembled(parts)
    found = changes(before, after, np.unique(pictures.groups, return_inverse=True)[1], config.task, resamples)
    return Refit(new, fit_limits(pictures, new, trust, probs), found)


def check_targets(targets: Tensor, groups: np.ndarray, config: DiffMICConfig) -> None:
    """Refuses pictures that nothing can be learned from.

    Args:
        targets: (N,) class numbers, or (N, C) of 0 and 1.
        groups: (N,) numbers.
        config: the model's.

    Raises:
        ValueError: there are fewer than `LEAST_GROUPS` groups, all pictures are of one class, or none has a label.
    """
    check_groups(groups)
    count = len(groups)
    counts = indicator(targets, torch.Size((count, config.num_classes)), config.task).sum(0)
    if config.task == "multiclass" and int((counts > 0).sum()) < 2:
        name = config.labels[int(counts.argmax())]
        raise InvalidValueError(
            f"all {count:,} pictures are labelled {name!r}: how sure the model should be cannot be learned from one "
            "class; take pictures as they come"
        )
    if config.task == "multilabel" and not bool(((counts > 0) & (counts < count)).any()):
        raise InvalidValueError(
            f"every label is on all or on none of the {count:,} pictures: nothing can be learned from them; take "
            "pictures as they come"
        )


def check_groups(groups: np.ndarray) -> None:
    """Refuses pictures (N,) in fewer than `LEAST_GROUPS` groups.

    Raises:
        ValueError: there are fewer.
    """
    count = len(np.unique(groups))
    if count < LEAST_GROUPS:
        raise InvalidValueError(
            f"{len(groups):,} images in {count:,} groups (patients, lesions) are too few to recalibrate; at least "
            f"{LEAST_GROUPS} groups are needed: with fewer the new calibration may well be worse than the old one"
        )


def fit_decisions(pictures: LocalPictures, config: DiffMICConfig) -> DiffMICConfig:
    """Returns a config with the decision rule for its probabilities: the same kind of rule as before.

    Thresholds of labels that fewer than `LEAST_IMAGES` pictures show or lack stay as they were. A label adjustment is
    fitted anew where the weights have one.
    """
    probs = pictures.probs(config)
    if config.task == "multilabel":
        counts = pictures.truth(config).sum(0)
        enough = torch.minimum(counts, len(pictures) - counts) >= LEAST_IMAGES
        found = fit_thresholds(probs, pictures.targets, pseudo_images=pseudo_images(len(pictures)))
        known = config.thresholds or (0.5,) * config.num_classes
        return config.replace(
            thresholds=tuple(found[place] if enough[place] else known[place] for place in range(len(known)))
        )
    if not config.label_adjustment:
        return config
    return config.replace(label_adjustment=fit_label_adjustment(probs, pictures.targets, _MOST_LOST))


def fit_limits(pictures: LocalPictures, config: DiffMICConfig, trust: Trust | None, probs: Tensor) -> Trust:
    """Fits sets and deferral to probabilities (N, C) of local pictures, and the gate's limit to their distances."""
    known = HeldBack.from_probs(probs.double(), pictures.targets, pictures.groups, config)
    # Without distances it was not used: it is of another model, and would be taken for one of this.
    known_gate = None if trust is None or pictures.distances is None else trust.gate
    gate = None if known_gate is None else local_gate(pictures, known_gate)
    foreign = None
    if gate is not None and pictures.distances is not None:
        foreign = pictures.distances > gate.limit
    return known.trust(config, gate, foreign)


def local_gate(pictures: LocalPictures, gate: Gate) -> Gate:
    """Returns a gate that as many new local pictures pass as it was made for; as it is without distances."""
    if pictures.distances is None:
        return gate
    numbers = np.unique(pictures.groups, return_inverse=True)[1]
    limit = quantile(pictures.distances, group_shares(numbers), gate.keep)
    if limit is None or limit <= 0:
        return gate
    return dataclasses.replace(
        gate, limit=limit * (1 + _ROUNDING), pictures=len(pictures), groups=int(numbers.max()) + 1
    )
