"""Calibration: how far probabilities are from frequencies, and the temperature that brings them nearer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.checks import Values, checked_matrix, indicator, on_cpu
from diffmiczoo.metrics.definitions import BINS, calibration_gaps

#: Where `fit_temperature` searches.
TEMPERATURE_RANGE = (1e-3, 1e2)

#: Images with and without a label that a threshold for it needs.
LEAST_IMAGES = 5

#: Where `fit_pool` searches for the prior weight ends.
LARGEST_WEIGHT = 10.0

#: With so many validation images they and the probabilities before calibration count the same; with twice as many these
#: count a quarter. docs/experiments/calibration-few.md has the measurements.
EVEN_IMAGES = 13

#: From so many images on the probabilities before calibration count for less than a sixteenth: nothing need be said.
ENOUGH_IMAGES = 4 * EVEN_IMAGES

# Halves a range until it is smaller than any use of it: ten digits of T, six of the prior weight.
_HALVINGS, _HALVINGS_OF_WEIGHT = 40, 24


def fit_temperature(logits: Values, targets: Values, *, task: str, pseudo_images: float = 0.0) -> float:
    """Finds the temperature T with the smallest negative log-likelihood of logits / T on validation data.

    The likelihood is log-concave in 1/T, so its slope changes sign once, and halving log T finds that place; the same
    data give the same result. Where logits tell the classes apart without an error there is no best T and the answer
    is the lower end of `TEMPERATURE_RANGE`; where logits and targets have nothing to do with each other, the upper.

    Args:
        logits: (N, C), what `diffmiczoo.inference.probabilities.score_logits` gives.
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel".
        task: "multiclass" or "multilabel".
        pseudo_images: how many images count besides, see `_shrunk`.

    Returns:
        T in `TEMPERATURE_RANGE`, for `DiffMICConfig.temperature`.

    Raises:
        ValueError: there are no rows, logits are not finite, or targets do not fit.

    Source: Guo et al., *On Calibration of Modern Neural Networks* (ICML 2017), section 4.2.
    """
    logits = checked_matrix(logits, "logits")
    truth = _shrunk(indicator(targets, logits.shape, task).double(), logits, task, pseudo_images)
    return _best_temperature(logits, torch.zeros_like(logits), truth, task)


def fit_pool(
    logits: Values, dcg_logits: Values, targets: Values, *, task: str, pseudo_images: float = 0.0
) -> tuple[float, float]:
    """Finds the temperature T and the prior weight w with the smallest negative log-likelihood of logits / T + w · d.

    A model that has seen its training images and a DCG that has seen the same ones err in different places; the sum of
    their logarithms is more often right about how sure to be than either. The likelihood is log-concave in 1/T and w
    together, so at each w's best T its slope by w changes sign once, and halving finds that place. Where w does not
    matter the result is 0.

    Args:
        logits: (N, C), what `diffmiczoo.inference.probabilities.score_logits` gives.
        dcg_logits: (N, C), d = 0.5 · (ŷ_g + ŷ_l), the DCG's own logits.
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel".
        task: "multiclass" or "multilabel".
        pseudo_images: how many images count besides, see `_shrunk`.

    Returns:
        T in `TEMPERATURE_RANGE` and w in 0..`LARGEST_WEIGHT`, for `DiffMICConfig.temperature` and `prior_weight`.

    Raises:
        ValueError: there are no rows, logits are not finite or have different shapes, or targets do not fit.
    """
    logits, prior = checked_matrix(logits, "logits"), checked_matrix(dcg_logits, "dcg_logits")
    if logits.shape != prior.shape:
        raise InvalidValueError(f"logits and dcg_logits have shapes {tuple(logits.shape)} and {tuple(prior.shape)}")
    truth = _shrunk(indicator(targets, logits.shape, task).double(), logits, task, pseudo_images)

    # Sums of so many numbers are no nearer to 0 than this where they should be 0.
    noise = 1e-9 * float(prior.abs().sum())

    def gains(weight: float) -> bool:
        temperature = _best_temperature(logits, weight * prior, truth, task)
        return _slope(prior, logits / temperature + weight * prior, truth, task) < -noise

    weight = _sign_change(gains, 0.0, LARGEST_WEIGHT, _HALVINGS_OF_WEIGHT) if gains(0.0) else 0.0
    return _best_temperature(logits, weight * prior, truth, task), weight


def fit_calibration(scores: Tensor, dcg_logits: Tensor, targets: Values, config: DiffMICConfig) -> dict[str, float]:
    """Finds the fields of a config that turn scores into calibrated probabilities, on validation data.

    Few images are told apart without an error by chance, and then the best T is 0: certainty about everything. So the
    probabilities before calibration count as `pseudo_images` of the images besides.

    Args:
        scores: (N, C) of the model, as `diffmiczoo.inference.prediction.Prediction` holds them.
        dcg_logits: (N, C) of its DCG.
        targets: (N,) class indices for "multiclass", (N, C) of 0 and 1 for "multilabel".
        config: the model's; only a diffusion is pooled with the DCG.

    Returns:
        "temperature", and for a diffusion "prior_weight".

    Raises:
        ValueError: there are no rows, scores are not finite, or targets do not fit.
    """
    logits = score_logits(scores, config)
    few = pseudo_images(len(logits))
    if config.predictor != "diffusion":
        return {"temperature": fit_temperature(logits, targets, task=config.task, pseudo_images=few)}
    temperature, prior_weight = fit_pool(logits, dcg_logits, targets, task=config.task, pseudo_images=few)
    return {"temperature": temperature, "prior_weight": prior_weight}


def pseudo_images(images: int) -> float:
    """Returns how many images the probabilities before calibration count as, beside so many validation images."""
    return EVEN_IMAGES**2 / max(images, 1)


def calibration_sentence(counts: Mapping[str, int], images: int) -> str:
    """Says how many validation images calibrate how many classes, and what follows where they are few.

    Args:
        counts: class → validation images that show it.
        images: of all of them.
    """
    shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:20])
    more = ", …" if len(counts) > 20 else ""
    several = ("image", "calibrates") if images == 1 else ("images", "calibrate")
    text = f"{images:,} validation {several[0]} ({shown}{more}) {several[1]} {len(counts)} classes"
    if images >= ENOUGH_IMAGES:
        return text
    return (
        f"{text}: few, so that the probabilities before calibration count as {pseudo_images(images):.0f} images "
        f"besides and hold them back; from {ENOUGH_IMAGES} images on they hardly count"
    )


def _shrunk(truth: Tensor, logits: Tensor, task: str, pseudo_images: float) -> Tensor:
    """Adds to the truth (N, C) of N images that of `pseudo_images` more, which are as the logits at T = 1 say.

    Each image is given the label that it has, and with a weight of pseudo_images / N each label with the probability
    before calibration. The likelihood of both stays log-concave in 1/T and w; it is largest at T = 1 and w = 0 without
    images, has no end at T = 0 where few images are told apart without an error, and is the plain one for large N.
    """
    weight = pseudo_images / len(truth)
    return (truth + weight * logits_to_probs(logits, task)) / (1 + weight)


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
