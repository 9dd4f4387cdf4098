"""From scores to probabilities: calibration, pooling with the DCG, and how much a probability says."""

from __future__ import annotations

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError

#: Temperature of a model for which none was fitted: a score is taken as the probability that it estimates.
UNCALIBRATED_TEMPERATURE = 1.0

#: Scores below about this size are noise of the sampler; docs/experiments/probabilities.md has the measurements.
SCORE_NOISE = 0.05


def scores_to_probs(scores: Tensor, config: DiffMICConfig, members: Tensor | None = None) -> Tensor:
    """Turns scores into probabilities, with the config's temperature (or `UNCALIBRATED_TEMPERATURE`) and weights.

    Args:
        scores: (B, C) means of the ŷ_0 map over its points, about 0..1.
        config: the model's, for `task`, `num_classes`, `predictor`, `temperature`, `pool_weights`, `class_offsets`.
        members: (B, M, C) logits of what is added to the scores: ŷ_g and ŷ_l; needed where a weight is not 0.

    Returns:
        (B, C) in [0, 1], at least float32: softmax (multi-label: sigmoid) of `score_logits` / T + Σ_m w_m · member m
        + class offsets. Where the DCG predicts alone and has weights, of the sum of the members alone: its scores are
        no more than their mean. Rows sum to 1 for "multiclass", each label is for itself for "multilabel".

    Raises:
        ValueError: a shape is not (B, C), or `members` are missing or others than the weights.

    Source: Guo et al., *On Calibration of Modern Neural Networks* (ICML 2017), section 4.2; the sum is a logarithmic
    opinion pool, Genest and Zidek, *Combining Probability Distributions* (Statistical Science 1986), section 3.
    """
    if scores.ndim != 2 or scores.shape[1] != config.num_classes:
        raise InvalidValueError(f"expected scores of shape (B, {config.num_classes}), found {tuple(scores.shape)}")
    temperature = UNCALIBRATED_TEMPERATURE if config.temperature is None else config.temperature
    logits, weights = score_logits(scores, config) / temperature, config.pool_weights
    if not any(weights):
        return logits_to_probs(_with_offsets(logits, config), config.task)
    if members is None:
        raise InvalidValueError(f"prior_weight={config.prior_weight} needs members, the logits of ŷ_g, ŷ_l, …")
    # Not len(scores), which would fix the batch size of an exported program.
    if members.shape != (scores.shape[0], len(weights), config.num_classes):
        shape = f"({len(scores)}, {len(weights)}, {config.num_classes})"
        raise InvalidValueError(f"expected members of shape {shape}, found {tuple(members.shape)}")
    if config.predictor == "dcg":
        logits = torch.zeros_like(logits)
    for weight, member in zip(weights, members.unbind(1), strict=True):
        logits = logits + weight * member
    return logits_to_probs(_with_offsets(logits, config), config.task)


def _with_offsets(logits: Tensor, config: DiffMICConfig) -> Tensor:
    return logits + logits.new_tensor(config.class_offsets) if config.class_offsets else logits


def score_logits(scores: Tensor, config: DiffMICConfig) -> Tensor:
    """Takes the logarithm of scores as of probabilities, smoothly bounded where they are negative.

    The model regresses one-hot labels, so a score estimates a probability and a softmax of it would rank images by
    their other scores too. "multiclass": log softplus(ŷ / `SCORE_NOISE`). "multilabel": the same less that of 1 - ŷ.
    Where the DCG predicts alone, its scores are logits already.

    Args:
        scores: (B, C) means of the ŷ_0 map, about 0..1.
        config: the model's, for `task` and `predictor`.

    Returns:
        (B, C) logits, at least float32.
    """
    # Half precision would keep two to three digits, and users compare probabilities.
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if config.predictor != "diffusion":
        return scores
    if config.task == "multiclass":
        return _log_softplus(scores / SCORE_NOISE)
    return _log_softplus(scores / SCORE_NOISE) - _log_softplus((1 - scores) / SCORE_NOISE)


def _log_softplus(x: Tensor) -> Tensor:
    # softplus(x) = eˣ to the last digit below -40, where taking its logarithm would underflow.
    return torch.where(x < -40, x, torch.nn.functional.softplus(x.clamp(min=-40)).log())


def logits_to_probs(logits: Tensor, task: str) -> Tensor:
    """Returns softmax ("multiclass") or sigmoid ("multilabel") of logits (B, C)."""
    return logits.softmax(-1) if task == "multiclass" else logits.sigmoid()


def uncertainty(probs: Tensor, task: str) -> Tensor:
    """Measures how probable a mistake is by the model's own word: 0 = sure, 1 = knows nothing.

    "multiclass": (1 - max_c p_c) · C / (C - 1). "multilabel": twice the mean over the labels of min(p, 1 - p). It ranks
    errors better than the entropy does and than the spread of the sampler's runs (docs/trust.md). It does not tell
    whether an image is of a kind that the model never saw, and is only as good as the probabilities' calibration.

    Args:
        probs: (B, C) in [0, 1], C ≥ 2.
        task: "multiclass" or "multilabel".

    Returns:
        (B,) in [0, 1].
    """
    if task == "multiclass":
        classes = probs.shape[-1]
        return ((1 - probs.max(-1).values) * (classes / (classes - 1))).clamp(0, 1)
    return (2 * torch.minimum(probs, 1 - probs).mean(-1)).clamp(0, 1)
