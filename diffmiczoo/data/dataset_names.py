"""What the class numbers of a map-style dataset stand for by the dataset's own attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffmiczoo.data.labels import Numbering, is_bare, names_of, numbering_of
from diffmiczoo.errors import DiffMICError, InvalidValueError

#: Attributes that name class numbers: dictionaries of name → number or number → name, then lists in order.
_DICTIONARIES = ("class_to_idx", "idx_to_class", "id2label", "label2id")
_LISTS = ("classes", "class_names", "CLASSES", "categories", "label_names")


def own_numbering(dataset: Any) -> dict[int, str] | None:
    """Returns what a dataset's class numbers stand for by its own attributes; None where it does not say."""
    column = feature_column(dataset)
    if column is not None:
        return numbering_of(dataset.features[column].names, f"features[{column!r}].names")
    info = getattr(dataset, "info", None)
    if isinstance(info, Mapping) and isinstance(info.get("label"), Mapping):  # MedMNIST
        return numbering_of(info["label"], "info['label']")
    found = [numbering for numbering in _attributes(dataset) if numbering]
    named = [numbering for numbering in found if not is_bare(numbering.values())]
    found = named or found
    if any(other != found[0] for other in found[1:]):
        found = [numbering for numbering in found if _agrees_with_folders(dataset, numbering)]
        if not found:
            raise InvalidValueError(
                f"{kind_of(dataset)}: class_to_idx and classes number its classes differently; give class_names=[...]"
            )
    return found[0] if found else None


def numbering_or_none(dataset: Any, named: bool) -> dict[int, str] | None:
    """Returns `own_numbering`; where that contradicts itself, nothing if others name its numbers."""
    try:
        return own_numbering(dataset)
    except DiffMICError:
        if not named:
            raise
        return None


def _attributes(dataset: Any) -> Iterator[dict[int, str]]:
    for name in _DICTIONARIES:
        values = getattr(dataset, name, None)
        if isinstance(values, Mapping) and values:
            yield numbering_of(values, f"{kind_of(dataset)}.{name}")
    for name in _LISTS:
        values = getattr(dataset, name, None)
        if values is None or isinstance(values, str | Mapping) or callable(values):
            continue
        with suppress(DiffMICError):  # a count of classes, a set, lists of synonyms: no names
            names = names_of(values)
            # Numbers that are no texts are the labels themselves, not what their places are called.
            are_labels = bool(names) and not isinstance(next(iter(values)), str)
            yield {int(name): name for name in names} if are_labels else dict(enumerate(names))


def _agrees_with_folders(dataset: Any, numbering: Numbering) -> bool:
    samples = listed_samples(dataset)
    return bool(samples) and all(numbering.get(number) in path.parts for path, number in samples)


def feature_column(dataset: Any) -> str | None:
    """Returns the one column of a dataset of Hugging Face's `datasets` that holds classes with names."""
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):
        return None
    columns = [name for name, feature in features.items() if isinstance(getattr(feature, "names", None), list)]
    return str(columns[0]) if len(columns) == 1 else None


def listed_samples(dataset: Any) -> list[tuple[Path, Any]]:
    """Returns the (file, label) that a dataset lists for each of its images; [] where it does not."""
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, list | tuple) or len(samples) != len(dataset):
        return []
    pairs = all(isinstance(entry, tuple | list) and len(entry) == 2 for entry in samples)
    return [(Path(path), label) for path, label in samples] if pairs and _are_paths(samples) else []


def _are_paths(samples: Sequence[Sequence[Any]]) -> bool:
    return all(isinstance(path, str | Path) for path, _ in samples)


def kind_of(dataset: Any) -> str:
    """Returns what a dataset is called in messages: its class."""
    return type(dataset).__name__
