"""Files that are whole or not there, what is found out before they are written, and JSON whose faults are named."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from diffmiczoo.errors import InvalidValueError, UnusableFileError

_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|stdin|(stdout)|(stderr))|/proc/self/fd/(\d+)")
# What a file that may be written and not replaced says: it is mounted by itself, or its directory is another's.
_NOT_REPLACED = (errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file for writing, and puts it in the place of `path` when all of it is on the disk.

    A process that is killed, or an error within the context, leaves the old file as it was. A link stays one, and
    owner and permissions stay. What is no file, such as /dev/stdout or a pipe, is written to as it is.

    Raises:
        OSError: the directory cannot be written, or the disk is full; the error names `path`.
    """
    if is_stream(path):
        with naming(path), opened_stream(path) as file:
            yield file
        return
    path = Path(os.path.realpath(path))
    here = os.access(path.parent, os.W_OK) or not path.exists()
    temporary = beside(path if here else Path(tempfile.gettempdir(), path.name), f".{os.getpid()}.partial", hidden=True)
    try:
        with naming(path, temporary):
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            put_in_place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def put_in_place(new: Path, path: Path) -> None:
    """Moves a file to where another one may be, whose owner and permissions it gets.

    Where the old one may be written and not replaced, as one that is mounted into a container by itself, it is written
    anew.

    Raises:
        OSError: neither is possible.
    """
    with suppress(FileNotFoundError):
        status = path.stat()
        if hasattr(os, "chown"):
            with suppress(OSError):
                os.chown(new, -1, status.st_gid)
                os.chown(new, status.st_uid, -1)
        new.chmod(stat.S_IMODE(status.st_mode))
    try:
        os.replace(new, path)
    except OSError as error:
        if error.errno not in _NOT_REPLACED or not os.access(path, os.W_OK):
            raise
        shutil.copyfile(new, path)
        new.unlink()


def beside(path: Path, ending: str, hidden: bool = False) -> Path:
    """Returns the path of a file in the same directory, its name and an ending, cut to what file systems take."""
    start = "." if hidden else ""
    name = os.fsencode(path.name)[: 255 - len(start + ending)]
    return path.with_name(start + os.fsdecode(name) + ending)


@contextmanager
def naming(path: Path, *others: Path) -> Iterator[None]:
    """Within the context, an `OSError` that names no file, or one of `others`, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or error.filename in map(str, others)):
            error.filename, error.filename2 = str(path), None
        raise


def cache_directory(topic: str) -> Path:
    """Returns where diffmiczoo remembers what it found out of a topic: beside the Hub's cache, see HF_HOME."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "diffmiczoo" / topic


# ---------------------------------------------------------------------- what is no file


def is_stream(path: Path) -> bool:
    """Whether a path is written to as it is: a device, a pipe, or what this process has open, such as /dev/stdout."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def opened_stream(path: Path) -> BinaryIO:
    """Opens what `is_stream` is true of.

    Raises:
        OSError: it cannot be opened.
    """
    number = _descriptor(path)
    if number is None:
        return path.open("wb")
    if sys.stdout is not None:
        sys.stdout.flush()
    # Opened by its name, a file behind it would be cut to nothing, with what the shell or others have written.
    return os.fdopen(os.dup(number), "wb")


def _descriptor(path: Path) -> int | None:
    """Returns the number of what this process has open under a name such as /dev/stdout, links followed."""
    text = os.path.abspath(path)
    for _ in range(40):
        found = _DESCRIPTOR.fullmatch(text)
        if found:
            own, stdout, stderr, proc = found.groups()
            return 1 if stdout else 2 if stderr else int(own or proc or 0)
        if not os.path.islink(text):
            break
        text = os.path.normpath(os.path.join(os.path.dirname(text), os.readlink(text)))
    return None


# ---------------------------------------------------------------------- before anything is computed


def check_file(path: Path, option: str) -> None:
    """Refuses a file that could not be written when the work is done.

    Args:
        path: of the file.
        option: what it was given as, for the message.

    Raises:
        ValueError: the message names the path, the option and what is wrong.
    """
    if str(path) in ("", "."):
        raise InvalidValueError(f"{option} is empty; give it the name of a file")
    number = _descriptor(path)
    if number is not None:
        with naming(path):
            os.fstat(number)
        return
    if path.is_dir():
        raise InvalidValueError(f"{path} is a directory; {option} needs a file")
    real = Path(os.path.realpath(path))
    if real.is_symlink():
        raise InvalidValueError(f"{path} is a link that leads nowhere; give {option} another file")
    if not real.parent.is_dir():
        parent = real.parent if path.is_symlink() else path.parent
        raise InvalidValueError(f"{parent} is not a directory; {option} needs one that exists")
    if not os.access(real if real.exists() else real.parent, os.W_OK):
        raise InvalidValueError(f"{path} may not be written (permissions); give {option} another file")


# ---------------------------------------------------------------------- text and JSON


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


def check_directory(directory: Path) -> None:
    """Raises where nothing can be written into a directory, or where it cannot be made; leaves nothing behind.

    Raises:
        OSError: it is a file, below one, or not writable; the message says which.
    """
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise UnusableFileError(f"{directory} cannot be a directory: {existing} is none")
    try:
        # What a system allows is only known when it was tried: rights, full disks, read-only file systems.
        with tempfile.TemporaryFile(dir=existing, prefix=".diffmiczoo-"):
            pass
    except OSError as error:
        raise UnusableFileError(f"{directory}: nothing can be written into {existing} ({error.strerror})") from error
