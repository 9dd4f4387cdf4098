"""`RecalibratedModel`: `recalibrate` and the way back, for a model in a place that it was not trained for."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.given_labels import given_targets
from diffmiczoo.data.groups import group_numbers
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import Item, as_items
from diffmiczoo.inference.limits import settings_of
from diffmiczoo.metrics.calibrate import CalibratedModel
from diffmiczoo.metrics.label_shift import estimate_shares
from diffmiczoo.metrics.local_fit import LocalPictures
from diffmiczoo.metrics.local_refit import Refit, check_groups, check_targets, refit
from diffmiczoo.metrics.recalibration import Recalibration
from diffmiczoo.runtime.text import end_of_path
from diffmiczoo.trust.arrays import coverage_band
from diffmiczoo.trust.gate import Gate
from diffmiczoo.trust.stored import Trust

Self = TypeVar("Self", bound="RecalibratedModel")

#: From so many times the old limit on a note says what the gate's new limit costs.
WIDER = 1.2

_NOT_KNOWN = (
    "labels=None needs weights that know pictures unlike their own, and how frequent each class was where they were "
    "calibrated; these do not (diffmiczoo.evaluation.trust.fit_limits stores both); give labels"
)


class RecalibratedModel(CalibratedModel):
    """A classifier whose probabilities and limits can be fitted to the pictures of a place, and taken back.

    Attributes:
        weights_name: of the registered weights that it holds.
        recalibration: how it was recalibrated, with the table of before and after; None where it was not.
    """

    weights_name: str | None

    def recalibrate(
        self: Self,
        images: Any,
        labels: Any = None,
        *,
        groups: Iterable[Hashable] | None = None,
        batch_size: int = 32,
        progress: bool | None = None,
    ) -> Self:
        """Fits calibration and limits to pictures of the place where the model is used; its weights stay.

        With labels: temperature, pool weights, an offset for each class, decision rule, prediction sets, deferral and
        the gate's limit. The calibration is held at the present one, so that few pictures change little. Without
        labels: how frequent the classes are, nothing else; prediction sets and deferral are dropped, since nothing is
        known about them. `model.recalibration` tells what came of it, and keeps what was there before; recalibrating
        again starts from that.

        Args:
            images: what `predict` takes: pictures as they come, that no training has seen, from at least
                `diffmiczoo.metrics.local_refit.LEAST_GROUPS` patients.
            labels: an entry per image: a class name or number, for "multilabel" a list of names or a row of zeros and
                ones. None for a "multiclass" model to learn from pictures alone how frequent the classes are.
            groups: patient, lesion or the like of each image; each image for itself by default.
            batch_size: images computed at once.
            progress: show bars; by default where the standard error is a terminal.

        Returns:
            The model itself.

        Warns:
            UserWarning: the weights were trained on some of the images.

        Raises:
            ValueError: there are too few groups, the labels do not fit, all are the same, or pictures without labels do
                not tell how frequent the classes are; the model stays as it was.
            ImageError: an image cannot be read.
        """
        items = as_items(images)
        start, trust = self._calibration_before()
        targets = None if labels is None else torch.from_numpy(given_targets(labels, len(items), start))
        numbers = _numbers(groups, len(items))
        if not self.trained:
            raise InvalidValueError("the model was not trained; fit it, or calibrate it, before it is recalibrated")
        if targets is None:
            check_groups(numbers)
            _check_unlabelled(start, trust)
        else:
            check_targets(targets, numbers, start)
        found = self.predict(items, batch_size=batch_size, progress=progress)
        distances = None
        if found.ood_score is not None and self.trust is not None and self.trust.gate is not None:
            distances = found.ood_score.double().numpy() * self.trust.gate.limit
        if targets is None:
            pictures = LocalPictures(found.scores, found.members, torch.zeros(0), numbers, distances)
            new, counts, notes = _without_labels(pictures, start, trust)
        else:
            pictures = LocalPictures(found.scores, found.members, targets, numbers, distances)
            new, counts = refit(pictures, start, trust), _counts(pictures, start)
            notes = _notes(
                new, counts, _probabilities(new.config) == _probabilities(start), trust.gate if trust else None
            )
        self._take(new, pictures, trust, counts, notes, start)
        self._tell_trained_on(items, progress)
        return self

    def undo_recalibration(self: Self) -> Self:
        """Gives the model the calibration and the limits from before it was recalibrated.

        Raises:
            ValueError: it was not recalibrated.
        """
        if self.recalibration is None:
            raise InvalidValueError("the model was not recalibrated; there is nothing to go back to")
        name = self.recalibration.weights_name
        self.config, self.trust = self._calibration_before()
        self.weights_name, self.recalibration = name, None
        return self

    def _calibration_before(self) -> tuple[DiffMICConfig, Trust | None]:
        if self.recalibration is None:
            return self.config, self.trust
        return self.recalibration.original_config(self.config), self.recalibration.original_trust(self.trust)

    def _take(
        self,
        new: Refit,
        pictures: LocalPictures,
        trust: Trust | None,
        counts: dict[str, int],
        notes: tuple[str, ...],
        start: DiffMICConfig,
    ) -> None:
        gate, first = None if trust is None else trust.gate, self.recalibration
        # A gate's covariance is stored once: where the new limits have it, the old ones need not.
        before = trust if trust is None or new.trust.gate is None else dataclasses.replace(trust, gate=None)
        if first is not None:
            notes = (f"It starts from the calibration before that on {first.pictures:,} pictures, as it was.", *notes)
        self.recalibration = Recalibration(
            source=end_of_path(self.display_name or "a model without a name") if first is None else first.source,
            weights_name=self.weights_name if first is None else first.weights_name,
            pictures=len(pictures),
            groups=len(np.unique(pictures.groups)),
            counts=counts,
            original=start.calibration,
            fitted=new.config.calibration,
            changes=new.changes,
            notes=notes,
            limits=None if before is None else before.to_text(),
            gate=None if gate is None else (gate.limit, gate.pictures, gate.groups),
        )
        # The registered weights are those with the calibration from before.
        self.config, self.trust, self.weights_name = new.config, new.trust, None

    def _tell_trained_on(self, items: list[Item], progress: bool | None) -> None:
        names, config = self.config.labels, self.config
        records = tuple(Record(Path(item.name), names[:1], source=item.source) for item in items)
        self._tell_learned(Manifest("images", records, names, config.task), progress)


def _numbers(groups: Iterable[Hashable] | None, count: int) -> np.ndarray:
    if groups is None:
        return np.arange(count)
    numbers = group_numbers(groups)[0]
    if len(numbers) != count:
        raise InvalidValueError(f"groups has {len(numbers):,} entries for {count:,} images; expected one for each")
    return numbers


def _probabilities(config: DiffMICConfig) -> dict[str, Any]:
    return {**config.calibration, "thresholds": (), "label_adjustment": ()}


def _counts(pictures: LocalPictures, config: DiffMICConfig) -> dict[str, int]:
    return dict(zip(config.labels, pictures.truth(config).sum(0).tolist(), strict=True))


def _notes(new: Refit, counts: dict[str, int], kept: bool, gate: Gate | None) -> tuple[str, ...]:
    notes = []
    absent = [name for name, count in counts.items() if not count]
    if absent:
        notes.append(f"No local picture shows {', '.join(absent)}: nothing was learned about it.")
    nll = next(each.difference for each in new.changes if each.name == "nll")
    if kept:
        notes.append(
            "Probabilities stay as they were: a new calibration was no better for pictures that it had not seen."
        )
    elif nll is not None and nll[2] >= 0:
        notes.append("The gain in NLL may be chance: 0 is within its interval. More pictures would tell.")
    few = {} if new.trust.sets is None else new.trust.sets.too_few(0.1)
    if few:
        named = ", ".join(f"{new.config.labels[place]} ({groups})" for place, groups in few.items())
        notes.append(f"Prediction sets at 0.1 always have {named}: fewer than 9 groups show it.")
    if new.trust.gate is None:
        why = "these weights know no features of their training pictures"
        dropped = "the one that there was is of another preprocessing or encoder, and is dropped"
        notes.append(f"There is no gate: {why if gate is None else dropped}.")
    elif gate is not None and new.trust.gate.limit > WIDER * gate.limit:
        notes.append(
            f"Local pictures are {new.trust.gate.limit / gate.limit:.1f} times as far from the training pictures as "
            "those were that the weights knew: the gate passes them now, and with them other pictures as far away."
        )
    return tuple(notes)


def _check_unlabelled(config: DiffMICConfig, trust: Trust | None) -> None:
    """Refuses what cannot be recalibrated without labels."""
    if config.task != "multiclass":
        raise InvalidValueError("labels=None is for one label out of several; a multilabel model needs labels")
    if trust is None or trust.gate is None or not all(trust.mean_probs or (0.0,)):
        raise InvalidValueError(_NOT_KNOWN)


def _without_labels(
    pictures: LocalPictures, config: DiffMICConfig, trust: Trust | None
) -> tuple[Refit, dict[str, int], tuple[str, ...]]:
    """Fits class offsets to pictures without labels.

    Raises:
        ValueError: pictures cannot be compared with the training pictures, many are of another kind, or the shares stay
            open.
    """
    if trust is None or trust.gate is None or pictures.distances is None:
        raise InvalidValueError(_NOT_KNOWN)
    passed = float((pictures.distances <= trust.gate.limit).mean())
    least = coverage_band(trust.gate.groups, len(pictures), 1 - trust.gate.keep)[0]
    if passed < least:
        raise InvalidValueError(
            f"labels=None assumes pictures that differ in nothing but how frequent the classes are, but "
            f"{100 * (1 - passed):.0f} % are unlike the training pictures (at most {100 * (1 - least):.0f} % of "
            "the same kind would be); give labels"
        )
    known = np.array(trust.mean_probs)
    known /= known.sum()
    found = estimate_shares(pictures.probs(config).double().numpy(), known, pictures.groups)
    if not found.certain:
        raise InvalidValueError(
            f"{len(pictures):,} pictures without labels do not show that the classes are more or less frequent than "
            "where the weights were calibrated; the calibration stays"
        )
    before = np.array(config.class_offsets or (0.0,) * config.num_classes)
    new = config.replace(class_offsets=tuple((before + found.offsets(known)).tolist()))
    rows = zip(config.labels, known, found.shares, found.errors, strict=True)
    shares = ", ".join(f"{name} {100 * a:.0f} → {100 * b:.0f} ± {100 * e:.0f} %" for name, a, b, e in rows)
    notes = (
        f"Shares of the classes: {shares}.",
        "Prediction sets and deferral are dropped: without labels nothing is known about them.",
    )
    return Refit(new, Trust(settings_of(new), trust.gate), ()), {}, notes
