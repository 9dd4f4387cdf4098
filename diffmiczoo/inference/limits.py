"""What a prediction says about its own limits: foreign pictures, sets of classes, and what a person should see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from diffmiczoo.config import CALIBRATION_FIELDS, DiffMICConfig
from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.inference.tensors import PredictionTensors
from diffmiczoo.trust.conformal import SetRules
from diffmiczoo.trust.gate import Gate
from diffmiczoo.trust.stored import Trust

#: The level of the sets in tables and pictures.
SHOWN_ALPHA = 0.1

#: Columns of a table that only some weights fill.
LIMIT_COLUMNS = ("ood_score", "in_distribution", "set", "deferred")

#: What F, and so the gate, does not depend on: who samples, and what is made of the scores.
_NOT_IN_FEATURES = {
    "task", "ordinal", "sampler", "sampling_steps", "num_samples", "init", "shared_noise", "clip_sample", "tta",
    *CALIBRATION_FIELDS,
}  # fmt: skip

#: Fields that predictions do not depend on.
_NAMES = {"class_names", "loss", "mmd_weight", "heterologous", "feature_loss_weight"}

_FIT = "diffmiczoo.evaluation.trust.fit_limits(model, data) fits what weights know about their limits"


def settings_of(config: DiffMICConfig) -> dict[str, Any]:
    """Returns the fields of a config that predictions depend on, for `Trust.settings`."""
    return dict(_settings_of(config))


# Asked for several times in every prediction of one picture, and a config never changes.
@lru_cache(maxsize=64)
def _settings_of(config: DiffMICConfig) -> dict[str, Any]:
    return {name: value for name, value in config.to_dict().items() if name not in _NAMES}


def usable_gate(trust: Trust | None, config: DiffMICConfig) -> Gate | None:
    """Returns the gate of weights, where they have one and it was fitted for the features of this config.

    Warns:
        UserWarning: it was fitted for others; pictures are then not compared with the training pictures.
    """
    if trust is None or trust.gate is None:
        return None
    relevant = {name: value for name, value in settings_of(config).items() if name not in _NOT_IN_FEATURES}
    changed = trust.changed(relevant)
    if changed:
        warn(
            f"pictures are not compared with the training pictures: the gate is of another model, {'; '.join(changed)}"
        )
        return None
    return trust.gate


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class LimitedPrediction(PredictionTensors):
    """The part of a `Prediction` that tells its limits; see there.

    Attributes:
        trust: what the weights know about their limits; None where they know nothing.
        defer_error: the largest share of errors among what no person sees, as it was asked for; None for no promise.
    """

    names: list[str]
    config: DiffMICConfig
    steps: int
    num_samples: int
    tta: str = "none"
    precision: str = "fp32"
    trust: Trust | None = None
    defer_error: float | None = None

    @property
    def in_distribution(self) -> Tensor | None:
        """(B,) bool: whether a picture is like the training pictures, `ood_score` ≤ 1; None without a gate."""
        return None if self.ood_score is None else self.ood_score <= 1

    def sets(self, alpha: float = SHOWN_ALPHA, *, by_class: bool = True) -> list[list[str]]:
        """Returns for each image the classes that cannot be ruled out, the most probable first.

        Of new pictures of the kind that the weights were calibrated on, a share of at most `alpha` has its true class
        outside; for "multilabel" that share of its labels. The predicted labels are always in the set.

        Args:
            alpha: one of the levels that are stored with the weights: 0.05, 0.1, 0.2.
            by_class: hold the level in every class, not only on average over all pictures; sets are larger.

        Raises:
            ValueError: the weights have no sets, or not for this level, these steps or these runs.

        Warns:
            UserWarning: classes had too few calibration pictures for the level and are in every set.
        """
        rules = None if self.trust is None else self.trust.sets
        if rules is None:
            raise InvalidValueError(f"these weights have no prediction sets: {_FIT}")
        self._check_settings("prediction sets were calibrated")
        rules.rule(alpha)
        if note := set_note(self.trust, self.config, alpha, by_class):
            warn(note)
        return self._sets(rules, alpha, by_class)

    def _sets(self, rules: SetRules, alpha: float, by_class: bool) -> list[list[str]]:
        inside = torch.from_numpy(rules.contains(self.probs.numpy(), alpha, by_class=by_class))
        inside = inside | self._reached()
        order = self.probs.sort(dim=1, descending=True, stable=True).indices.tolist()
        rows = zip(order, inside.tolist(), strict=True)
        return [[self.config.labels[c] for c in classes if row[c]] for classes, row in rows]

    def _reached(self) -> Tensor:
        raise InvalidValueError("only a Prediction has labels")

    @property
    def shown_sets(self) -> list[list[str]] | None:
        """The sets by class at the level `SHOWN_ALPHA`; None where there are none for this prediction."""
        rules = None if self.trust is None else self.trust.sets
        return None if rules is None or self._changed_settings() else self._sets(rules, SHOWN_ALPHA, True)

    @property
    def deferred(self) -> Tensor | None:
        """(B,) bool: which pictures a person should see, so that `defer_error` holds among the others.

        They are those that are unlike the training pictures, and the least sure ones. None without `defer_error`.

        Raises:
            ValueError: the weights cannot promise that, or not for these steps or these runs.
        """
        if self.defer_error is None:
            return None
        limit = deferral_limit(self.trust, self.defer_error)
        self._check_settings("deferral was calibrated")
        unsure = self.uncertainty.double() > limit
        return unsure if self.in_distribution is None else unsure | ~self.in_distribution

    def _changed_settings(self) -> list[str]:
        here = {"sampling_steps": self.steps, "num_samples": self.num_samples, "tta": self.tta}
        if self.trust is None:
            return []
        changed = self.trust.changed(settings_of(self.config) | here)
        if self.config.class_offsets and "class_offsets" not in self.trust.settings:  # fitted before there were any
            changed.append(f"class_offsets={list(self.config.class_offsets)}, fitted for none")
        return changed

    def _check_settings(self, what: str) -> None:
        if changed := self._changed_settings():
            raise InvalidValueError(
                f"{what} for another prediction: {'; '.join(changed)}; predict as it was calibrated"
            )

    @property
    def limit_columns(self) -> list[str]:
        """Which of `LIMIT_COLUMNS` this prediction fills."""
        found = {"ood_score": self.ood_score is not None, "in_distribution": self.ood_score is not None}
        found |= {"set": self.shown_sets is not None, "deferred": self.defer_error is not None}
        return [name for name in LIMIT_COLUMNS if found[name]]

    def limit_rows(self) -> list[list[Any]]:
        """Returns the cells of `limit_columns` for each image; the classes of a set are joined by "|"."""
        cells: dict[str, list[Any]] = {name: each for name, each in self._limits().items() if each is not None}
        if "set" in cells:
            cells["set"] = ["|".join(each) for each in cells["set"]]
        columns = [cells[name] for name in LIMIT_COLUMNS if name in cells]
        return [[column[row] for column in columns] for row in range(len(self.names))]

    def limits_of(self) -> list[dict[str, Any]]:
        """Returns what is known about each image, JSON-ready: each of `LIMIT_COLUMNS`, None where unknown."""
        columns, rows = self._limits(), range(len(self.names))
        return [{name: None if each is None else each[row] for name, each in columns.items()} for row in rows]

    def _limits(self) -> dict[str, list[Any] | None]:
        """Returns each of `LIMIT_COLUMNS` for all images."""
        inside, deferred = self.in_distribution, self.deferred
        return {
            "ood_score": None if self.ood_score is None else self.ood_score.tolist(),
            "in_distribution": None if inside is None else inside.tolist(),
            "set": self.shown_sets,
            "deferred": None if deferred is None else deferred.tolist(),
        }


def set_note(trust: Trust | None, config: DiffMICConfig, alpha: float, by_class: bool = True) -> str:
    """Returns which classes are in every set for want of calibration pictures, in a sentence; "" for none."""
    rules = None if trust is None else trust.sets
    few = {} if rules is None else rules.too_few(alpha, by_class=by_class)
    if not few:
        return ""
    named = ", ".join(f"{config.labels[number]} ({groups})" for number, groups in few.items())
    return (
        f"{named}: too few calibration groups (patients, lesions) for alpha={alpha:g}, so that these classes are in "
        "every set"
    )


def deferral_limit(trust: Trust | None, error: float) -> float:
    """Returns the largest uncertainty at which no person needs to see a picture for so small an error among those.

    Raises:
        ValueError: weights know nothing of it, or cannot promise it; the message tells what they can.
    """
    if trust is None or trust.deferral is None:
        raise InvalidValueError(f"defer_error={error}: these weights can promise no error: {_FIT}")
    return trust.deferral.step(error).limit


def check_limits(trust: Trust | None, config: DiffMICConfig, defer_error: float | None, on_foreign: str) -> None:
    """Compares what is asked of weights with what they know about their limits.

    Raises:
        ValueError: they cannot promise `defer_error`, or have no gate by which pictures could be refused.
    """
    if defer_error is not None:
        deferral_limit(trust, defer_error)
    if on_foreign == "refuse" and usable_gate(trust, config) is None:
        raise InvalidValueError(f"on_foreign='refuse': these weights do not know pictures unlike their own; {_FIT}")
