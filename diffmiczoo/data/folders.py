"""Folders of labelled images: a sub-folder per class, or one per split with these inside."""

from __future__ import annotations

from pathlib import Path

from diffmiczoo.data.manifest import Record
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.items import list_images

#: Name of a folder that holds one split in a folder per class → the split.
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def folder_records(folder: Path) -> tuple[Record, ...]:
    """Reads a folder with a sub-folder per class, or with such folders in `train`, `val` and `test`.

    Raises:
        ImageError: a sub-folder holds no image.
        ValueError: there are not at least two sub-folders.
    """
    folders = _sub_folders(folder)
    if folders and all(entry.name.lower() in _SPLIT_FOLDERS and _sub_folders(entry) for entry in folders):
        return tuple(
            Record(path, (entry.name,), _SPLIT_FOLDERS[part.name.lower()])
            for part in folders
            for entry in _sub_folders(part)
            for path in list_images(entry)
        )
    if len(folders) < 2:
        raise InvalidValueError(f"{folder}: expected a labels.csv, or at least two sub-folders, one per class")
    return tuple(Record(path, (entry.name,)) for entry in folders for path in list_images(entry))


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
