"""What each metric is: a function of weighted images; `diffmiczoo.metrics.table` lists them.

Each function takes `WeightedImages` with R weightings and returns (R,), or (R, C) for one value per class; NaN where
the images do not define it.
"""

from __future__ import annotations

import numpy as np

from diffmiczoo.metrics.weighted import ScoredImages, WeightedImages, mean_of_defined, ratio

#: Equal-width bins of the expected calibration error.
BINS = 15

_EPS = float(np.finfo(np.float64).eps)


# ---------------------------------------------------------------------- means over the images


def accuracy(images: WeightedImages) -> np.ndarray:
    """Returns the share of images whose most probable class is right; multi-label: of right decisions on labels."""
    return images.mean(right_per_image)


def nll(images: WeightedImages) -> np.ndarray:
    """Returns the mean of -log p of the truth; multi-label: over all labels."""
    return images.mean(nll_per_image)


def brier(images: WeightedImages) -> np.ndarray:
    """Returns the mean of Σ_c (p_c - y_c)², 0..2; multi-label: of (p - y)² over all labels, 0..1."""
    return images.mean(brier_per_image)


def right_per_image(images: ScoredImages) -> np.ndarray:
    """Returns 1 for each image that is right and 0 for the others, (N,); multi-label: the share of right decisions."""
    if images.task == "multiclass":
        return (images.decisions & images.truth).any(1).astype(np.float64)
    return (images.decisions == images.truth).mean(1)


def nll_per_image(images: ScoredImages) -> np.ndarray:
    """Returns -log p of each image's class, (N,); multi-label: the mean over the labels. p is at least 2⁻⁵²."""
    if images.task == "multiclass":
        return -np.log(np.maximum((images.probs * images.truth).sum(1), _EPS))
    of_truth = np.where(images.truth, images.probs, 1 - images.probs)
    return -np.log(np.maximum(of_truth, _EPS)).mean(1)


def brier_per_image(images: ScoredImages) -> np.ndarray:
    """Returns Σ_c (p_c - y_c)² of each image, (N,); multi-label: the mean over the labels."""
    squares = np.square(images.probs - images.truth)
    return squares.sum(1) if images.task == "multiclass" else squares.mean(1)


# ---------------------------------------------------------------------- decisions


def recall_by_class(images: WeightedImages) -> np.ndarray:
    """Returns the share of a class's images that are given it; NaN without any."""
    return ratio(images.hits, images.support)


def precision_by_class(images: WeightedImages) -> np.ndarray:
    """Returns the share of the images given a class that have it; NaN without any."""
    return ratio(images.hits, images.decided)


def f1_by_class(images: WeightedImages) -> np.ndarray:
    """Returns the harmonic mean of recall and precision; NaN for a class that no image has or is given."""
    return ratio(2 * images.hits, images.support + images.decided)


def balanced_accuracy(images: WeightedImages) -> np.ndarray:
    """Returns the mean recall over the classes that images have."""
    return mean_of_defined(recall_by_class(images))


def macro_f1(images: WeightedImages) -> np.ndarray:
    """Returns the mean F1 over classes that images have or are given; multi-label: over labels with both kinds."""
    f1 = f1_by_class(images)
    return mean_of_defined(f1 if images.images.task == "multiclass" else np.where(images.both_kinds, f1, np.nan))


def quadratic_kappa(images: WeightedImages) -> np.ndarray:
    """Returns Cohen's κ with quadratic weights, 1 - Σ d² · observed / Σ d² · expected by chance, for ordered classes.

    Source: Cohen, *Weighted kappa*, Psychological Bulletin 70 (1968).
    """
    confusion = images.confusion
    grades = np.arange(confusion.shape[-1])
    distance = np.square(grades[:, None] - grades)
    expected = confusion.sum(2)[:, :, None] * confusion.sum(1)[:, None]
    total = confusion.sum((1, 2))
    return 1 - ratio((distance * confusion).sum((1, 2)) * total, (distance * expected).sum((1, 2)))


# ---------------------------------------------------------------------- rankings


def auroc_by_class(images: WeightedImages) -> np.ndarray:
    """Returns P(probability of a positive > of a negative) + P(equal) / 2; NaN without images of both kinds."""
    return images.ranked(area_under_roc)


def average_precision_by_class(images: WeightedImages) -> np.ndarray:
    """Returns Σ_thresholds (step in recall) · precision; NaN without images of both kinds."""
    return images.ranked(average_precision_of)


def auroc(images: WeightedImages) -> np.ndarray:
    """Returns the mean AUROC of one class against the rest, over the classes with images of both kinds."""
    return mean_of_defined(auroc_by_class(images))


def average_precision(images: WeightedImages) -> np.ndarray:
    """Returns the mean average precision over the labels with images of both kinds."""
    return mean_of_defined(average_precision_by_class(images))


def area_under_roc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns the area, (R,), of `Ranking.counts`, (U, R) both."""
    above = np.cumsum(positives, axis=0) - positives / 2
    return ratio((above * negatives).sum(0), positives.sum(0) * negatives.sum(0))


def average_precision_of(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Returns the average precision, (R,), of `Ranking.counts`, (U, R) both."""
    hits = np.cumsum(positives, axis=0)
    precision = hits / np.maximum(np.cumsum(positives + negatives, axis=0), 1)
    return ratio((positives * precision).sum(0), positives.sum(0))


# ---------------------------------------------------------------------- calibration


def calibration_error(images: WeightedImages) -> np.ndarray:
    """Returns Σ_bins share · |mean outcome - mean confidence| of the most probable class; multi-label: of all labels.

    Source: Naeini et al., *Obtaining Well Calibrated Probabilities Using Bayesian Binning* (AAAI 2015).
    """
    decisions = 1 if images.images.task == "multiclass" else images.images.probs.shape[1]
    return np.abs(images.sums(_gaps_per_image)).sum(1) / (images.total * decisions)


def _gaps_per_image(images: ScoredImages) -> np.ndarray:
    if images.task == "multilabel":
        return calibration_gaps(images.probs, images.truth)
    index = images.probs.argmax(1)[:, None]
    confidence = np.take_along_axis(images.probs, index, axis=1)
    return calibration_gaps(confidence, np.take_along_axis(images.truth, index, axis=1))


def calibration_gaps(confidence: np.ndarray, outcome: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Returns outcome - confidence of each image in the bin of its confidence, summed over D decisions, (N, bins).

    Args:
        confidence: (N, D) in [0, 1].
        outcome: (N, D), whether what is so probable is true.
        bins: number of equal-width bins [k / bins, (k + 1) / bins); the last one includes 1.
    """
    gaps = np.zeros((len(confidence), bins))
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    np.add.at(gaps, (np.arange(len(confidence))[:, None], places), outcome - confidence)
    return gaps
