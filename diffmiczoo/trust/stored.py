"""`Trust`: all that weights know about their limits, as the text that is stored with them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.trust.conformal import SetRule, SetRules
from diffmiczoo.trust.gate import Gate
from diffmiczoo.trust.selective import Deferral, Step

Part = TypeVar("Part")

_FIELDS = {"settings", "gate", "sets", "deferral"}

#: What older texts lack.
_LATER = {"mean_probs"}


@dataclass(frozen=True, eq=False)
class Trust:
    """What weights know about their limits; a part is None where there were too few pictures to fit it.

    Attributes:
        settings: field of the config → its value when the parts were fitted, of all that predictions depend on.
        gate: whether a picture is like the training pictures.
        sets: which classes cannot be ruled out.
        deferral: which pictures a person should see.
        mean_probs: C mean probabilities of the pictures that the parts were fitted on, each group counted once.
    """

    settings: Mapping[str, Any]
    gate: Gate | None = None
    sets: SetRules | None = None
    deferral: Deferral | None = None
    mean_probs: tuple[float, ...] | None = None

    def changed(self, settings: Mapping[str, Any]) -> list[str]:
        """Returns in which settings a prediction differs from what the parts were fitted for, a few words each.

        Args:
            settings: of the prediction; fields that came later count where they are known to both.
        """
        own = {name: _plain(value) for name, value in settings.items()}
        both = [name for name in self.settings if name in own]
        return [
            f"{name}={own[name]!r}, fitted for {self.settings[name]!r}"
            for name in both
            if own[name] != self.settings[name]
        ]

    def to_text(self) -> str:
        """Returns the JSON text that `from_text` reads; the same for the same parts."""
        values = {
            "settings": {name: _plain(value) for name, value in self.settings.items()},
            "gate": None if self.gate is None else _gate_values(self.gate),
            "sets": None if self.sets is None else _set_values(self.sets),
            "deferral": None if self.deferral is None else _deferral_values(self.deferral),
            "mean_probs": None if self.mean_probs is None else list(self.mean_probs),
        }
        return json.dumps(values)

    @classmethod
    def from_text(cls, text: str) -> Trust:
        """Reads what `to_text` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            values = json.loads(text)
            if (
                not isinstance(values, dict)
                or values.keys() - _LATER != _FIELDS
                or not isinstance(values["settings"], dict)
            ):
                raise InvalidValueError(f"expected an object with the fields {sorted(_FIELDS)}")
            gate, sets = _read(values["gate"], _gate), _read(values["sets"], _sets)
            means = _read(values.get("mean_probs"), _shares)
            return cls(values["settings"], gate, sets, _read(values["deferral"], _deferral), means)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidValueError(f"what the weights know about their limits cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    """Returns a setting as JSON gives it back: tuples as lists."""
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value


def _read(values: Any, build: Callable[[Any], Part]) -> Part | None:
    return None if values is None else build(values)


def _letters(array: np.ndarray, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=kind).tobytes()).decode("ascii")


def _numbers(letters: str, kind: str, width: int | None = None) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(letters, validate=True), dtype=kind).astype(np.dtype(kind).newbyteorder("="))
    if not np.isfinite(flat).all():
        raise InvalidValueError("a number is not finite")
    return flat if width is None else flat.reshape(-1, width)


def _gate_values(gate: Gate) -> dict[str, Any]:
    arrays = {"mean": _letters(gate.mean, "<f4"), "axes": _letters(gate.axes, "<f2")}
    rest = {name: getattr(gate, name) for name in ("rest", "limit", "keep", "pictures", "groups")}
    return {**arrays, "scales": _letters(gate.scales, "<f4"), **rest}


def _gate(values: dict[str, Any]) -> Gate:
    mean, scales = _numbers(values["mean"], "<f4"), _numbers(values["scales"], "<f4")
    axes = _numbers(values["axes"], "<f2", len(mean))
    limit = float(values["limit"])
    if len(axes) != len(scales) or not limit > 0:
        raise InvalidValueError(f"the gate has {len(axes)} axes, {len(scales)} scales and the limit {limit}")
    counts = int(values["pictures"]), int(values["groups"])
    return Gate(mean, axes, scales, float(values["rest"]), limit, float(values["keep"]), *counts)


def _set_values(sets: SetRules) -> dict[str, Any]:
    rules = [{"alpha": each.alpha, "overall": each.overall, "by_class": list(each.by_class)} for each in sets.rules]
    return {"rules": rules, "groups": sets.groups, "class_groups": list(sets.class_groups)}


def _sets(values: dict[str, Any]) -> SetRules:
    counts = tuple(int(count) for count in values["class_groups"])
    rules = []
    for rule in values["rules"]:
        lowest = tuple(None if low is None else float(low) for low in rule["by_class"])
        if len(lowest) != len(counts):
            raise InvalidValueError(f"a rule has {len(lowest)} classes of {len(counts)}")
        overall = rule["overall"]
        rules.append(SetRule(float(rule["alpha"]), None if overall is None else float(overall), lowest))
    return SetRules(tuple(rules), int(values["groups"]), counts)


def _deferral_values(deferral: Deferral) -> dict[str, Any]:
    return {"steps": [[each.limit, each.kept, each.errors] for each in deferral.steps], "groups": deferral.groups}


def _shares(values: list[float]) -> tuple[float, ...]:
    shares = tuple(map(float, values))
    if not all(0 <= share <= 1 for share in shares):
        raise InvalidValueError(f"mean_probs={shares} must be probabilities")
    return shares


def _deferral(values: dict[str, Any]) -> Deferral:
    steps = tuple(Step(float(limit), int(kept), int(errors)) for limit, kept, errors in values["steps"])
    return Deferral(steps, int(values["groups"]))
