"""The order of grades where their names prove it; nothing is ever ordered by the alphabet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from diffmiczoo.data.labels import is_bare
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import InvalidValueError, warn

#: Words of scales → rank. Names are compared without the words that all of them share and without `_FILLING`.
_SEVERITY = {
    "no": 0,
    "none": 0,
    "non": 0,
    "not": 0,
    "normal": 0,
    "healthy": 0,
    "absent": 0,
    "minimal": 1,
    "doubtful": 1,
    "questionable": 1,
    "very mild": 1,
    "mild": 2,
    "moderate": 3,
    "severe": 4,
    "very severe": 5,
    "proliferative": 5,
    "proliferate": 5,
    "pdr": 5,
}
_HEIGHT = {"very low": 0, "low": 1, "medium": 2, "intermediate": 2, "moderate": 2, "high": 3, "very high": 4}
_FILLING = {
    "dr",
    "npdr",
    "nonproliferative",
    "retinopathy",
    "disease",
    "finding",
    "findings",
    "grade",
    "stage",
    "level",
}
_FILLING |= {"demented", "dementia"}

_ROMAN = {text: rank for rank, text in enumerate("i ii iii iv v vi vii viii ix x".split(), start=1)}


def in_grade_order(manifest: Manifest) -> Manifest:
    """Returns the images with their classes in the order of grades, and says which that is where the names prove it.

    Raises:
        ValueError: the order was not given and the names do not prove one.
    """
    if manifest.ordered or is_bare(manifest.class_names):
        return replace(manifest, ordered=True)
    order = grade_order(manifest.class_names)
    if order is None and len(manifest.class_names) > 2:
        raise InvalidValueError(
            f"{manifest.name}: ordinal=True needs its classes in the order of the grades, but "
            f"{list(manifest.class_names)} is that of the alphabet; give class_names=[...] from the lowest grade to "
            "the highest (--class-names none,mild,moderate,severe)"
        )
    order = order or manifest.class_names  # two grades are as far from each other in either order
    if order != manifest.class_names:
        warn(f"{manifest.name}: grades in the order {', '.join(order)}; class_names=[...] gives another one")
    return manifest.with_classes(order)


def grade_order(names: Sequence[str]) -> tuple[str, ...] | None:
    """Returns names of grades from the lowest to the highest, None where they do not prove an order.

    They do with a number each ("grade 0", "0-none", "stage II") or with the words of one scale ("no DR", "mild", …).
    """
    words = [_words(name) for name in names]
    shared = set.intersection(*map(set, words)) if words else set()
    for ranks in (_numbers(names), *(_ranks(words, shared, scale) for scale in (_ROMAN, _SEVERITY, _HEIGHT))):
        known = [rank for rank in ranks if rank is not None]
        if len(known) == len(names) and len(set(known)) == len(names):
            return tuple(name for _, name in sorted(zip(known, names, strict=True)))
    return None


def _words(name: str) -> list[str]:
    """Returns the words of a name in lower case; a change from small to capital letters begins a new one."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", apart.lower())


def _numbers(names: Sequence[str]) -> list[float | None]:
    """Returns the only number of each name, if it comes first in all of them or they are otherwise the same."""
    found = [re.findall(r"\d+(?:\.\d+)?", name) for name in names]
    rest = {re.sub(r"\d+(?:\.\d+)?", "#", name.lower()) for name in names}
    if len(rest) > 1 and not all(re.match(r"\d", name) for name in names):
        return [None] * len(names)
    return [float(numbers[0]) if len(numbers) == 1 else None for numbers in found]


def _ranks(words: Sequence[Sequence[str]], shared: set[str], scale: dict[str, int]) -> list[float | None]:
    def rank(name: Sequence[str]) -> float | None:
        kept = " ".join(word for word in name if word not in shared | _FILLING)
        return scale.get(kept)

    return [rank(name) for name in words]
