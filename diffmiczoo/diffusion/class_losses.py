"""Losses of a classifier for data whose classes are not equally frequent: margins by class, and hard images alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.losses import ClassLoss, cross_entropy, label_vectors

#: The largest margin, that of the rarest class, in logits.
LARGEST_MARGIN = 0.5


def create_class_loss(name: str, hard_share: float, targets: Tensor, config: DiffMICConfig) -> ClassLoss:
    """Returns the loss of a recipe's `dcg_loss`.

    Args:
        name: "cross_entropy", "ldam" or "ohem".
        hard_share: of "ohem".
        targets: (N,) or (N, C), of all training images.
        config: the model's.
    """
    if name == "ldam":
        return LabelDistributionMargin(targets, config)
    return HardExamples(hard_share) if name == "ohem" else cross_entropy


class LabelDistributionMargin:
    """LDAM: cross-entropy in which the true class's logit is lowered by a margin, the larger the rarer the class.

    Δ_c = `LARGEST_MARGIN` · (n_min / n_c)^¼ for n_c training images of class c, so that the rarest class has the
    largest margin; a class without images has none. Soft labels lower each logit by its share of its margin. The logits
    are those of an ordinary linear layer: the paper's experiments also normalise the last layer's weights and inputs.

    Args:
        targets: (N,) class numbers, of all training images.
        config: of a "multiclass" model.

    Source: Cao et al., *Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss*, NeurIPS 2019,
    equations 12 and 13.
    """

    def __init__(self, targets: Tensor, config: DiffMICConfig) -> None:
        counts = label_vectors(targets, config).sum(0)
        rarest = counts[counts > 0].min()
        self.margins = torch.where(counts > 0, LARGEST_MARGIN * (rarest / counts.clamp(min=1)) ** 0.25, 0.0)

    def __call__(self, logits: Tensor, labels: Tensor, config: DiffMICConfig, weights: Tensor | None = None) -> Tensor:
        """Maps logits (B, C), labels (B, C) and weights (B, C) or None to the loss, a scalar."""
        return cross_entropy(logits - labels * self.margins.to(logits), labels, config, weights)


class HardExamples:
    """OHEM: the mean cross-entropy of those images of a batch that have the largest.

    Args:
        share: of the batch, above 0; at least one image is learned from.

    Source: Shrivastava, Gupta, Girshick, *Training Region-based Object Detectors with Online Hard Example Mining*,
    CVPR 2016, section 4, with images in the place of regions.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, logits: Tensor, labels: Tensor, config: DiffMICConfig, weights: Tensor | None = None) -> Tensor:
        """Maps logits (B, C), labels (B, C) and weights (B, C) or None to the loss, a scalar."""
        if config.task == "multilabel":
            each = F.binary_cross_entropy_with_logits(logits, labels, weights, reduction="none").mean(1)
        else:
            each = F.cross_entropy(logits, labels, reduction="none")
            each = each if weights is None else each * weights[:, 0]
        return each.topk(max(1, round(self.share * len(each)))).values.mean()
