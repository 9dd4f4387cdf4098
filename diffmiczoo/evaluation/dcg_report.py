"""A model beside its own DCG: predictions of both from one pass, and the report of both and their difference."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.evaluation.members import MemberLogits, predict_members
from diffmiczoo.evaluation.results import Difference, LabelledPredictions
from diffmiczoo.evaluation.trained_on import count_trained_on
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.metrics.ablation import Ablation
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.robustness import Robustness
from diffmiczoo.metrics.subgroups import SubgroupTable
from diffmiczoo.model import DiffMICv2


@dataclass(frozen=True)
class DcgReport:
    """How good a model and its DCG alone are on the same images.

    Attributes:
        model: metrics of the whole model.
        dcg: metrics of its DCG alone, not calibrated.
        difference: metric → (model - dcg, and its 95 % interval low and high), on the same resamples; empty where
            there are no resamples.
        ablation: what each member of the pool is worth; None where nobody asked.
        subgroups: the model's metrics on parts of the images, a table for each column; empty where nobody asked.
        robustness: the model on pictures that went wrong; None where nobody asked.
    """

    model: Metrics
    dcg: Metrics
    difference: dict[str, Difference] = field(default_factory=dict)
    ablation: Ablation | None = None
    subgroups: tuple[SubgroupTable, ...] = ()
    robustness: Robustness | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values, as `metrics.json` holds them for each split."""
        parts: dict[str, Any] = {"model": self.model.to_dict(), "dcg": self.dcg.to_dict()}
        if self.difference:
            parts["difference"] = {name: list(values) for name, values in self.difference.items()}
        if self.ablation is not None:
            parts["ablation"] = self.ablation.to_dict()
        if self.subgroups:
            parts["subgroups"] = [table.to_dict() for table in self.subgroups]
        if self.robustness is not None:
            parts["robustness"] = self.robustness.to_dict()
        return parts


@dataclass(frozen=True)
class PredictionsWithDcg:
    """Predictions of a model and of its DCG alone for the same labelled images.

    Attributes:
        model, dcg: the predictions.
        num_trained_on: how many of the images the model was trained on; None where that is not known.
        members: what both were made of; None where that was not kept.
        prediction: of the model, with its images; None where that was not kept.
    """

    model: LabelledPredictions
    dcg: LabelledPredictions
    num_trained_on: int | None = None
    members: MemberLogits | None = None
    prediction: Prediction | None = None

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        probs: Tensor,
        dcg_probs: Tensor,
        config: DiffMICConfig,
        num_trained_on: int | None = None,
    ) -> PredictionsWithDcg:
        """Puts the probabilities (N, C) of a model and of its DCG beside the images of a manifest."""
        return cls(
            LabelledPredictions.of(manifest, probs, config),
            LabelledPredictions.of(manifest, dcg_probs, config, fitted=False),
            num_trained_on,
        )

    def report(self, bootstrap: int = 1000, seed: int = 0, progress: bool | None = None) -> DcgReport:
        """Measures both.

        Args:
            bootstrap: number of resamples, 0 for no intervals; one image or one group has none either.
            seed: of the resamples.
            progress: show a bar; by default where the standard error is a terminal.
        """
        difference = {}
        if bootstrap and self.model.num_units > 1:
            difference = self.model.difference(self.dcg, bootstrap, seed, progress)
        model, dcg = (
            replace(each.metrics(bootstrap, seed, progress), num_trained_on=self.num_trained_on)
            for each in (self.model, self.dcg)
        )
        return DcgReport(model, dcg, difference)


def predict_with_dcg(
    model: DiffMICv2, manifest: Manifest, batch_size: int = 32, progress: bool | None = None
) -> PredictionsWithDcg:
    """Predicts the images of a manifest, by a model and by its DCG alone, in one pass.

    Raises:
        ImageError: an image cannot be read.

    Warns:
        UserWarning: the model was trained on some of the images.
    """
    config = model.config
    prediction, found = predict_members(model, manifest, batch_size, progress)
    trained_on = count_trained_on(model, manifest, progress)
    both = PredictionsWithDcg.of(manifest, found.probs(config), found.dcg_probs(config), config, trained_on)
    return replace(both, members=found, prediction=prediction)
