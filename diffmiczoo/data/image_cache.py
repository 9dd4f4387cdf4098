"""Images of a manifest read once: uint8 squares in memory, or in a mapped file where memory would not do."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import UnusableFileError
from diffmiczoo.files import replaced
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_squares
from diffmiczoo.runtime.progress import progress_bar

#: The largest set of squares, in bytes, that is held in memory; a larger one goes to a mapped file.
MEMORY_LIMIT = 4 * 2**30

# Counts the ways in which squares have been made; files of another way are not used.
_READER = 2


def load_squares(
    manifest: Manifest, config: DiffMICConfig, *, cache: Path | None = None, progress: bool | None = None
) -> Tensor:
    """Reads every image as a square of the model's size.

    Args:
        manifest: what to read.
        config: the model's, for image size and crop.
        cache: a directory for the file of a large set, used again as long as the images are the same files; by default,
            and for images that are no files of their own, a temporary file.
        progress: show a bar; by default where the standard error is a terminal.

    Returns:
        (N, 3, S, S) uint8.

    Raises:
        ImageError: images cannot be read; the message names the first ones.
        OSError: the file cannot be written.
    """
    shape = (len(manifest), 3, config.input_size, config.input_size)
    if np.prod(shape, dtype=np.int64) <= MEMORY_LIMIT:
        squares = torch.zeros(shape, dtype=torch.uint8)
        _fill(squares, manifest, config, progress)
        return squares
    # What a dataset or an array gives is known by its place alone, so that another one would look the same.
    if cache is not None and all(record.source is None for record in manifest.records):
        return _mapped_cache(cache, shape, manifest, config, progress)
    # The system frees a file without a name when the last mapping of it goes, that is with the tensor.
    with tempfile.NamedTemporaryFile(prefix="diffmiczoo-") as file:
        _reserve(file, shape)
        mapped = torch.from_numpy(np.memmap(file.name, np.uint8, "r+", shape=shape))
        _fill(mapped, manifest, config, progress)
        return mapped


def _mapped_cache(
    cache: Path, shape: tuple[int, ...], manifest: Manifest, config: DiffMICConfig, progress: bool | None
) -> Tensor:
    """Maps the file of these squares, and makes it first where there is none.

    A mapped file costs no memory of its own: the system reads the parts that are asked for and forgets them when
    others need the room, and all processes of a training share what is read. The name holds a hash of all that the
    squares depend on, so a file is either right or not found; it gets that name when it is complete.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{_fingerprint(manifest, config)}.u8"
    if not path.exists():
        with replaced(path) as file:
            _reserve(file, shape)
            mapped = np.memmap(file.name, np.uint8, "r+", shape=shape)
            _fill(torch.from_numpy(mapped), manifest, config, progress)
            mapped.flush()
    # Copy on write: nobody writes, and torch warns of arrays that it could not write to.
    return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape))


def remove_partial_squares(cache: Path) -> None:
    """Removes the unfinished files, each of gigabytes, that killed processes left; nobody else may be writing there."""
    for partial in cache.glob(".*.u8.*.partial"):
        partial.unlink(missing_ok=True)


def _reserve(file: Any, shape: tuple[int, ...]) -> None:
    """Makes a file as large as the squares need: a mapped file that finds no room later kills the process.

    Raises:
        OSError: the disk has not so much room; the message says how much it needs.
    """
    size = int(np.prod(shape, dtype=np.int64))
    free = shutil.disk_usage(Path(file.name).parent).free
    if free < size:
        raise UnusableFileError(
            f"{Path(file.name).parent}: the decoded images need {size / 2**30:.1f} GiB and {free / 2**30:.1f} are "
            "free; make room, or choose another directory"
        )
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def _fingerprint(manifest: Manifest, config: DiffMICConfig) -> str:
    """Returns a hash of what the squares depend on: files with size and time, and how they are resized."""
    digest = hashlib.sha256(f"{_READER} {config.input_size} {config.crop_mode} {config.interpolation}\n".encode())
    for record in manifest.records:
        status = record.path.stat()
        digest.update(f"{record.path} {(status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:32]


def _fill(squares: Tensor, manifest: Manifest, config: DiffMICConfig, progress: bool | None) -> None:
    """Reads every image into its place; all are tried before the ones that cannot be read are named together."""
    errors: list[ImageError] = []
    items = [record.item() for record in manifest.records]
    with progress_bar(len(items), f"read {manifest.name}", "img", progress) as bar:
        for index, square in enumerate(read_squares(items, config)):
            if isinstance(square, ImageError):
                errors.append(square)
            else:
                squares[index] = as_bytes(square)
            bar.update()
    if errors:
        raise ImageError(manifest.name, _unreadable(errors, len(items)))


def as_bytes(square: Tensor) -> Tensor:
    """Returns a square as it is held in memory: uint8, also where it was read with more than 8 bits."""
    return (square * 255).round().to(torch.uint8) if square.is_floating_point() else square


def _unreadable(errors: Sequence[ImageError], count: int) -> str:
    first = "\n  ".join(str(error) for error in errors[:10])
    more = f"\n  … and {len(errors) - 10} more" if len(errors) > 10 else ""
    return f"{len(errors)} of {count} images cannot be read; mend them or take them out of the data:\n  {first}{more}"
