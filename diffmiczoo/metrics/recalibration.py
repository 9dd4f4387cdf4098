"""`Recalibration`: what was fitted to local pictures, what was there before, and what it changed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffmiczoo.config import CALIBRATION_FIELDS, DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.trust.stored import Trust

#: A number with its 95 % interval, low and high.
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Change:
    """A number before and after, on the same local pictures.

    Attributes:
        name: in files.
        label: in tables.
        before: with the calibration that the weights came with; None where they had nothing of the kind.
        after: fitted on other groups of the local pictures than those it is measured on.
        difference: after - before, on the same resamples.
    """

    name: str
    label: str
    before: Interval | None
    after: Interval | None
    difference: Interval | None


@dataclass(frozen=True)
class Recalibration:
    """How weights were recalibrated; it travels with them, and so does what they were before.

    Attributes:
        source: what was recalibrated: the name of the weights, or where they came from.
        weights_name: of the registered weights that these were; None for others.
        pictures, groups: local ones.
        counts: class → local pictures that show it; empty where they had no labels.
        original, fitted: calibration fields of the config before and after.
        changes: the table; empty without labels.
        notes: what was decided, a sentence each.
        limits: text of the `Trust` before, without its gate where the new one has the covariance; None where there was
            none.
        gate: limit, pictures and groups of its gate; None where there was none.
    """

    source: str
    weights_name: str | None
    pictures: int
    groups: int
    counts: dict[str, int]
    original: dict[str, Any]
    fitted: dict[str, Any]
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    limits: str | None = field(default=None, repr=False)
    gate: tuple[float, int, int] | None = None

    @property
    def labelled(self) -> bool:
        """Whether the local pictures had labels."""
        return bool(self.counts)

    def original_config(self, config: DiffMICConfig) -> DiffMICConfig:
        """Returns a config with the calibration from before."""
        return config.replace(**self.original)

    def original_trust(self, now: Trust | None) -> Trust | None:
        """Returns what the weights knew about their limits before; the gate's covariance is the one they have now."""
        if self.limits is None:
            return None
        trust = Trust.from_text(self.limits)
        if self.gate is None or trust.gate is not None or now is None or now.gate is None:
            return trust
        limit, pictures, groups = self.gate
        gate = dataclasses.replace(now.gate, limit=limit, pictures=pictures, groups=groups)
        return dataclasses.replace(trust, gate=gate)

    def sentence(self) -> str:
        """Says what was done, in a sentence."""
        many = f"{self.pictures:,} local pictures in {self.groups:,} groups"
        if not self.labelled:
            return f"{self.source}, recalibrated on {many} without labels: only how frequent the classes are."
        shown = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        return f"{self.source}, recalibrated on {many} ({shown})."

    def table(self) -> str:
        """Returns the numbers before and after as lines of text, with what was decided."""
        rows = [("", "before", "after (cross-fitted)", "difference")]
        rows += [(each.label, *cells(each)) for each in self.changes]
        widths = [max(len(row[place]) for row in rows) for place in range(4)]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self.sentence(), *(lines if self.changes else []), *self.notes])

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON-ready values, without what only going back needs."""
        values = dataclasses.asdict(self)
        del values["limits"], values["gate"]
        return values

    def to_text(self) -> str:
        """Returns the JSON text that `from_text` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Recalibration:
        """Reads what `to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            values = json.loads(text)
            fields = {name: _calibration(values[name]) for name in ("original", "fitted")}
            changes = tuple(_change(each) for each in values["changes"])
            gate = None if values["gate"] is None else tuple(values["gate"])
            rest = {"changes": changes, "notes": tuple(values["notes"]), "gate": gate}
            return cls(**values | fields | rest)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidValueError(f"how the weights were recalibrated cannot be read: {error}") from error


def cells(change: Change) -> tuple[str, str, str]:
    """Returns before, after and difference as texts; a dash for what is not known."""
    return _cell(change.before), _cell(change.after), _cell(change.difference, "+")


def _cell(value: Interval | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return "{:{sign}.3f} [{:{sign}.3f}, {:{sign}.3f}]".format(*value, sign=sign)


def _calibration(values: Mapping[str, Any]) -> dict[str, Any]:
    if values.keys() != set(CALIBRATION_FIELDS):
        raise InvalidValueError(f"a calibration has the fields {sorted(values)}; expected {sorted(CALIBRATION_FIELDS)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def _change(values: Mapping[str, Any]) -> Change:
    read: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
    return Change(**read)
