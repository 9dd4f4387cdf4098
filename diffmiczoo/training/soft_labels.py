"""`SoftLabels`: labels that are not quite sure, for the DCG's cross-entropies.

Not for the diffusion: its scores estimate the mean of the labels, and that of labels of 0 and 1 is what
`scores_to_probs` turns into probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.recipe import Recipe


class SoftLabels:
    """Spreads labels over neighbouring grades, and then a share of them over all classes.

    Args:
        recipe: its `ordinal_smoothing` σ and its `label_smoothing` s.
        config: the model's.

    Source: Szegedy et al., *Rethinking the Inception Architecture*, CVPR 2016, section 7; for grades Diaz and Marathe,
    *Soft Labels for Ordinal Regression*, CVPR 2019, with squared distances.
    """

    def __init__(self, recipe: Recipe, config: DiffMICConfig) -> None:
        self.share = recipe.label_smoothing
        # Multi-class: one out of C; multi-label: each label is a class of its own, present or absent.
        self.even = 1 / config.num_classes if config.task == "multiclass" else 0.5
        self.neighbours = grade_kernel(config.num_classes, sigma) if (sigma := recipe.ordinal_smoothing) else None

    def __call__(self, labels: Tensor) -> Tensor:
        """Maps labels (B, C) of 0..1 to soft ones; the sum of a row stays what it was for "multiclass"."""
        if self.neighbours is not None:
            labels = labels @ self.neighbours.to(labels)
        return labels * (1 - self.share) + self.share * self.even if self.share else labels


def grade_kernel(grades: int, sigma: float) -> Tensor:
    """Returns what each grade gives to each, (C, C): exp(-(i - j)² / 2σ²), rows with sum 1; σ > 0 in grades."""
    distance = torch.arange(grades)[:, None] - torch.arange(grades)[None]
    return (-(distance.double() ** 2) / (2 * sigma**2)).softmax(1).float()
