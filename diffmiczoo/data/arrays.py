"""Labelled images that are no files of their own: MedMNIST's `.npz` and datasets of torch."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffmiczoo.data.dataset_labels import dataset_labels, item_pair
from diffmiczoo.data.labels import label_names, names_of, vector_classes
from diffmiczoo.data.manifest import SPLITS, Reading, Record
from diffmiczoo.errors import InvalidTypeError, InvalidValueError, MissingFileError

#: Arrays of an `.npz` that name its class numbers.
_NAMES = ("class_names", "classes", "label_names")


def npz_records(path: Path) -> Reading:
    """Reads a file like MedMNIST's: `train_images` (N, H, W[, 3]) uint8 and `train_labels` (N, 1) or (N, L), and so on.

    Class numbers get the names of an array `class_names` where there is one, else they are called "0", "1", ….

    Args:
        path: the file; arrays of Python objects in it are refused.

    Raises:
        FileNotFoundError: it does not exist.
        ValueError: it is not such a file, or a label has no name.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise MissingFileError(f"{path} does not exist; expected a file of arrays") from error
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise InvalidValueError(f"{path}: is not a file of plain arrays ({error})") from error
    splits = [split for split in SPLITS if f"{split}_images" in arrays]
    if not splits:
        raise InvalidValueError(
            f"{path}: needs train_images and train_labels, like a file of MedMNIST; found {[*arrays]}"
        )
    named = next((name for name in _NAMES if name in arrays), None)
    names = () if named is None else names_of(arrays[named], f"{path}: {named}")
    records = tuple(record for split in splits for record in _npz_split(path, split, arrays, names))
    given = [label for split in splits for label in arrays[f"{split}_labels"]]
    task = _task(given, [record.labels for record in records])
    return Reading(records, names=names or vector_classes(given[0]) if given else names, task=task)


def _npz_split(path: Path, split: str, arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> list[Record]:
    images, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
    if labels is None or len(labels) != len(images):
        found = "no" if labels is None else len(labels)
        raise InvalidValueError(f"{path}: {split}_labels holds {found} labels for {len(images)} images")
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3, 4))):
        raise InvalidValueError(
            f"{path}: {split}_images is {images.dtype} {images.shape}; expected uint8 (N, H, W[, 3])"
        )
    numbering = dict(enumerate(names)) or None
    return [
        Record(
            Path(f"{path}#{split}_{index}"),
            label_names(label, numbering, f"{path}, {split}_labels[{index}]"),
            split,
            source=image,
        )
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def dataset_records(dataset: Any, named: bool = False) -> Reading:
    """Lists the images of a map-style torch Dataset of (image, label); an image is taken from it when it is needed.

    Args:
        dataset: has `__len__` and `__getitem__`; an item is (image, label), or a dictionary of both: a PIL image, array
            or tensor as `predict` takes it, and a label as `labels.label_names` reads it, by the names that the dataset
            has for its class numbers (`classes`, `class_to_idx`, `features`, MedMNIST's `info`; also behind `Subset`,
            `ConcatDataset` and wrappers).
        named: whether the caller knows what class numbers stand for that the dataset has no names for.

    Raises:
        TypeError: it is not such a dataset.
        ValueError: a label is not a class.
    """
    if isinstance(dataset, Mapping):
        raise InvalidTypeError(f"a {type(dataset).__name__} is not read; hand in a list of pairs (image, label)")
    if hasattr(dataset, "to_csv"):
        raise InvalidTypeError(f"a {type(dataset).__name__} is not read; save it with to_csv and hand in the file")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        advice = "; hand in its dataset" if hasattr(dataset, "dataset") else ""
        raise InvalidTypeError(f"a {type(dataset).__name__} is not a map-style dataset of (image, label){advice}")
    kind, found = type(dataset).__name__, dataset_labels(dataset, named)
    records = tuple(
        Record(
            key if isinstance(key, Path) else Path(f"{kind}[{index}]"),
            labels,
            source=partial(_image_of, dataset, index),
            key=key,
        )
        for index, (labels, key) in enumerate(zip(found.labels, found.keys, strict=True))
    )
    return Reading(records, names=found.classes, task=_task(found.given, found.labels))


def _image_of(dataset: Any, index: int) -> Any:
    return item_pair(dataset, index)[0]


def _task(given: Sequence[Any], labels: Sequence[tuple[str, ...]]) -> str | None:
    """Tells the task from vectors of 0 and 1, in which none may be 1; None where they are one-hot or no vectors."""
    several = any(vector_classes(label) and len(names) != 1 for label, names in zip(given, labels, strict=True))
    return "multilabel" if several else None
