"""Decision rules that are fitted on validation images: which label calibrated probabilities lead to."""

from __future__ import annotations

from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.inference.decisions import decide
from diffmiczoo.metrics.calibration import LEAST_IMAGES, LEAST_TO_CALIBRATE, fit_thresholds, pseudo_images
from diffmiczoo.metrics.checks import Values, checked_matrix, indicator

#: Strengths τ that are tried: 0 is the most probable class, 1 the best for balanced accuracy where probabilities are
#: right; more where they still lean to frequent classes.
STRENGTHS = tuple(step / 20 for step in range(31))


def fit_decision(probs: Values, targets: Values, config: DiffMICConfig, most_lost: float = 0.0) -> DiffMICConfig:
    """Returns a config with the decision rule that validation images ask for; with too few of them as it is.

    Args:
        probs: (N, C), calibrated.
        targets: see `fit_thresholds` and `fit_label_adjustment`.
        config: the model's.
        most_lost: accuracy that a "multiclass" model's labels may give up for balanced accuracy; 0 leaves the most
            probable class.
    """
    if len(checked_matrix(probs, "probs")) < LEAST_TO_CALIBRATE:
        return config
    if config.task == "multilabel":
        few = pseudo_images(len(checked_matrix(probs, "probs")))
        return config.replace(thresholds=fit_thresholds(probs, targets, pseudo_images=few))
    return config.replace(label_adjustment=fit_label_adjustment(probs, targets, most_lost) if most_lost else ())


def check_balance(balance_labels: float, task: str) -> None:
    """Raises for an accuracy that labels cannot give up.

    Raises:
        ValueError: it is no share, or a multi-label model's labels are to give it up.
    """
    if not 0 <= balance_labels <= 1:
        raise InvalidValueError(f"balance_labels={balance_labels} is outside 0.0..1.0")
    if balance_labels and task == "multilabel":
        raise InvalidValueError(
            f"balance_labels={balance_labels} is for one label out of several; each label of a multilabel model has a "
            "threshold of its own, fitted in any case"
        )


def fit_label_adjustment(probs: Values, targets: Values, most_lost: float = 0.01) -> tuple[float, ...]:
    """Finds offsets on log p with which labels have a better balanced accuracy, at a price in accuracy.

    The offset of a class is τ · log(largest share / its share) with its share of the images; with τ = 1 and right
    probabilities labels have the best balanced accuracy that there is, with τ = 0 the best accuracy. Of `STRENGTHS` the
    τ with the best balanced accuracy is taken among those that lose at most `most_lost` of accuracy: one number chosen
    from a line of them, where an offset for each class by itself would be fitted to the few images of the rare ones.

    Few images are a poor judge, so that the probabilities count as `pseudo_images` of them besides. A class that fewer
    than `LEAST_IMAGES` images show counts as one with so many: no label is preferred because nothing is known of it.

    Args:
        probs: (N, C) in [0, 1], calibrated; rows sum to 1.
        targets: (N,) class numbers.
        most_lost: 0..1, accuracy on these images that may be lost.

    Returns:
        C offsets ≥ 0, that of the most frequent class 0, for `DiffMICConfig.label_adjustment`; () where τ = 0.

    Raises:
        ValueError: there are no rows, or targets do not fit.

    Source: Menon et al., *Long-Tail Learning via Logit Adjustment*, ICLR 2021, section 4.1.
    """
    matrix = checked_matrix(probs, "probs")
    truth = indicator(targets, matrix.shape, "multiclass").double()
    counts = truth.sum(0).clamp(min=LEAST_IMAGES)
    offsets = (counts.max() / counts).log()
    weight = pseudo_images(len(matrix)) / len(matrix)
    judged = (truth + weight * matrix) / (1 + weight)
    found = [_qualities(matrix, judged, strength * offsets) for strength in STRENGTHS]
    affordable = [place for place, (accuracy, _) in enumerate(found) if accuracy >= found[0][0] - most_lost - 1e-12]
    # Of equally good ones the smallest.
    best = max(affordable, key=lambda place: (round(found[place][1], 12), -place))
    return tuple((STRENGTHS[best] * offsets).tolist()) if best else ()


def _qualities(probs: Tensor, truth: Tensor, offsets: Tensor) -> tuple[float, float]:
    """Returns accuracy and balanced accuracy of labels for a truth (N, C) whose rows sum to 1."""
    right = (decide(probs, "multiclass", label_adjustment=offsets.tolist()) * truth).sum(0)
    shown = truth.sum(0)
    recalls = right[shown > 0] / shown[shown > 0]
    return float(right.sum() / len(truth)), float(recalls.mean())
