"""What holds pictures and is none: open files, tables, data sets and their rows → what can be listed as items."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from diffmiczoo.errors import InvalidTypeError, InvalidValueError
from diffmiczoo.images.remote import Content

#: Names of columns that hold files or their ids, in lower case and without signs. The first is the package's own.
FILE_COLUMNS = tuple(
    "file filename filepath image imageid imageindex imagepath imagename imagefile imagefilename imagefilepath idcode "
    "path img imgid imgpath imgname isicid".split()
)

#: The same for pictures themselves.
PICTURE_COLUMNS = ("image", "img", "picture", "pixelvalues", "bytes")


def opened(entry: Any) -> Any:
    """Returns what is inside of something that holds pictures: a list, or a `Content`; None for anything else.

    - bytes, and files that are open in binary mode, from their beginning; `zipfile` members; objects with `read_bytes`;
    - iterators and other series of pictures in an order: generators, dict values, a pandas Series or Index;
    - tables with one column of files or pictures (pandas, polars, pyarrow, Hugging Face's datasets);
    - torch Datasets, whose pictures are read one by one; pydicom's datasets;
    - rows such as {"bytes": …, "path": …} and {"image": …}.

    Raises:
        TypeError: it has no order, or was opened as text.
        ValueError: a table has no such column or several, or a cell is empty; a file is closed.
    """
    if isinstance(entry, bytes | bytearray | memoryview):
        return Content("", partial(bytes, entry))
    if isinstance(entry, Mapping):
        return _of_row(entry)
    if isinstance(entry, set | frozenset):
        raise InvalidTypeError("a set has no order; expected a list, sorted(…) gives one")
    if type(entry).__module__.partition(".")[0] == "pydicom":
        return _of_dicom(entry)
    if _has_columns(entry):
        return _of_table(entry)
    if isinstance(entry, Dataset):
        return [Content("", partial(_picture_of, entry, row)) for row in range(_length(entry))]
    if callable(getattr(entry, "read_bytes", None)):  # zipfile.Path, importlib's Traversable, UPath
        return Content(str(entry), entry.read_bytes)
    if callable(getattr(entry, "read", None)):
        return _of_file(entry)
    return _as_list(entry)


def _as_list(entry: Any) -> list[Any] | None:
    if isinstance(entry, np.ndarray):
        return entry.tolist() if entry.ndim == 1 and entry.dtype.kind in "OU" else None
    for method in ("to_pylist", "to_list", "tolist"):  # pyarrow, polars and pandas, and what is like them
        if _is_series(entry) and callable(getattr(entry, method, None)):
            cells: list[Any] = getattr(entry, method)()
            return [_filled(cell, f"entry {row} of the {type(entry).__name__}") for row, cell in enumerate(cells)]
    ordered = isinstance(entry, Iterator) or type(entry).__name__ in ("dict_values", "dict_keys", "deque")
    return list(entry) if ordered else None


def _is_series(entry: Any) -> bool:
    return type(entry).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow", "datasets")


# ---------------------------------------------------------------------- files that are open


def _of_file(file: Any) -> Content:
    name = getattr(file, "name", "")
    name = name if isinstance(name, str) else ""
    shown = name or f"the {type(file).__name__}"
    try:
        # As Pillow does: a buffer that was just written stands at its end.
        if getattr(file, "seekable", lambda: False)():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError) as error:
        raise InvalidValueError(
            f"{shown} cannot be read ({error}); hand in its path, or a file that is open"
        ) from error
    if not isinstance(content, bytes | bytearray | memoryview):
        found = type(content).__name__
        raise InvalidTypeError(f'{shown} gives {found}, not bytes; open it with open(path, "rb")')
    return Content(name, partial(bytes, content))


def _of_dicom(dataset: Any) -> Any:
    if not hasattr(dataset, "save_as"):
        return _as_list(dataset)

    def read() -> bytes:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=False)
        return buffer.getvalue()

    name = getattr(dataset, "filename", "")
    return Content(name if isinstance(name, str) else "", read, "expected a DICOM image")


# ---------------------------------------------------------------------- tables and data sets


def bare(name: Any) -> str:
    """Returns the name of a column in lower case and without signs."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def _has_columns(entry: Any) -> bool:
    return not isinstance(entry, type) and (hasattr(entry, "columns") or hasattr(entry, "column_names"))


def _of_table(table: Any) -> list[Any]:
    kind = type(table).__name__
    names = getattr(table, "column_names", None)
    names = list(getattr(table, "columns", []) if names is None else names)
    if hasattr(table, "column_names") and hasattr(
        table, "features"
    ):  # Hugging Face's, whose cells are decoded one by one
        column = _column(kind, names, lambda name: table[0][name] if len(table) else None)
        return [Content("", partial(_picture_of, table, row, column)) for row in range(len(table))]
    column = _column(kind, names, lambda name: next(iter(table[name]), None))
    cells = table[column]
    listed = next(getattr(cells, method)() for method in ("to_pylist", "to_list", "tolist") if hasattr(cells, method))
    return [_filled(cell, f"row {row} of the {kind}, column {column!r},") for row, cell in enumerate(listed)]


def _column(kind: str, names: Sequence[Any], first: Callable[[Any], Any]) -> Any:
    """Returns the column of files or pictures: the only one, "file", or the one with a known name.

    Where several have one, it is the one whose first cell is a picture or a file that is there.
    """
    if len(names) == 1:
        return names[0]
    known = [name for name in names if bare(name) in (*FILE_COLUMNS, *PICTURE_COLUMNS)]
    if "file" in known or len(known) == 1:
        return "file" if "file" in known else known[0]
    usable = [name for name in known if _is_usable(first(name))]
    if len(usable) == 1:
        return usable[0]
    shown = ", ".join(repr(name) for name in (known or names)[:10])
    found = "several columns that may hold files" if known else "no column of files among"
    raise InvalidValueError(f'the {kind} has {found}: {shown}; hand in one, such as table["file"]')


def _is_usable(cell: Any) -> bool:
    if hasattr(cell, "as_py"):
        cell = cell.as_py()
    if isinstance(cell, str | os.PathLike):
        return os.path.exists(cell)
    return cell is not None and not isinstance(cell, int | float)


def _filled(cell: Any, where: str) -> Any:
    """Returns a cell that is not empty.

    Raises:
        ValueError: it is empty; the message names the row.
    """
    if cell is None or cell == "" or (isinstance(cell, float) and cell != cell):
        raise InvalidValueError(f"{where} is empty; expected a file or a picture")
    return cell


def _of_row(row: Mapping[Any, Any]) -> Any:
    content, path = row.get("bytes"), row.get("path")
    if isinstance(content, bytes | bytearray | memoryview):
        return Content(os.fspath(path) if isinstance(path, str | os.PathLike) else "", partial(bytes, content))
    known = [name for name in row if bare(name) in (*FILE_COLUMNS, *PICTURE_COLUMNS) and row[name] is not None]
    if len(known) != 1:
        keys = ", ".join(map(repr, list(row)[:5])) or "nothing"
        raise InvalidTypeError(
            f'a dict with {keys} is not an image; expected one picture under "image", {{"bytes": …, "path": …}}, or '
            "list(dict.values()) for a dict of pictures"
        )
    return [row[known[0]]]


def _picture_of(dataset: Any, row: int, column: Any = None) -> Any:
    """Returns the picture of a row of a data set, whose rows may be (picture, label, …) or dicts."""
    found = dataset[row] if column is None else dataset[row][column]
    while isinstance(found, tuple | list | Mapping):
        inside = _of_row(found) if isinstance(found, Mapping) else found[:1]
        if isinstance(inside, Content):
            return inside.read()
        if not inside:
            raise InvalidValueError(f"row {row} is empty; expected a picture")
        found = inside[0]
    return found


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        raise InvalidTypeError(
            f"a {type(dataset).__name__} has no length; hand in its pictures, such as [row[0] for row in dataset]"
        ) from None
