"""Calibration: how far probabilities are from frequencies, and the temperature that brings them nearer."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.evaluation.targets import checked_matrix, indicator, on_cpu
from diffmiczoo.prediction import logits_to_probs

#: Equal-width bins of the expected calibration error.
BINS = 15

#: Where `fit_temperature` searches.
TEMPERATURE_RANGE = (1e-3, 1e2)

#: Images with and without a label that a threshold for it needs.
LEAST_IMAGES = 5

# Halves the range of log T until it is smaller than the float's last digit.
_HALVINGS = 60


def fit_temperature(logits: Any, targets: Any, *, task: str) -> float:
    """Finds the temperature T with the smallest negative log-likelihood of logits / T on validation data.

    The likelihood is log-concave in 1/T, so its slope changes sign once, and halving log T finds that place; the same
    data give the same answer. Where logits tell the classes apart without an error there is no best T and the answer
    is the lower end of `TEMPERATURE_RANGE`; where logits and targets have nothing to do with each other, the upper.

    Args:
        logits: (N, C), what `diffmiczoo.prediction.score_logits` gives.
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
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _slope(logits, truth, task, math.exp(middle)) > 0:
            low = middle
        else:
            high = middle
    return min(max(math.exp((low + high) / 2), TEMPERATURE_RANGE[0]), TEMPERATURE_RANGE[1])


def fit_thresholds(probs: Any, targets: Any) -> tuple[float, ...]:
    """Finds for each label the probability from which giving it has the best F1 on validation data.

    Of equally good ones the one nearest to 0.5 is taken. A label that fewer than `LEAST_IMAGES` images show, or lack,
    keeps 0.5: what one or two images ask for is a guess, and often one that gives a rare label to everybody.

    Args:
        probs: (N, C) in [0, 1].
        targets: (N, C) of 0 and 1.

    Returns:
        C thresholds in (0, 1], for `DiffMICConfig.thresholds`.

    Raises:
        ValueError: there are no rows, or targets do not fit.

    Source: Lipton, Elkan, Narayanaswamy, *Optimal Thresholding of Classifiers to Maximize F1 Measure* (2014).
    """
    matrix = checked_matrix(probs, "probs")
    truth = indicator(targets, matrix.shape, "multilabel")
    return tuple(_best_threshold(matrix[:, label], truth[:, label]) for label in range(matrix.shape[1]))


def _best_threshold(probs: Tensor, truth: Tensor) -> float:
    shown = int(truth.sum())
    if min(shown, len(truth) - shown) < LEAST_IMAGES:
        return 0.5
    ordered, order = probs.sort()
    # Between two neighbours, so that neither lies on the edge.
    values = ordered.unique()
    candidates = torch.cat([torch.tensor([0.5]).double(), (values[1:] + values[:-1]) / 2])
    candidates = candidates[candidates > 0]
    positives = truth[order].double().flip(0).cumsum(0).flip(0)
    start = torch.searchsorted(ordered, candidates)
    hits = torch.cat([positives, torch.zeros(1).double()])[start]
    f1 = 2 * hits / (truth.sum() + (len(probs) - start))
    best = candidates[f1 >= f1.max() - 1e-12]
    return float(best[(best - 0.5).abs().argmin()])


def _slope(logits: Tensor, truth: Tensor, task: str, temperature: float) -> float:
    """Returns the derivative of the summed negative log-likelihood by 1/T, which grows with 1/T."""
    return float(((logits_to_probs(logits / temperature, task) - truth) * logits).sum())


def expected_calibration_error(confidence: Any, outcome: Any, bins: int = BINS) -> float:
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
        raise ValueError(f"confidence and outcome have shapes {shapes}; expected (N,) both, N ≥ 1")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise ValueError("confidence has values that are NaN or outside [0, 1]")
    if bins < 1:
        raise ValueError(f"bins={bins} must be at least 1")
    gaps = torch.zeros(bins, dtype=torch.float64).index_add(0, bin_of(confidence, bins), outcome - confidence)
    return float(gaps.abs().sum() / len(confidence))


def bin_of(confidence: Tensor, bins: int = BINS) -> Tensor:
    """Returns the place 0..bins-1 of the equal-width bin that holds each confidence in [0, 1]; same shape."""
    return (confidence * bins).long().clamp(max=bins - 1)
