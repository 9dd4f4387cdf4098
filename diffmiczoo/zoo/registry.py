"""The registered names: which there are, and what each stands for. Light: no torch."""

from __future__ import annotations

import difflib
import fnmatch
import os
import re
from collections.abc import Sequence

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.names import local_name
from diffmiczoo.zoo.architectures import architectures
from diffmiczoo.zoo.plain import DESCRIPTION, PREFIX, is_plain, known_to_timm, list_plain
from diffmiczoo.zoo.weights import ALIASES, WEIGHTS, Weights


def list_models(
    filter: str | Sequence[str] = "",
    pretrained: bool = False,
    tags: bool | None = None,
    exclude_filters: str | Sequence[str] = (),
) -> list[str]:
    """Returns the registered names in natural order ("resnet9" before "resnet18").

    These are architectures ("diffmicv2_nano"), weights ("diffmicv2_nano.ham10000") and short names of data sets'
    recommended weights ("diffmicv2_ham10000"). Plain classifiers, which are timm's models, are listed where they are
    asked for: by a filter that begins with "timm/", such as "timm/resnet*".

    Args:
        filter: wildcards as in a shell ("diffmicv2_nano*"), or a part of the name; of several any may match.
        pretrained: only names whose weights exist.
        tags: False leaves out the names of weights, `architecture.tag`, True returns only them.
        exclude_filters: what is left out, in the same form.
    """
    names = [name for name in all_names() if not pretrained or has_weights(name)]
    if tags is not None:
        names = [name for name in names if ("." in name) is tags]
    if not pretrained and not tags:
        asked = [filter] if isinstance(filter, str) else filter
        names += [name for pattern in asked if pattern.startswith(PREFIX) for name in list_plain(pattern)]
    found = _matching(names, filter) - (_matching(names, exclude_filters) if exclude_filters else set())
    return sorted(found, key=_natural)


def list_pretrained(filter: str | Sequence[str] = "", exclude_filters: str | Sequence[str] = ()) -> list[str]:
    """Lists the registered names whose weights exist; the arguments are those of `list_models`."""
    return list_models(filter, pretrained=True, exclude_filters=exclude_filters)


def is_model(name: str) -> bool:
    """Returns whether a name is registered, or "timm/" and a name of timm's, so that `create_model` builds it."""
    return known_to_timm(name) if is_plain(name) else name in all_names()


def _matching(names: list[str], filters: str | Sequence[str]) -> set[str]:
    patterns = [filters] if isinstance(filters, str) else filters
    wild = [pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*" for pattern in patterns]
    return {name for pattern in wild for name in fnmatch.filter(names, pattern)}


def all_names() -> list[str]:
    """Returns every registered name."""
    return [*architectures(), *WEIGHTS, *ALIASES]


def resolve(name: str) -> tuple[str, Weights | None]:
    """Returns the architecture and the weights that a registered name stands for.

    Raises:
        ValueError: the name is not registered; the message suggests the nearest names.
    """
    weights = WEIGHTS.get(ALIASES.get(name, name))
    if weights is not None:
        return weights.architecture, weights
    if name in architectures() or known_to_timm(name):
        return name, None
    raise InvalidValueError(_unknown_message(name))


def pretrained_weights(name: str) -> Weights | None:
    """Returns what `create_model(name, pretrained=True)` loads; of an architecture its first weights that exist.

    Raises:
        ValueError: the name is not registered.
    """
    architecture, named = resolve(name)
    candidates = [named] if named is not None else [w for w in WEIGHTS.values() if w.architecture == architecture]
    return next((weights for weights in candidates if weights.exists), None)


def has_weights(name: str) -> bool:
    """Returns whether `create_model(name, pretrained=True)` finds weights of a registered name."""
    return pretrained_weights(name) is not None


def weights_state(name: str) -> str:
    """Returns where the weights of a registered name are, in the words of `ModelInfo.weights`."""
    named, found = resolve(name)[1], pretrained_weights(name)
    if found is None:
        return "none" if named is None else "not published"
    state = "shipped" if found.ships else "on the Hub"
    return state if named is not None else f"{state} as {found.name}"


def describe(name: str) -> str:
    """Returns the card of a registered name in one paragraph."""
    architecture, weights = resolve(name)
    if is_plain(name):
        return DESCRIPTION.format(name.removeprefix(PREFIX))
    text = (architectures()[architecture].__doc__ or "").strip()
    if weights is None:
        return text
    state = {
        "shipped": "weights ship with the package",
        "on the Hub": f"weights are on the Hub, {weights.repository}",
        "not published": "weights are not published yet",
    }[weights_state(name)]
    own = "The architecture as it is now; what the weights are is in `config`:"
    return f"{weights.description} Entry {weights.name}: {state}. {own}\n\n    {text}"


def _natural(name: str) -> list[tuple[int, str]]:
    """Returns a key that sorts digits as numbers."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def _unknown_message(name: str) -> str:
    if os.path.isdir(name):
        return f"{name!r} is a directory; write {local_name(name)} to load weights from it"
    near = difflib.get_close_matches(name, list_plain(PREFIX) if is_plain(name) else all_names(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"the names are {', '.join(list_models())}"
    return f"unknown model {name!r}; {hint}"
