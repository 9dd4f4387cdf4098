"""The sets of MedMNIST by name: classes in words, official splits, DermaMNIST-C by its lists, MedMNIST-C."""

from __future__ import annotations

import importlib
import logging
import os
import threading
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from diffmiczoo.data.arrays import npz_records
from diffmiczoo.data.catalog import DATASETS
from diffmiczoo.data.labels import label_names
from diffmiczoo.data.manifest import SPLITS, Reading, Record
from diffmiczoo.data.medmnist_names import MedMNISTName
from diffmiczoo.data.rows import read_rows
from diffmiczoo.errors import InvalidValueError, MissingFileError

#: What `Reading.benchmark` says of sets whose published figures are ACC and AUC of `medmnist.evaluator`.
BENCHMARK = "medmnist"

#: Severities of each corruption of MedMNIST-C: a file holds the test split once for each, one behind the other.
SEVERITIES = 5

#: Lists of Abhishek et al.: the HAM10000 image of each row of DermaMNIST, and lesion and new split of each image. The
#: first of the second kind is the one that their files were made from.
_ROWS = "dermamnist_split_info.csv"
_LESIONS = ("combined_metadata_corrected-HAM10000_corrected.csv", "combined_metadata_corrected.csv")

_logger = logging.getLogger("diffmiczoo")
_reading = threading.Lock()


def medmnist_records(name: MedMNISTName, *, named: bool = True) -> Reading:
    """Reads a set of MedMNIST with its official splits.

    Args:
        name: see `parse_medmnist`.
        named: whether classes get MedMNIST's names; numbers else, for somebody who has other names for them.

    Raises:
        FileNotFoundError: its file is missing and cannot be downloaded; the message says how to get it.
        ValueError: the file is another set's or another size's, or lists do not belong to it.
    """
    names = name.known.class_names if named else ()
    if name.corrupted:
        found = Reading(_corrupted_records(name), (f"MedMNIST-C: {SEVERITIES} severities of each corruption",))
    elif name.flag == "dermamnist_corrected" and not name.file.is_file() and (name.folder / _ROWS).is_file():
        found = _corrected(name)
    else:
        found = _official(name)
    records = found.records
    if names:
        records = tuple(record.with_labels(names[int(label)] for label in record.labels) for record in records)
    return replace(
        found,
        records=records,
        names=names or tuple(map(str, range(len(name.known.class_names)))),
        notes=_notes(name, found),
        task="multilabel" if name.known.multilabel else "multiclass",
        ordered=named and name.known.ordinal,
        benchmark="" if name.corrupted else BENCHMARK,
    )


def _notes(name: MedMNISTName, found: Reading) -> tuple[str, ...]:
    about = f"{name.text}: {name.known.license}" + (f"; {name.known.note}" if name.known.note else "")
    counts = Counter(record.split for record in found.records)
    other = [
        f"{counts[split]:,} in {split} instead of {number:,}"
        for split, number in zip(SPLITS, name.known.num_images, strict=True)
        if counts[split] != number and not name.corrupted
    ]
    incomplete = f"it has not the published images, but {', '.join(other)}: published figures are for others"
    return (about, *found.notes, *([incomplete] if other else []))


def _official(name: MedMNISTName) -> Reading:
    """Returns the images of a set's own file, their classes still numbers, and lesions where DermaMNIST's lists lie."""
    if not name.file.is_file():
        _download(name)
    found = _checked_numbers(name, npz_records(name.file))
    if name.flag == "dermamnist" and (name.folder / _ROWS).is_file():
        table = _lesion_table(name.folder, required=False)
        if table is not None:
            rows = _listed(found.records, table, name)
            records = [replace(each, group=row["lesion_id"], columns=row) for each, row in zip(*rows, strict=True)]
            note = f"{_ROWS} and {table.name} say which lesion an image shows"
            return Reading(tuple(records), (note,))
    return found


def _corrected(name: MedMNISTName) -> Reading:
    """Returns DermaMNIST-C: the images of DermaMNIST in the splits of its authors' lists, in any size."""
    plain = replace(name, flag="dermamnist")
    if not plain.file.is_file():
        raise MissingFileError(
            f"{name.text}: {name.folder} holds neither {name.file.name} nor {plain.file.name}, which {_ROWS} divides"
        )
    table = _lesion_table(name.folder, required=True)
    found = _checked_numbers(plain, npz_records(plain.file))
    rows = _listed(found.records, table, plain)
    records = [
        replace(each, split=row["split"], group=row["lesion_id"], columns=row) for each, row in zip(*rows, strict=True)
    ]
    return Reading(tuple(records), (f"{plain.file.name} in the splits of {table.name}, by {_ROWS}",))


def _lesion_table(folder: Path, *, required: bool) -> Any:
    found = next((folder / name for name in _LESIONS if (folder / name).is_file()), None)
    if found is None and required:
        raise MissingFileError(f"{folder}: holds {_ROWS}, but needs {_LESIONS[0]} as well, which has the new splits")
    return found


def _listed(
    records: Sequence[Record], table: Path, name: MedMNISTName
) -> tuple[Sequence[Record], list[dict[str, str]]]:
    """Returns the images and the row of each in the table of lesions, after a check of each label against it."""
    classes = DATASETS["ham10000"].class_names  # in the order of DermaMNIST's numbers
    images = {(row["split"], int(row["index"])): row["image_id"] for _, row in read_rows(name.folder / _ROWS)}
    lesions = {row["image_id"]: row for _, row in read_rows(table)}
    rows, places = [], Counter[str | None]()
    for record in records:
        place = (record.split or "", places[record.split])
        places[record.split] += 1
        row = lesions.get(images.get(place, ""))
        if row is None:
            raise InvalidValueError(
                f"{name.file}: {_ROWS} and {table.name} do not list its {place[0]} image {place[1]}"
            )
        if row["dx"] not in classes or record.labels != (str(classes.index(row["dx"])),):
            raise InvalidValueError(
                f"{name.file}: its {place[0]} image {place[1]} has label {record.labels[0]}, {table.name} says "
                f"{row['dx']} ({row['image_id']}): the lists belong to another file"
            )
        rows.append(row)
    return records, rows


def _checked_numbers(name: MedMNISTName, found: Reading) -> Reading:
    """Returns what was read; raises ValueError where it cannot be the set or the size that was asked for."""
    size = next((np.shape(record.source)[:2] for record in found.records), (name.size, name.size))
    if size != (name.size, name.size):
        raise InvalidValueError(
            f"{name.file}: its images are {size[0]}×{size[1]} pixels, not {name.size}×{name.size}; is it another file "
            "that was given this name?"
        )
    known = set(map(str, range(len(name.known.class_names))))
    other = sorted({label for record in found.records for label in record.labels} - known)
    if other or len(found.names) != (len(known) if name.known.multilabel else 0):  # it names the places of vectors
        what = f"the classes {other}" if other else "labels of another kind"
        raise InvalidValueError(f"{name.file}: has {what}, which {name.flag} has not; is it another set's file?")
    return found


def _download(name: MedMNISTName) -> None:
    """Lets the package `medmnist` fetch a set's file.

    Raises:
        FileNotFoundError: it is not installed, the network may not be asked, it does not know the set, or it fails.
    """
    missing = f"{name.text}: {name.file.name} is not in {name.folder}"
    other = f"give its folder as {name.text}:FOLDER (or MEDMNIST_ROOT=FOLDER)"
    if not name.known.bare_28:
        raise MissingFileError(
            f"{missing}; its authors say where it is: github.com/kakumarabhishek/Corrected-Skin-Image-Datasets; {other}"
        )
    how = f"download it from https://doi.org/10.5281/zenodo.10519652, {other}"
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise MissingFileError(f"{missing}, and HF_HUB_OFFLINE forbids the network; {how}")
    try:
        package = importlib.import_module("medmnist")
    except ImportError as error:
        raise MissingFileError(f"{missing}; {how}, or pip install medmnist, which fetches it") from error
    _logger.warning(f"{name.text}: {name.file.name} is fetched into {name.folder} by the package medmnist")
    try:
        name.folder.mkdir(parents=True, exist_ok=True)
        data_set = getattr(package, package.INFO[name.flag]["python_class"])
        data_set(split="test", download=True, root=str(name.folder), size=name.size)
    except Exception as error:  # whatever its download raises
        raise MissingFileError(f"{missing}, and medmnist could not fetch it ({error}); {how}") from error
    if not name.file.is_file():
        raise MissingFileError(f"{missing}, though medmnist fetched something; {how}")


# ---------------------------------------------------------------------- MedMNIST-C


def _corrupted_records(name: MedMNISTName) -> tuple[Record, ...]:
    """Lists the images of FOLDER/NAME/CORRUPTION.npz; pixels are read file by file, when they are needed.

    As `medmnistc.dataset_manager` writes them: `test_images` and `test_labels` of the whole test split for severity 1,
    then for 2, and so on.
    """
    inside = name.folder / name.flag
    folder = inside if inside.is_dir() else name.folder
    if name.corruption:
        files = [folder / f"{name.corruption}.npz"]
    else:
        files = sorted(folder.glob("*.npz")) if folder.name == name.flag else []
    if not files or not files[0].is_file():
        have = ", ".join(sorted(file.stem for file in folder.glob("*.npz"))) if folder.name == name.flag else ""
        raise MissingFileError(
            f"{name.text}: {inside / (name.corruption or 'CORRUPTION')}.npz is not there; expected the folder that "
            f"MedMNIST-C was unpacked into{f', which has {have}' if have else ''}"
        )
    return tuple(record for file in files for record in _of_corruption(file, name))


def _of_corruption(file: Path, name: MedMNISTName) -> list[Record]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            labels = arrays["test_labels"]
    except (zipfile.BadZipFile, ValueError, OSError, KeyError) as error:
        raise InvalidValueError(
            f"{file}: is no file of MedMNIST-C with test_images and test_labels ({error})"
        ) from error
    count, rest = divmod(len(labels), SEVERITIES)
    if rest or not count or any((part != labels[:count]).any() for part in np.split(labels, SEVERITIES)):
        raise InvalidValueError(
            f"{file}: its {len(labels):,} labels are not {SEVERITIES} times those of one test split, once a severity"
        )
    classes = {number: str(number) for number in range(len(name.known.class_names))}
    return [
        Record(
            Path(f"{file}#{place // count + 1}_{place % count}"),
            label_names(label, classes, f"{file}, test_labels[{place}]"),
            "test",
            group=f"test_{place % count}",
            source=partial(_corrupted_image, file, place),
            columns={"corruption": file.stem, "severity": str(place // count + 1)},
        )
        for place, label in enumerate(labels)
    ]


def _corrupted_image(file: Path, place: int) -> np.ndarray:
    with _reading:  # or two threads would read the same file
        return _images_of(file)[place]


@lru_cache(maxsize=1)
def _images_of(file: Path) -> np.ndarray:
    with np.load(file, allow_pickle=False) as arrays:
        return arrays["test_images"]
