"""Files that are whole or not there, and JSON files whose faults are named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from diffmiczoo.errors import InvalidValueError


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file beside `path` for writing, and puts it in its place when all of it is on the disk.

    A process that is killed, or an error within the context, leaves the old file as it was. A link stays one, and what
    is no file, such as /dev/stdout, is written to as it is.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a file by a whole new one, in UTF-8; names that are not UTF-8 keep their bytes.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    with replaced(path) as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def read_json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not JSON, or no object; the message names it.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(values, dict):
        raise InvalidValueError(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values
