"""The files that a table lists: by path, or by a name or id that one file has."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from diffmiczoo.data.cells import single_cell, whole_number
from diffmiczoo.data.rows import Table
from diffmiczoo.data.table_text import is_undecoded
from diffmiczoo.errors import InvalidValueError, MissingFileError
from diffmiczoo.images.items import list_folder
from diffmiczoo.images.listing import IMAGE_EXTENSIONS

#: How a file was found, in the words of a note.
WRITTEN, SEPARATORS, BY_NAME, BY_ID = "", "Windows paths", "a name of a file in a sub-folder", "an id without extension"


@dataclass(frozen=True)
class Hit:
    """What a cell names.

    Attributes:
        path: the file; None where there is none.
        how: how it was found, one of the words above.
    """

    path: Path | None
    how: str = WRITTEN


@dataclass(frozen=True)
class Found:
    """A file of a table.

    Attributes:
        cell: as it is written.
        path: where it is.
        how: how it was found.
    """

    cell: str
    path: Path
    how: str = WRITTEN


class TableFiles:
    """Finds the files of a table.

    Args:
        folder: of the table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self, cell: str) -> bool:
        """Whether a cell names a file, or several."""
        try:
            return self.find(cell).path is not None
        except InvalidValueError:
            return True

    def find(self, cell: str) -> Hit:
        """Returns the file of a cell: relative to the table, or the one file below the table of that name or id.

        Raises:
            ValueError: several files have that name or id.
        """
        forms = [unicodedata.normalize(form, cell.strip()) for form in ("NFC", "NFD")]
        for text in dict.fromkeys((cell, cell.strip(), single_cell(cell), *forms)):
            if text and _is_file(self.folder / text):
                return Hit(self.folder / text)
        text = cell.strip()
        posix = text.replace("\\", "/")
        if not text or _is_elsewhere(posix) or ".." in PurePosixPath(posix).parts:
            return Hit(None)
        if _is_file(self.folder / posix):
            return Hit(self.folder / posix, SEPARATORS)
        found = self._search(PurePosixPath(posix))
        # Numbers in a column with gaps get a point from pandas.
        return self._search(PurePosixPath(whole_number(posix))) if found.path is None else found

    def _search(self, name: PurePosixPath) -> Hit:
        """Looks for the name, then for the id, in the folder that the cell names, then below the table."""
        has_extension = name.suffix.lower() in IMAGE_EXTENSIONS
        key, how = (name.name, BY_NAME) if has_extension else (name.name, BY_ID)
        candidates = (self._names if has_extension else self._stems).get(_alike(key), [])
        above = tuple(map(_alike, name.parts[:-1]))
        fitting = [path for path in candidates if _parents(path)[len(_parents(path)) - len(above) :] == above]
        exact = [path for path in fitting if (path.name if has_extension else path.stem) == key]
        near = [path for path in exact or fitting if path.parent == self.folder / name.parent]
        found = _different(near or exact or fitting)
        if len(found) > 1:
            raise InvalidValueError(f"{str(name)!r} may be {found[0]} or {found[1]}; write the path of the file")
        return Hit(found[0], how) if found else Hit(None)

    @cached_property
    def _names(self) -> dict[str, list[Path]]:
        return self._by("name")

    @cached_property
    def _stems(self) -> dict[str, list[Path]]:
        return self._by("stem")

    def _by(self, attribute: str) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in self._images:
            found[_alike(getattr(path, attribute))].append(path)
        return found

    @cached_property
    def _images(self) -> tuple[Path, ...]:
        return list_folder(self.folder, may_be_empty=True).images

    def reason(self, cell: str) -> str:
        """Says why a cell names no file, as far as that can be seen; the empty text where it cannot."""
        text = cell.strip()
        posix = text.replace("\\", "/")
        name, here = PurePosixPath(posix), self.folder
        if text.startswith("<"):
            return f"; the column holds {text.strip('<>')}, not the paths of image files"
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            return "; URLs are not fetched, download the files first"
        if len(text) > 4000:
            return ""
        if (here / posix).is_dir():
            return "; it is a folder, give a row for each of its files"
        same_name = self._names.get(_alike(name.name), [])
        if _is_elsewhere(posix):
            known = f"; {same_name[0].relative_to(here)} lies here" if same_name else ""
            return f": a path of another machine{known}. Make the paths relative to {here}"
        alike = self._stems.get(_alike(name.stem), [])
        if alike:
            return f"; {alike[0].relative_to(here)} lies there, with another extension"
        decoded = unquote(posix)
        if decoded != posix and self.exists(decoded):
            return f"; {decoded} lies there, write blanks and the like as they are, not as %20"
        nearby = self._nearby(posix)
        if nearby is not None:
            written = os.path.relpath(nearby, here.resolve())
            return f"; {nearby} does. Paths are relative to the table: move it, or write {written}"
        padded = [path.name for path in self._images if path.stem.lstrip("0") == text] if text.isdecimal() else []
        if padded:
            return f"; {padded[0]} lies there: the zeros in front were lost, as spreadsheets do; put them back"
        if name.suffix.lower() not in IMAGE_EXTENSIONS:
            return f"; no image of that name with any extension lies in {here} or below it"
        return ""

    def _nearby(self, posix: str) -> Path | None:
        """Returns the one file that a path means in the folder above the table's, or in a folder beside it."""
        above = self.folder.resolve().parent
        try:
            places = [above, *sorted(entry for entry in above.iterdir() if entry.is_dir())]
        except OSError:
            return None
        found = [place / posix for place in places if _is_file(place / posix)]
        return found[0] if len(found) == 1 else None


def find_files(
    table: Table, files: TableFiles, cells: Sequence[tuple[int, str]], *, all_needed: bool = True
) -> list[Found]:
    """Finds the files of rows.

    Args:
        table: that the rows belong to.
        files: that finds them.
        cells: line and cell of each row.
        all_needed: raise if any is missing; otherwise if all are, and a missing one gets the path that it would have.

    Raises:
        FileNotFoundError: files are missing; the message says how many, which first and, if it can be seen, why.
        ValueError: a name or id is that of several files.
    """
    found, missing = [], []
    for line, cell in cells:
        try:
            hit = files.find(cell)
        except InvalidValueError as error:
            raise InvalidValueError(f"{table.where(line)}: {error}") from error
        if hit.path is None:
            missing.append((line, cell))
        found.append(Found(cell, hit.path or files.folder / cell.strip(), hit.how))
    if missing and (all_needed or len(missing) == len(cells)):
        line, cell = missing[0]
        if is_undecoded(cell):
            raise InvalidValueError(f"{table.path}: is not UTF-8 ({table.unit} {line}: {cell!r}); save it as CSV UTF-8")
        shown = cell.strip() if len(cell) < 200 else f"{cell.strip()[:200]}…"
        raise MissingFileError(
            f"{table.path}: {len(missing)} of {len(cells)} files do not exist, first in {table.unit} {line}: "
            f"{files.folder / shown}{files.reason(cell)}"
        )
    return found


def how_found(found: Sequence[Found]) -> tuple[str, ...]:
    """Returns a sentence for each way, other than by its path, in which files were found."""
    notes = []
    for how in (SEPARATORS, BY_NAME, BY_ID):
        hits = [file for file in found if file.how == how]
        if hits:
            notes.append(f"{len(hits):,} files are found by {how}, first {hits[0].cell.strip()} → {hits[0].path}")
    return tuple(notes)


def _parents(path: Path) -> tuple[str, ...]:
    return tuple(map(_alike, path.parent.parts))


def _alike(name: str) -> str:
    """Returns what names have in common that differ in case, or in how letters with marks are written."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _is_elsewhere(posix: str) -> bool:
    """Whether a path that does not exist is absolute, here or in Windows."""
    return posix.startswith("/") or re.match(r"[A-Za-z]:", posix) is not None


def _different(paths: Sequence[Path]) -> list[Path]:
    """Returns files without copies of the first: some archives hold everything twice."""
    if len(paths) < 2:
        return list(paths)
    first = paths[0].read_bytes()
    return [paths[0], *(path for path in paths[1:] if path.read_bytes() != first)]


def file_cell(path: str) -> str:
    """Writes a path as a cell that `TableFiles.find` reads back: as it is, or as a JSON list where that is unsafe."""
    plain = path == path.strip() and path.isprintable() and not path.startswith(("[", "#"))
    return path if plain else json.dumps([path])
