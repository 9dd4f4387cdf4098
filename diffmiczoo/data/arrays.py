"""Labelled images that are no files of their own: MedMNIST's `.npz` and datasets of torch."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffmiczoo.data.manifest import SPLITS, Record
from diffmiczoo.errors import InvalidTypeError, InvalidValueError, MissingFileError


def npz_records(path: Path, class_names: Sequence[str] | None = None) -> tuple[Record, ...]:
    """Reads a file like MedMNIST's: `train_images` (N, H, W[, 3]) uint8 and `train_labels` (N, 1) or (N, L), and so on.

    Args:
        path: the file; arrays of Python objects in it are refused.
        class_names: what the numbers 0, 1, … of the labels stand for; by default they are called "0", "1", ….

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
    return tuple(record for split in splits for record in _npz_split(path, split, arrays, class_names))


def _npz_split(
    path: Path, split: str, arrays: dict[str, np.ndarray], class_names: Sequence[str] | None
) -> list[Record]:
    images, labels = arrays[f"{split}_images"], arrays.get(f"{split}_labels")
    if labels is None or len(labels) != len(images):
        found = "no" if labels is None else len(labels)
        raise InvalidValueError(f"{path}: {split}_labels holds {found} labels for {len(images)} images")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise InvalidValueError(
            f"{path}: {split}_images is {images.dtype} {images.shape}; expected uint8 (N, H, W[, 3])"
        )
    rows = labels.reshape(len(labels), -1)
    names = [_labels_of(row if rows.shape[1] > 1 else row[0], class_names, f"{path}, {split}") for row in rows]
    return [
        Record(Path(f"{path}#{split}_{index}"), name, split, None, image)
        for index, (image, name) in enumerate(zip(images, names, strict=True))
    ]


def dataset_records(dataset: Any, class_names: Sequence[str] | None = None) -> tuple[Record, ...]:
    """Lists the images of a map-style torch Dataset of (image, label); an image is taken from it when it is needed.

    Args:
        dataset: has `__len__` and `__getitem__`; an item is (image, label): a PIL image, array or tensor as `predict`
            takes it, and a class number, a name, or a vector of 0 and 1. An attribute `targets` saves reading all
            items once for the labels.
        class_names: what the class numbers stand for; by default the dataset's own `classes`, else "0", "1", ….

    Raises:
        TypeError: it is not such a dataset.
        ValueError: a label is not a class.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise InvalidTypeError(f"a {type(dataset).__name__} is not a map-style dataset of (image, label)")
    kind, names = type(dataset).__name__, class_names or getattr(dataset, "classes", None)
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) != len(dataset):
        targets = [_image_and_label(dataset, index)[1] for index in range(len(dataset))]
    return tuple(
        Record(
            Path(f"{kind}[{index}]"),
            _labels_of(target, names, f"{kind}[{index}]"),
            source=partial(_image_of, dataset, index),
        )
        for index, target in enumerate(targets)
    )


def _image_and_label(dataset: Any, index: int) -> tuple[Any, Any]:
    entry = dataset[index]
    if not isinstance(entry, tuple | list) or len(entry) != 2:
        raise InvalidTypeError(f"{type(dataset).__name__}[{index}] is not a pair (image, label)")
    return entry[0], entry[1]


def _image_of(dataset: Any, index: int) -> Any:
    return _image_and_label(dataset, index)[0]


def _labels_of(label: Any, names: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """Returns the names of a class number, of a name, or of the ones in a vector of 0 and 1."""
    if isinstance(label, str):
        return (label,)
    values = np.asarray(label.detach().cpu() if isinstance(label, torch.Tensor) else label)
    if values.ndim == 0:
        if values.dtype.kind not in "biu":
            raise InvalidTypeError(f"{where}: label {label!r} is no class number; expected an integer or a name")
        return (_class_name(int(values), names, where),)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        raise InvalidValueError(f"{where}: label {label!r} is neither a class number nor a vector of 0 and 1")
    return tuple(_class_name(int(index), names, where) for index in values.nonzero()[0])


def _class_name(index: int, names: Sequence[str] | None, where: str) -> str:
    if names is None:
        return str(index)
    if not 0 <= index < len(names):
        raise InvalidValueError(f"{where}: label {index} is not a place in the classes {list(names)}")
    return names[index]
