"""Labels of a map-style dataset by the names that the dataset itself has for its class numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

from diffmiczoo.data.dataset_names import feature_column, kind_of, listed_samples, numbering_or_none
from diffmiczoo.data.labels import Numbering, is_bare, label_names, label_order, vector_classes
from diffmiczoo.errors import DiffMICError, InvalidTypeError, warn
from diffmiczoo.images.items import ImageError, reading_errors
from diffmiczoo.runtime.progress import progress_bar

#: Keys of an item that is a dictionary.
_IMAGE_KEYS, _LABEL_KEYS = ("image", "img", "pixel_values"), ("label", "labels", "target", "targets")

#: Packages whose datasets give in an item what they list as `samples`, `targets` or `labels`.
_TRUSTED = ("torchvision.datasets", "medmnist")

#: Attributes by which one dataset wraps another.
_INNER = ("dataset", "subset", "base_dataset", "base", "ds")


@dataclass(frozen=True)
class DatasetLabels:
    """What a dataset says of its N images without decoding more of them than needed.

    Attributes:
        given: labels as the dataset gives them.
        labels: the same by names of classes.
        classes: names of its classes in its order; () where it has none.
        keys: what tells each image from all others.
    """

    given: list[Any]
    labels: list[tuple[str, ...]]
    classes: tuple[str, ...]
    keys: list[Hashable]


def dataset_labels(dataset: Any, named: bool = False) -> DatasetLabels:
    """Reads the labels of a dataset, by names where the dataset has names for its class numbers.

    The labels are those of the items. Lists of labels (`targets`, `labels`, `samples`) stand for the items where the
    dataset is torchvision's or MedMNIST's own and changes no label on the way; all items are read else. A dataset whose
    items have other labels than its list has no names for them, because nothing says what the new numbers mean.

    Args:
        dataset: map-style; items are (image, label) or dictionaries.
        named: whether the caller knows what class numbers stand for that the dataset has no names for.

    Raises:
        TypeError: an item is not (image, label), or a label is none.
        ValueError: a label is not a class.
    """
    own_items = _defined_by(dataset, "__getitem__")
    if isinstance(dataset, ConcatDataset) and own_items is ConcatDataset:
        return _joined([dataset_labels(part, named) for part in dataset.datasets])
    if isinstance(dataset, Subset):
        part = _taken(dataset_labels(dataset.dataset, named), np.asarray(dataset.indices, dtype=int).tolist())
        return part if own_items is Subset else _of_wrapper(dataset, part, named)
    inner = _inner(dataset)
    if inner is not None:
        return _of_wrapper(dataset, dataset_labels(inner, named), named)
    numbering = numbering_or_none(dataset, named)
    given, contradiction = _labels_of_items(dataset, numbering)
    if contradiction:
        _tell_refuted(dataset, numbering, contradiction, named)
        numbering = None
    return _named(dataset, given, numbering, _keys(dataset))


def item_pair(dataset: Any, index: int) -> tuple[Any, Any]:
    """Returns image and label of an item, which is a pair of both or a dictionary with both.

    Raises:
        TypeError: it is neither.
    """
    entry = dataset[index]
    if isinstance(entry, Mapping):
        label_key = feature_column(dataset)
        image = [key for key in _IMAGE_KEYS if key in entry]
        label = [label_key] if label_key in entry else [key for key in _LABEL_KEYS if key in entry]
        if len(image) == len(label) == 1:
            return entry[image[0]], entry[label[0]]
        raise InvalidTypeError(f"{kind_of(dataset)}[{index}] has the keys {list(entry)}; expected image and label")
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise InvalidTypeError(f"{kind_of(dataset)}[{index}] is not a pair (image, label)")
    return entry[0], entry[1]


def _labels_of_items(dataset: Any, numbering: Numbering | None) -> tuple[list[Any], str]:
    """Returns the labels of all items, and what speaks against `numbering`, "" if nothing does."""
    listed = _listed(dataset)
    if listed is None:
        return _read_labels(dataset), ""
    if _changes_no_label(dataset) and _first_items_agree(dataset, listed):
        return listed, _folder_contradiction(dataset, listed, numbering)
    given = _read_labels(dataset)
    return given, _contradiction(given, listed, numbering) or _folder_contradiction(dataset, given, numbering)


def _read_labels(dataset: Any) -> list[Any]:
    given = []
    with progress_bar(len(dataset), f"read labels of {kind_of(dataset)}", "img", None, leave=False) as bar:
        for index in range(len(dataset)):
            with reading_errors(f"{kind_of(dataset)}[{index}]"):
                given.append(item_pair(dataset, index)[1])
            bar.update()
    return given


def _first_items_agree(dataset: Any, listed: Sequence[Any]) -> bool:
    """Compares three items with the list; a picture that cannot be read is named later, with all others."""
    for index in {0, len(listed) // 2, len(listed) - 1}:
        with suppress(ImageError), reading_errors(""):
            if not _same(item_pair(dataset, index)[1], listed[index]):
                return False
    return True


def _folder_contradiction(dataset: Any, given: Sequence[Any], numbering: Numbering | None) -> str:
    """Says which image lies in the folder of another class than its label gives."""
    names = set(numbering.values()) if numbering else set()
    for (path, _), label in zip(listed_samples(dataset), given, strict=False):
        folders = names & set(path.parts)
        with suppress(DiffMICError):
            if folders and not folders & set(label_names(label, numbering, "")):
                return f"{path} lies in the folder of {min(folders)} and has label {label!r}"
    return ""


def _contradiction(given: Sequence[Any], listed: Sequence[Any], numbering: Numbering | None) -> str:
    for index, (label, other) in enumerate(zip(given, listed, strict=True)):
        by_name = numbering is not None and _either_name(label, other, numbering)
        if not by_name and not _same(label, other):
            return f"item {index} has label {label!r} and its own list of labels {other!r}"
    return ""


def _either_name(label: Any, other: Any, numbering: Numbering) -> bool:
    """Returns whether one of two labels is the name of the other."""
    with suppress(DiffMICError):
        return label_names(label, numbering, "") == label_names(other, numbering, "")
    return False


def _same(one: Any, other: Any) -> bool:
    with suppress(DiffMICError):
        return label_names(one, None, "") == label_names(other, None, "")
    return False


def _listed(dataset: Any) -> list[Any] | None:
    """Returns the labels that a dataset lists beside its items, one for each of them; None where it does not."""
    samples = listed_samples(dataset)
    if samples:
        return [label for _, label in samples]
    for name in ("targets", "labels"):
        values = getattr(dataset, name, None)
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            continue
        if len(listed := list(values)) == len(dataset):
            return listed
    return None


def _changes_no_label(dataset: Any) -> bool:
    together = getattr(dataset, "transforms", None)
    return (
        _defined_by(dataset, "__getitem__").__module__.startswith(_TRUSTED)
        and getattr(dataset, "target_transform", None) is None
        and (together is None or getattr(together, "target_transform", dataset) is None)
    )


def _defined_by(dataset: Any, method: str) -> type:
    return next((kind for kind in type(dataset).__mro__ if method in vars(kind)), type(dataset))


def _keys(dataset: Any) -> list[Hashable]:
    """Returns the files of the images where the dataset lists them, else places in this very object."""
    samples = listed_samples(dataset)
    if samples:
        return [path.resolve() for path, _ in samples]
    return [(id(dataset), index) for index in range(len(dataset))]


def _inner(dataset: Any) -> Any:
    """Returns the dataset that another one wraps image by image; None where it wraps none."""
    for name in _INNER:
        inner: Any = getattr(dataset, name, None)
        if (
            inner is not dataset
            and callable(getattr(inner, "__getitem__", None))
            and not isinstance(inner, Sequence | Mapping | np.ndarray)
        ):
            with suppress(TypeError, ValueError):
                if len(inner) == len(dataset) and _has_items(inner):
                    return inner
    return None


def _has_items(dataset: Any) -> bool:
    try:
        return len(dataset) > 0 and bool(item_pair(dataset, 0))
    except Exception:  # a table, a tensor: whatever it raises, its entries are no images with labels
        return False


def _of_wrapper(dataset: Any, inner: DatasetLabels, named: bool) -> DatasetLabels:
    """Names the labels of a dataset around another one, by the inner names as long as its labels are the inner ones."""
    given = _read_labels(dataset)
    own = numbering_or_none(dataset, named)
    changed = _contradiction(given, inner.given, own)
    if own is None and not changed:
        return DatasetLabels(given, inner.labels, inner.classes, inner.keys)
    if own is not None and changed and set(own.values()) == set(inner.classes):
        _tell_refuted(dataset, own, changed, named)
        own = None
    return _named(dataset, given, own, inner.keys)


def _tell_refuted(dataset: Any, numbering: Numbering | None, why: str, named: bool) -> None:
    """Says, unless others name them, that class numbers are not those that a dataset has names for."""
    if numbering and not named:
        warn(
            f"{kind_of(dataset)}: {why}, so that its classes {list(numbering.values())} do not name these labels; they "
            "are read as bare numbers. class_names=[...] says what the numbers stand for"
        )


def _named(dataset: Any, given: list[Any], numbering: Numbering | None, keys: list[Hashable]) -> DatasetLabels:
    labels = [label_names(label, numbering, f"{kind_of(dataset)}[{index}]") for index, label in enumerate(given)]
    if numbering is not None:
        classes = tuple(numbering[number] for number in sorted(numbering))
    else:
        classes = vector_classes(given[0]) if given else ()
    return DatasetLabels(given, labels, tuple(sorted(classes, key=label_order)) if is_bare(classes) else classes, keys)


def _taken(whole: DatasetLabels, indices: list[int]) -> DatasetLabels:
    def take(values: list[Any]) -> list[Any]:
        return [values[index] for index in indices]

    return DatasetLabels(take(whole.given), take(whole.labels), whole.classes, take(whole.keys))


def _joined(parts: list[DatasetLabels]) -> DatasetLabels:
    classes = dict.fromkeys(name for part in parts for name in part.classes)
    return DatasetLabels(
        [label for part in parts for label in part.given],
        [label for part in parts for label in part.labels],
        tuple(classes),
        [key for part in parts for key in part.keys],
    )
