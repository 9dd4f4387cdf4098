"""What lies in a folder, entry after entry: what `listing.scan_folder` finds, in memory that does not grow with it."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from diffmiczoo.errors import DiffMICError, UnusableFileError
from diffmiczoo.images.listing import (
    IMAGE_EXTENSIONS,
    MASK,
    MASK_FIRST,
    RUN_FILES,
    THUMBNAIL,
    bases,
    folder_kind,
    is_image,
    is_system,
    natural_name,
)
from diffmiczoo.images.sniffing import is_dicom_directory, start_of

#: Entries of one folder that are sorted in memory; more are sorted in a file.
_SORTED_IN_MEMORY = 50_000

#: A word of it is in every name that `MASK`, `MASK_FIRST` or `THUMBNAIL` knows.
_HINT = re.compile("mask|seg|truth|gt|thumb", re.IGNORECASE)


class Found(NamedTuple):
    """An entry of a folder: "images", "others", "masks", "thumbnails" or "runs", as the fields of `Listing`."""

    kind: str
    path: str


class FolderOfMasksError(DiffMICError, RuntimeError):
    """There is a folder of masks or thumbnails: which of them belong to pictures, only the whole listing can tell."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: a folder of masks or thumbnails, which was not there at the beginning; start again")


def walk(root: str, *, in_order: bool) -> Iterator[Found]:
    """Yields what lies in a folder and below it, but for what belongs to operating systems.

    Args:
        root: where to look.
        in_order: in natural order, for which the entries of a large folder are sorted in a temporary file; without it
            as the file system gives them, which takes half the time.

    Raises:
        OSError: it, or a part of it, cannot be listed; or there is no room for what is sorted.
        FolderOfMasksError: this cannot be done one by one.
    """
    below = [_entries(root, in_order)]
    while below:
        found = next(below[-1], None)
        if found is None:
            below.pop()
        elif found.kind != "folder":
            yield found
        elif folder_kind(os.path.basename(found.path)):
            raise FolderOfMasksError(found.path)
        elif all(os.path.lexists(os.path.join(found.path, file)) for file in RUN_FILES):
            yield Found("runs", found.path)
        else:
            below.append(_entries(found.path, in_order))


def _entries(folder: str, in_order: bool) -> Iterator[Found]:
    """Yields what lies in one folder; sub-folders as "folder"."""
    own = _own_pictures(folder)
    names = _names(folder)
    for name in _sorted(names) if in_order else names:
        path = name.removesuffix(os.sep) if folder == os.curdir else os.path.join(folder, name.removesuffix(os.sep))
        kind = "folder" if name.endswith(os.sep) else _kind(path, own)
        if kind:
            yield Found(kind, path)


def _names(folder: str) -> Iterator[str]:
    """Yields the names in a folder, those of sub-folders that are to be looked into with a slash behind them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system(entry.name):
                continue
            if not _is_folder(entry):
                yield entry.name
            elif not entry.is_symlink():
                yield entry.name + os.sep


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _kind(path: str, own: frozenset[str]) -> str:
    """Returns what a file is; nothing for a DICOMDIR."""
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending.lower() not in IMAGE_EXTENSIONS:
        start = start_of(path)
        if start and is_dicom_directory(start):
            return ""
        if not is_image(Path(path), start):
            return "others"
    if not own:
        return "images"
    if not own.isdisjoint(bases(stem, (MASK, MASK_FIRST))):
        return "masks"
    return "images" if own.isdisjoint(bases(stem, (THUMBNAIL,))) else "thumbnails"


def _own_pictures(folder: str) -> frozenset[str]:
    """Returns the names, without endings, of the pictures in a folder that a mask or thumbnail there may belong to.

    What is held are the pictures that have masks, not all; most folders have none.
    """
    wanted = {base for name in _names(folder) for base in _bases_of(name)}
    if not wanted:
        return frozenset()
    stems = ((name, os.path.splitext(name)[0]) for name in _names(folder) if not name.endswith(os.sep))
    found = (
        stem for name, stem in stems if stem in wanted and _kind(os.path.join(folder, name), frozenset()) == "images"
    )
    return frozenset(found)


def _bases_of(name: str) -> list[str]:
    return bases(os.path.splitext(name)[0], (MASK, MASK_FIRST, THUMBNAIL)) if _HINT.search(name) else []


def _sorted(names: Iterator[str]) -> Iterator[str]:
    """Yields the names of a folder in natural order."""
    few = list(islice(names, _SORTED_IN_MEMORY))
    if len(few) < _SORTED_IN_MEMORY:
        yield from sorted(few, key=_key)
    else:
        yield from _sorted_in_a_file(chain(few, names))


def _sorted_in_a_file(names: Iterator[str]) -> Iterator[str]:
    # SQLite's sorter: a private database that it keeps in a temporary file, and removes. The order of bytes in UTF-8 is
    # that of texts in Python.
    with closing(sqlite3.connect("", check_same_thread=False)) as database:
        try:
            database.execute("CREATE TABLE names (key BLOB, name BLOB)")
            rows = ((_key(name).encode("utf-8", "surrogatepass"), os.fsencode(name)) for name in names)
            database.executemany("INSERT INTO names VALUES (?, ?)", rows)
            for (name,) in database.execute("SELECT name FROM names ORDER BY key"):
                yield os.fsdecode(name)
        except sqlite3.Error as error:
            raise UnusableFileError(f"no room to sort its names ({error}); set TMPDIR to a folder with some") from error


def _key(name: str) -> str:
    return natural_name(name.removesuffix(os.sep))
