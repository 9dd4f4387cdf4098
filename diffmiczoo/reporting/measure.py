"""From predictions of labelled images to the values of a `Report`; reads no picture and runs no network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from diffmiczoo.data.copies import shared_names
from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.members import MemberLogits
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.evaluation.trust import Known, measure_trust
from diffmiczoo.inference.limits import SHOWN_ALPHA, set_note, settings_of
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.metrics.bootstrap import Resampling
from diffmiczoo.metrics.curves import ClassCurves, Curve, ReliabilityBin, class_curves, reliability, risk_curve
from diffmiczoo.metrics.weighted import ScoredImages
from diffmiczoo.reporting.results import Distances, Limits, SetSizes

#: Bins of the distances from the training pictures: tenths of the limit up to twice the limit.
EDGES = tuple(round(place / 10, 1) for place in range(21))

#: Names of pictures beyond the limit.
_MOST_NAMES = 20

NO_LIMITS = (
    "These weights store nothing about their limits; `diffmiczoo.evaluation.trust.fit_limits(model, data)` adds it."
)


@dataclass(frozen=True, eq=False)
class Measured:
    """What a model predicted for labelled images, in the forms that sections need.

    Attributes:
        names: of the images below the directory that they share: where that is, is nobody's business.
        prediction: with the images.
        labelled: probabilities beside the truth.
        scored: the same as arrays.
        members: what the probabilities were made of.
        resampling: what intervals are drawn by; None for none, or where there is one image or group only.
    """

    names: tuple[str, ...]
    prediction: Prediction
    labelled: LabelledPredictions
    scored: ScoredImages
    members: MemberLogits
    resampling: Resampling | None

    @classmethod
    def of(cls, predicted: PredictionsWithDcg, manifest: Manifest, bootstrap: int, seed: int = 0) -> Measured:
        """Takes what `predict_with_dcg` returned for the images of a manifest.

        Raises:
            ValueError: it does not hold what the predictions were made of.
        """
        if predicted.prediction is None or predicted.members is None:
            raise InvalidValueError("the predictions do not hold what they were made of; predict_with_dcg keeps it")
        labelled = predicted.model
        count = len(labelled.names)
        units = np.arange(count) if labelled.groups is None else group_numbers(labelled.groups)[0]
        drawn = Resampling(units, bootstrap, seed) if bootstrap and labelled.num_units > 1 else None
        names = tuple(shared_names(manifest.records))
        return cls(names, predicted.prediction, labelled, labelled.scored(), predicted.members, drawn)

    @property
    def wrong(self) -> np.ndarray:
        """(N,) bool: the labels are not exactly the true ones."""
        found: np.ndarray = (self.scored.decisions != self.scored.truth).any(1)
        return found

    def classes(self, progress: bool | None = None) -> tuple[ClassCurves, ...]:
        """Returns the curves of each class."""
        return class_curves(self.scored, self.labelled.class_names, self.resampling, progress)

    def confusion(self) -> tuple[tuple[int, ...], ...] | None:
        """Returns how many images of each class were given each class; None for "multilabel"."""
        if self.labelled.task != "multiclass":
            return None
        matrix = self.scored.once_each().confusion[0]
        return tuple(tuple(int(value) for value in row) for row in matrix)

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Returns how often statements of about the same probability were right."""
        return reliability(self.scored, self.resampling)

    def risk(self) -> Curve:
        """Returns the share of errors among the surest images."""
        return risk_curve(self.prediction.uncertainty.double().numpy(), self.wrong, self.resampling)

    def limits(self, manifest: Manifest) -> Limits:
        """Returns what the weights know about their limits, and how that holds for these images."""
        prediction = self.prediction
        trust = prediction.trust
        if trust is None:
            return Limits(NO_LIMITS)
        if changed := trust.changed(settings_of(prediction.config)):
            return Limits(f"The limits of these weights were fitted for other predictions: {'; '.join(changed)}.")
        known = Known.of(self.members, manifest, prediction.config)
        return Limits("", measure_trust(trust, prediction.config, known), self._sets(), self._distances())

    def _sets(self) -> SetSizes | None:
        sets = self.prediction.shown_sets
        if sets is None:
            return None
        sizes = Counter(map(len, sets))
        note = set_note(self.prediction.trust, self.prediction.config, SHOWN_ALPHA)
        return SetSizes(SHOWN_ALPHA, dict(sorted(sizes.items())), note)

    def _distances(self) -> Distances | None:
        if self.prediction.ood_score is None:
            return None
        scores = self.prediction.ood_score.double().numpy()
        inside = np.minimum(scores, EDGES[-1] - 1e-9)
        right, wrong = (np.histogram(inside[rows], EDGES)[0] for rows in (~self.wrong, self.wrong))
        far = [row for row in np.argsort(-scores, kind="stable").tolist() if scores[row] > 1]
        farthest = tuple(self.names[row] for row in far[:_MOST_NAMES])
        return Distances(EDGES, tuple(right.tolist()), tuple(wrong.tolist()), len(far), farthest)
