"""Images decoded and resized once: uint8 squares in memory, or in a file where memory would not do."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_squares

#: Squares of one data set that are kept in memory; larger sets go to a file, which the system caches as it can.
MEMORY_LIMIT = 4 * 2**30

# Counts the ways in which squares have been made; files of another way are not used.
_READER = 2


def load_squares(
    manifest: Manifest, config: DiffMICConfig, *, cache: Path | None = None, progress: bool | None = None
) -> tuple[Tensor, dict[str, str]]:
    """Decodes and resizes every image once.

    Args:
        manifest: what to read.
        config: the model's, for image size and crop.
        cache: a directory for the file of a large set, used again as long as the images are the same; by default a
            temporary file.
        progress: show a bar; by default where the standard error is a terminal.

    Returns:
        (N, 3, S, S) uint8, and name → message of what cannot be read; its square is black.
    """
    shape = (len(manifest), 3, config.image_size, config.image_size)
    if np.prod(shape, dtype=np.int64) <= MEMORY_LIMIT:
        squares = torch.zeros(shape, dtype=torch.uint8)
        return squares, _fill(squares, manifest, config, progress)
    if cache is None:
        with tempfile.NamedTemporaryFile(prefix="diffmiczoo-") as file:
            mapped = torch.from_numpy(np.memmap(file.name, np.uint8, "w+", shape=shape))
            return mapped, _fill(mapped, manifest, config, progress)  # the mapping outlives the name
    return _cached(cache, shape, manifest, config, progress)


def _cached(
    cache: Path, shape: tuple[int, ...], manifest: Manifest, config: DiffMICConfig, progress: bool | None
) -> tuple[Tensor, dict[str, str]]:
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"{_fingerprint(manifest, config)}.u8"
    errors: dict[str, str] = {}
    if not path.exists():
        partial = path.with_suffix(f".{os.getpid()}.partial")
        mapped = np.memmap(partial, np.uint8, "w+", shape=shape)
        errors = _fill(torch.from_numpy(mapped), manifest, config, progress)
        mapped.flush()
        partial.replace(path) if not errors else partial.unlink()
        if errors:
            return torch.from_numpy(mapped), errors
    # Copy on write: nobody writes, and torch warns of arrays that it could not write to.
    return torch.from_numpy(np.memmap(path, np.uint8, "c", shape=shape)), errors


def _fingerprint(manifest: Manifest, config: DiffMICConfig) -> str:
    """Returns a hash of what the squares depend on: files with size and time, and how they are resized."""
    digest = hashlib.sha256(f"{_READER} {config.image_size} {config.crop_mode} {config.interpolation}\n".encode())
    for record in manifest.records:
        status = record.path.stat() if record.source is None else None
        digest.update(f"{record.path} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:32]


def _fill(squares: Tensor, manifest: Manifest, config: DiffMICConfig, progress: bool | None) -> dict[str, str]:
    errors = {}
    hide = None if progress is None else not progress
    items = [record.item() for record in manifest.records]
    with tqdm(total=len(items), desc=f"read {manifest.name}", unit="img", disable=hide) as bar:
        for index, square in enumerate(read_squares(items, config)):
            if isinstance(square, ImageError):
                errors[items[index].name] = str(square)
            else:
                squares[index] = (square * 255).round() if square.is_floating_point() else square
            bar.update()
    return errors
