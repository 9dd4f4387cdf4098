"""Calibration: how far probabilities are from frequencies, and the temperature that brings them nearer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.checks import Values, checked_matrix, indicator, on_cpu
from diffmiczoo.metrics.definitions import BINS, calibration_gaps
from diffmiczoo.metrics.pool import TEMPERATURE_RANGE, fit_pool

#: Images with and without a label that a threshold for it needs.
LEAST_IMAGES = 5

#: With so many validation images they and the state before calibration count the same; with twice as many that counts
#: a quarter. docs/experiments/calibration-few.md has the measurements.
EVEN_IMAGES = 8

#: With fewer validation images nothing is calibrated: more than one time in twenty that would do harm, whatever the
#: number of classes, as all of them share the factors.
LEAST_TO_CALIBRATE = 12

#: From so many images on the state before calibration counts for less than a sixteenth: nothing need be said.
ENOUGH_IMAGES = 4 * EVEN_IMAGES

# Halves a range until it is smaller than any use of it: ten digits of T.
_HALVINGS = 40


def fit_temperature(logits: Values, targets: Values, *, task: str) -> float:
    """Finds the temperature T with the smallest negative log-likelihood of logits / T on validation data.

    The likelihood is log-concave in 1/T, so its slope changes sign once, and halving log T finds that place; the same
    data give the same result. Where logits tell the classes apart without an error there is no best T and the answer
    is the lower end of `TEMPERATURE_RANGE`; where logits and targets have nothing to do with each other, the upper.

    Args:
        logits: (N, C), what `diffmiczoo.inference.probabilities.score_logits` gives.
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel".
        task: "multiclass" or "multilabel".

    Returns:
        T in `TEMPERATURE_RANGE`, for `DiffMICConfig.temperature`.

    Raises:
        ValueError: there are no rows, logits are not finite, or targets do not fit.

    Source: Guo et al., *On Calibration of Modern Neural Networks* (ICML 2017), section 4.2.
    """
    logits = checked_matrix(logits, "logits")
    truth = indicator(targets, logits.shape, task).double()
    return _best_temperature(logits, torch.zeros_like(logits), truth, task)


def fit_calibration(scores: Tensor, members: Tensor, targets: Values, config: DiffMICConfig) -> dict[str, Any]:
    """Finds the fields of a config that turn scores into calibrated probabilities, on validation data.

    Few images are told apart without an error by chance, and then the best T is 0: certainty about everything. So
    what was before calibration holds the factors back as `pseudo_images` images would, and below `LEAST_TO_CALIBRATE`
    there is no calibration at all.

    Args:
        scores: (N, C) of the model, as `diffmiczoo.inference.prediction.Prediction` holds them.
        members: (N, M, C) logits of ŷ_g, ŷ_l and, where there is one, ŷ_F, as `Prediction.members` holds them.
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel".
        config: the model's. A diffusion's scores are pooled with both priors, a DCG's priors with each other; all
            others have a temperature only.

    Returns:
        "temperature", where there are two priors "prior_weight", and with a classifier on F "feature_weight";
        nothing where there are too few images.

    Raises:
        ValueError: there are no rows, scores are not finite, or targets do not fit.
    """
    logits, few = score_logits(scores, config), pseudo_images(len(scores))
    if len(logits) < LEAST_TO_CALIBRATE:
        return {}
    own = None if config.predictor == "dcg" else logits
    added = members if config.predictor in ("diffusion", "dcg") else members[:, :0]
    pool = fit_pool(own, added, targets, task=config.task, pseudo_images=few)
    if not pool.weights:
        return {"temperature": pool.temperature}
    if own is None and not any(pool.weights):
        # No weight would mean equal ones.
        return {"temperature": TEMPERATURE_RANGE[1]}
    fitted: dict[str, Any] = {"temperature": pool.temperature, "prior_weight": pool.weights[:2]}
    return {**fitted, "feature_weight": pool.weights[2]} if len(pool.weights) > 2 else fitted


def pseudo_images(images: int) -> float:
    """Returns how many images the state before calibration counts as, beside so many validation images."""
    return EVEN_IMAGES**2 / max(images, 1)


def calibration_sentence(counts: Mapping[str, int], images: int) -> str:
    """Says how many validation images calibrate how many classes, and what follows where they are few.

    Args:
        counts: class → validation images that show it.
        images: of all of them.
    """
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:20])
    more = ", …" if len(counts) > 20 else ""
    text = f"{images:,} validation image{'' if images == 1 else 's'} ({shown}{more})"
    if images < LEAST_TO_CALIBRATE:
        return (
            f"{text} are too few to calibrate {len(counts)} classes: probabilities stay as they are before "
            f"calibration, a ranking only; take at least {LEAST_TO_CALIBRATE}, better {ENOUGH_IMAGES}"
        )
    text += f" calibrate {len(counts)} classes"
    if images >= ENOUGH_IMAGES:
        return text
    return (
        f"{text}: few, so that the probabilities before calibration count as {pseudo_images(images):.0f} images "
        f"besides and hold them back; from {ENOUGH_IMAGES} images on they hardly count"
    )


def _best_temperature(logits: Tensor, offset: Tensor, truth: Tensor, task: str) -> float:
    """Returns the T of the smallest negative log-likelihood of logits / T + offset."""

    def gains(log_t: float) -> bool:
        return _slope(logits, logits / math.exp(log_t) + offset, truth, task) > 0

    low, high = TEMPERATURE_RANGE
    return min(max(math.exp(_sign_change(gains, math.log(low), math.log(high), _HALVINGS)), low), high)


def _sign_change(gains: Callable[[float], bool], low: float, high: float, halvings: int) -> float:
    """Returns the place from which on a larger value gains nothing."""
    for _ in range(halvings):
        middle = (low + high) / 2
        low, high = (middle, high) if gains(middle) else (low, middle)
    return (low + high) / 2


def fit_thresholds(probs: Values, targets: Values, *, pseudo_images: float = 0.0) -> tuple[float, ...]:
    """Finds for each label the probability from which giving it has the best F1 on validation data.

    Of equally good ones the one nearest to 0.5 is taken. A label that fewer than `LEAST_IMAGES` images show, or lack,
    keeps 0.5: what one or two images ask for is a guess, and often one that gives a rare label to everybody.

    Args:
        probs: (N, C) in [0, 1].
        targets: (N, C) of 0 and 1.
        pseudo_images: how many images count besides, with labels as `probs` say.

    Returns:
        C thresholds in (0, 1], for `DiffMICConfig.thresholds`.

    Raises:
        ValueError: there are no rows, or targets do not fit.

    Source: Lipton, Elkan, Narayanaswamy, *Optimal Thresholding of Classifiers to Maximize F1 Measure* (2014).
    """
    matrix = checked_matrix(probs, "probs")
    truth = indicator(targets, matrix.shape, "multilabel").double()
    share = pseudo_images / len(matrix)
    shrunk = (truth + share * matrix) / (1 + share)
    shown = truth.sum(0)
    enough = torch.minimum(shown, len(truth) - shown) >= LEAST_IMAGES
    return tuple(
        _best_threshold(matrix[:, label], shrunk[:, label]) if enough[label] else 0.5 for label in range(len(enough))
    )


def _best_threshold(probs: Tensor, truth: Tensor) -> float:
    ordered, order = probs.sort()
    # Between two neighbours, so that neither lies on the edge.
    values = ordered.unique()
    candidates = torch.cat([torch.tensor([0.5]).double(), (values[1:] + values[:-1]) / 2])
    candidates = candidates[candidates > 0]
    positives = truth[order].flip(0).cumsum(0).flip(0)
    start = torch.searchsorted(ordered, candidates)
    hits = torch.cat([positives, torch.zeros(1).double()])[start]
    f1 = 2 * hits / (truth.sum() + (len(probs) - start))
    best = candidates[f1 >= f1.max() - 1e-12]
    return float(best[(best - 0.5).abs().argmin()])


def _slope(part: Tensor, logits: Tensor, truth: Tensor, task: str) -> float:
    """Returns the derivative of the summed negative log-likelihood by the factor that `part` has in `logits`."""
    return float(((logits_to_probs(logits, task) - truth) * part).sum())


def expected_calibration_error(confidence: Values, outcome: Values, bins: int = BINS) -> float:
    """Measures how far confidence is from frequency: Σ_bins share · |mean outcome - mean confidence|.

    Args:
        confidence: (N,) probabilities in [0, 1]; of the most probable class, or of one label.
        outcome: (N,) whether that class was right, or whether the label was there.
        bins: number of equal-width bins [k / bins, (k + 1) / bins); the last one includes 1.

    Returns:
        0 (perfect) to 1.

    Raises:
        ValueError: lengths differ, there are none, a confidence is outside [0, 1], or `bins` is less than 1.

    Source: Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian Binning* (AAAI 2015).
    """
    confidence, outcome = (on_cpu(values).double() for values in (confidence, outcome))
    if confidence.ndim != 1 or confidence.shape != outcome.shape or not len(confidence):
        shapes = f"{tuple(confidence.shape)} and {tuple(outcome.shape)}"
        raise InvalidValueError(f"confidence and outcome have shapes {shapes}; expected (N,) both, N ≥ 1")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InvalidValueError("confidence has values that are NaN or outside [0, 1]")
    if bins < 1:
        raise InvalidValueError(f"bins={bins} must be at least 1")
    gaps = calibration_gaps(confidence.numpy()[:, None], outcome.numpy()[:, None], bins).sum(0)
    return float(np.abs(gaps).sum() / len(confidence))
