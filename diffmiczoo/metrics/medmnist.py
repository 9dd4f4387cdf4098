"""ACC and AUC as MedMNIST's own `medmnist.evaluator` defines them, so that figures compare with published ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffmiczoo.metrics.definitions import auroc_by_class
from diffmiczoo.metrics.weighted import ScoredImages


@dataclass(frozen=True)
class MedMNISTScores:
    """Both metrics of the benchmark.

    Attributes:
        acc: share of right images; multi-label: of right decisions on labels. 0..1.
        auc: mean over the classes of the area under the ROC curve of each against the rest, 0..1; NaN where a class has
            no image or all of them, which `medmnist.evaluator` refuses.
    """

    acc: float
    auc: float

    def to_dict(self) -> dict[str, float | None]:
        """Returns JSON-ready values; NaN becomes None."""
        return {"acc": self.acc, "auc": None if math.isnan(self.auc) else self.auc}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> MedMNISTScores:
        """Builds scores from what `to_dict` writes."""
        return cls(values["acc"], math.nan if values["auc"] is None else values["auc"])

    def __str__(self) -> str:
        auc = "–" if math.isnan(self.auc) else f"{self.auc:.3f}"
        return f"MedMNIST ACC {self.acc:.3f}, AUC {auc}"


def medmnist_scores(images: ScoredImages) -> MedMNISTScores:
    """Returns the benchmark's metrics of probabilities, whatever the model's own decision rule is.

    ACC: the most probable class; of two classes the last one where its probability is above 0.5; multi-label every
    label whose probability is above 0.5. AUC: of two classes that of the last one, else the mean over the classes.

    Source: Yang et al., *MedMNIST v2*, Scientific Data 10, 41 (2023); `getACC` and `getAUC` of medmnist 3.0.2.
    """
    probs, truth = images.probs, images.truth
    by_class = auroc_by_class(images.once_each())[0]
    if images.task == "multilabel":
        return MedMNISTScores(float(((probs > 0.5) == truth).mean()), float(by_class.mean()))
    if probs.shape[1] == 2:
        return MedMNISTScores(float(((probs[:, 1] > 0.5) == truth[:, 1]).mean()), float(by_class[1]))
    right = np.take_along_axis(truth, probs.argmax(1)[:, None], axis=1)
    return MedMNISTScores(float(right.mean()), float(by_class.mean()))
