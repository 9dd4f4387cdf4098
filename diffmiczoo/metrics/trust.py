"""`TrustReport`: how well what weights know about their limits holds on test pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffmiczoo.errors import InvalidValueError


@dataclass(frozen=True)
class SetCoverage:
    """How often sets hold the true class.

    Attributes:
        alpha: their level.
        by_class: whether the level is held in each class.
        size: mean number of classes in a set.
        coverage: share of the test pictures' true labels inside.
        band: where `coverage` lies with a probability of 99 % if the promise holds; None for sets by class, for several
            labels, and with too few calibration groups.
        class_coverage: class → share inside, and its band (None with too few groups, where each set has the class).
    """

    alpha: float
    by_class: bool
    size: float
    coverage: float
    band: tuple[float, float] | None
    class_coverage: dict[str, tuple[float, tuple[float, float] | None]]


@dataclass(frozen=True)
class DeferralOutcome:
    """What came of a promise on the test pictures.

    Attributes:
        error: at most this share of errors was promised.
        seen: share of pictures that a person sees; None where nothing could be promised.
        found: share of errors among the others.
        others: how many these are.
    """

    error: float
    seen: float | None
    found: float | None
    others: int


@dataclass(frozen=True)
class TrustReport:
    """How what weights know about their limits holds on pictures that neither training nor calibration has seen.

    Attributes:
        kept: share of the own test pictures that pass the gate; None without one.
        kept_band: where it lies with a probability of 99 %.
        flagged: name of other pictures → share that does not pass, and how many they are.
        sets: coverage at each level.
        deferral: for each of `ERRORS`.
        aurc: area under the risk-coverage curve of `uncertainty`.
        risks: share of errors among the surest 10 %, 20 %, …, 100 % of the test pictures.
        least_error: the smallest error that can be promised.
    """

    kept: float | None
    kept_band: tuple[float, float] | None
    flagged: dict[str, tuple[float, int]]
    sets: tuple[SetCoverage, ...]
    deferral: tuple[DeferralOutcome, ...]
    aurc: float
    risks: tuple[float, ...]
    least_error: float | None

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrustReport:
        """Reads what `to_dict` returned.

        Raises:
            ValueError: it is something else.
        """
        try:
            parts = {"sets": SetCoverage, "deferral": DeferralOutcome}
            built = {name: tuple(part(**each) for each in values[name]) for name, part in parts.items()}
            return cls(**values | built)
        except (TypeError, KeyError) as error:
            raise InvalidValueError(f"no report of what weights know about their limits: {error}") from error

    def coverage(self, alpha: float, by_class: bool) -> SetCoverage:
        """Returns the coverage of the sets at a level.

        Raises:
            ValueError: it was not measured.
        """
        for each in self.sets:
            if each.alpha == alpha and each.by_class == by_class:
                return each
        raise InvalidValueError(f"the coverage of sets at {alpha} was not measured")

    def table(self) -> str:
        """Returns the numbers as lines of text."""
        lines = []
        if self.kept is not None and self.kept_band is not None:
            lines.append(f"own pictures that pass: {percent(self.kept)} (expected {_range(self.kept_band)})")
        lines += [f"flagged of {count} from {name}: {percent(share)}" for name, (share, count) in self.flagged.items()]
        for each in self.sets:
            kind = "by class" if each.by_class else "overall"
            lines.append(f"sets {kind} at {each.alpha:g}: {percent(each.coverage)} covered, {each.size:.2f} classes")
            lines[-1] += "" if each.band is None else f" (expected {_range(each.band)})"
            if each.by_class:
                lines += [
                    f"  {name} {percent(share)} {_range(band)}" for name, (share, band) in each.class_coverage.items()
                ]
        for outcome in self.deferral:
            if outcome.seen is None or outcome.found is None:
                lines.append(f"error {outcome.error:g}: cannot be promised")
            else:
                rest = f"{percent(outcome.found)} wrong of the other {outcome.others}"
                lines.append(f"error {outcome.error:g}: a person sees {percent(outcome.seen)}, {rest}")
        least = "nothing" if self.least_error is None else percent(self.least_error)
        return "\n".join([*lines, f"least error that can be promised: {least}; AURC {self.aurc:.4f}"])


def percent(value: float) -> str:
    """Returns a share as a percentage with one decimal."""
    return f"{100 * value:.1f} %"


def _range(band: Sequence[float] | None) -> str:
    return "(every set)" if band is None else f"{100 * band[0]:.0f}..{100 * band[1]:.0f} %"
