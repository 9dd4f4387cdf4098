"""SHA-256 verification, with a marker file so that each file is hashed only once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import cache_directory, write_text

_CHUNK = 1 << 22


class ChecksumError(InvalidValueError):
    """A file's bytes are not the expected ones."""


@dataclass(frozen=True)
class FileHash:
    """What a file's content is: sha256 in hexadecimal, and size in bytes."""

    sha256: str
    size: int


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file's content in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def git_blob_sha1_of(path: Path) -> str:
    """Returns the name that git gives to a file's content; the Hub names small files so."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def verify(path: Path, expected: FileHash) -> None:
    """Compares a file with its hash; a file that was found right once is not read again while it is the same.

    Args:
        path: a file, or a link to one.
        expected: its content.

    Raises:
        ChecksumError: size or content differ; the message names both.
    """
    size = path.stat().st_size
    if size != expected.size:
        raise ChecksumError(f"{path} has {size:,} bytes, expected {expected.size:,}")
    marker = _marker(path)
    if _read(marker) == expected.sha256:
        return
    found = sha256_of(path)
    if found != expected.sha256:
        raise ChecksumError(f"{path} has sha256 {found}, expected {expected.sha256}")
    _write(marker, found)


def verify_against_name(path: Path) -> None:
    """Compares a file of the Hub's cache with its own name there, the hash that the Hub answered.

    Args:
        path: what `hf_hub_download` returns; a link to a blob, or on file systems without links the file itself, whose
            hash is then not known.

    Raises:
        ChecksumError: the content differs.
    """
    blob = path.resolve()
    if len(blob.name) == 64:
        verify(blob, FileHash(blob.name, blob.stat().st_size))
    elif len(blob.name) == 40 and (found := git_blob_sha1_of(blob)) != blob.name:
        raise ChecksumError(f"{path} has git hash {found}, expected {blob.name}")


def _marker(path: Path) -> Path:
    """Returns the file that remembers a verification; another or a changed file has another one."""
    state = path.stat()
    return cache_directory("verified") / f"{state.st_dev}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"


def _read(marker: Path) -> str | None:
    try:
        return marker.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None


def _write(marker: Path, content: str) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        write_text(marker, content)
    except OSError:
        # A cache that cannot be written costs time at the next load, nothing else.
        return
