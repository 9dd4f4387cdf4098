"""Pictures decoded and resized once: uint8 squares in memory, or in a file where memory would not do."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.records import Manifest, Record
from diffmiczoo.preprocessing import ImageError, read_image, resize_to_square

#: Squares of one data set that are kept in memory; larger sets go to a file, which the system caches as it can.
MEMORY_LIMIT = 4 * 2**30

#: From this number of files on, several processes decode.
_WORTH_PROCESSES = 256
_MOST_PROCESSES = 8


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
    digest = hashlib.sha256(f"{config.image_size} {config.crop_mode} {config.interpolation}\n".encode())
    for record in manifest.records:
        status = record.path.stat() if record.source is None else None
        digest.update(f"{record.path} {status and (status.st_size, status.st_mtime_ns)}\n".encode())
    return digest.hexdigest()[:32]


def _fill(squares: Tensor, manifest: Manifest, config: DiffMICConfig, progress: bool | None) -> dict[str, str]:
    errors = {}
    hide = None if progress is None else not progress
    with tqdm(total=len(manifest), desc=f"read {manifest.name}", unit="img", disable=hide) as bar:
        for index, square in enumerate(_decoded(manifest, config)):
            if isinstance(square, str):
                errors[str(manifest.records[index].path)] = square
            else:
                squares[index] = square
            bar.update()
    return errors


def _decoded(manifest: Manifest, config: DiffMICConfig) -> Iterator[Tensor | str]:
    """Yields the square of every image, or what is wrong with it."""
    pictures = _Pictures(manifest.records, config)
    files = all(record.source is None for record in manifest.records)
    processes = min(os.cpu_count() or 1, _MOST_PROCESSES) if files and len(pictures) >= _WORTH_PROCESSES else 0
    # A picture at a time: the loader's own collation would copy each batch.
    yield from DataLoader(pictures, batch_size=None, num_workers=processes, prefetch_factor=16 if processes else None)


class _Pictures(Dataset["Tensor | str"]):
    def __init__(self, records: tuple[Record, ...], config: DiffMICConfig) -> None:
        self.records, self.config = records, config

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            square = resize_to_square(read_image(self.records[index].item()), self.config)
        except ImageError as error:
            return str(error)
        return (square * 255).round().to(torch.uint8) if square.is_floating_point() else square
