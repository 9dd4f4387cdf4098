"""`SoftLabels`: labels that are not quite sure, or those of teachers in part, for the DCG's cross-entropies.

Not for the diffusion: its scores estimate the mean of the labels, and that of labels of 0 and 1 is what
`scores_to_probs` turns into probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.teachers import Teachers


class SoftLabels:
    """Spreads labels over neighbouring grades, and then a share of them over all classes; teachers have their share.

    Args:
        recipe: its `ordinal_smoothing` σ, its `label_smoothing` s and its `teacher_share`.
        config: the model's.
        teachers: who answer; None where there are none.

    Source: Szegedy et al., *Rethinking the Inception Architecture*, CVPR 2016, section 7; for grades Diaz and Marathe,
    *Soft Labels for Ordinal Regression*, CVPR 2019, with squared distances.
    """

    def __init__(self, recipe: Recipe, config: DiffMICConfig, teachers: Teachers | None = None) -> None:
        self.share, self.teachers, self.teacher_share = recipe.label_smoothing, teachers, recipe.teacher_share
        # Multi-class: one out of C; multi-label: each label is a class of its own, present or absent.
        self.even = 1 / config.num_classes if config.task == "multiclass" else 0.5
        self.neighbours = grade_kernel(config.num_classes, sigma) if (sigma := recipe.ordinal_smoothing) else None

    def __call__(self, labels: Tensor, images: Tensor) -> Tensor:
        """Maps labels (B, C) of 0..1 to soft ones; the sum of a row stays what it was for "multiclass".

        Args:
            labels: of the images.
            images: (B, 3, S, S), as the model sees them, for the teachers.
        """
        if self.neighbours is not None:
            labels = labels @ self.neighbours.to(labels)
        if self.share:
            labels = labels * (1 - self.share) + self.share * self.even
        if self.teachers is None:
            return labels
        return labels * (1 - self.teacher_share) + self.teacher_share * self.teachers(images)


def grade_kernel(grades: int, sigma: float) -> Tensor:
    """Returns what each grade gives to each, (C, C): exp(-(i - j)² / 2σ²), rows with sum 1; σ > 0 in grades."""
    distance = torch.arange(grades)[:, None] - torch.arange(grades)[None]
    return (-(distance.double() ** 2) / (2 * sigma**2)).softmax(1).float()
