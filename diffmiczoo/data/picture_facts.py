"""Images of a data set read once for what is compared and counted of them; only small numbers stay in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.duplicates import Prints
from diffmiczoo.data.image_cache import as_bytes
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_sized_squares
from diffmiczoo.images.quiet import quiet_decoders
from diffmiczoo.images.reading import FORMATS
from diffmiczoo.runtime.progress import progress_bar

#: Squares that are computed on at once.
_BATCH = 64

#: How images are seen: whole, so that what was squeezed or has a border is still compared, and small.
SEEN = DiffMICConfig(num_classes=2, image_size=128, crop_mode="squash")

#: In grey levels: how much a row of a border may vary, and the largest spread of an image that shows nothing.
_EVEN = 8

_COLUMNS = (
    *("height", "width", "shape", "bytes per pixel", "JPEG tables", "format"),  # of files
    *("colour", "border red", "border green", "border blue", "top", "bottom", "left", "right", "mean", "spread"),
)

#: The statistics, each with its columns; what an image lacks is 0.
STATISTICS = {
    "size in pixels": ("height", "width"),
    "shape (width by height)": ("shape",),
    "file format": ("format",),
    "compression": ("bytes per pixel", "JPEG tables"),
    "colour or grey": ("colour",),
    "colour of the border": ("border red", "border green", "border blue"),
    "width of the border": ("top", "bottom", "left", "right"),
    "mean grey": ("mean",),
    "contrast": ("spread",),
}


@dataclass(frozen=True, eq=False)
class PictureFacts:
    """What was read of the images of a manifest.

    Attributes:
        places: in the manifest, of the M images that can be read and show something.
        prints: what they are compared by.
        unreadable: what is wrong with those that cannot be read.
        blank: places of the images that show nothing, all of one grey.
        statistics: name, of `STATISTICS` → (M, columns) float64.
    """

    places: list[int]
    prints: Prints
    unreadable: list[str]
    blank: list[int]
    statistics: dict[str, np.ndarray]

    @property
    def cut(self) -> str:
        """A sentence on copies that are not found among these images; the empty text where that is unlikely."""
        shapes = self.statistics["shape (width by height)"][:, 0]
        several = len(shapes) > 1 and shapes.max() > 1.02 * shapes.min()
        bordered = (self.statistics["width of the border"] > 0).any(1).sum() if len(shapes) else 0
        if not several and not bordered:
            return ""
        why = [*(["differ in shape"] if several else []), *([f"have a border ({bordered:,})"] if bordered else [])]
        return f"images {' and '.join(why)}: copies that were cut, or whose border was cut off, are not found"


def read_facts(manifest: Manifest, progress: bool | None = None) -> PictureFacts:
    """Reads each image once.

    Args:
        manifest: the images.
        progress: show a bar; by default where the standard error is a terminal.
    """
    reader = _Reader(manifest, progress)
    prints = Prints.of(reader.batches(), len(manifest))
    of_files = np.array([[*file.numbers, reader.kinds[file.kind]] for file in reader.files], dtype=np.float64)
    rows = np.hstack([of_files, np.concatenate(reader.of_pixels)]) if reader.files else np.zeros((0, len(_COLUMNS)))
    statistics = {name: rows[:, [_COLUMNS.index(each) for each in names]] for name, names in STATISTICS.items()}
    return PictureFacts(reader.places, prints, reader.unreadable, reader.blank, statistics)


class _File(NamedTuple):
    """What a file says of itself: height, width, shape, bytes per pixel and JPEG tables; and its format and mode."""

    numbers: tuple[float, ...]
    kind: str


class _Reader:
    """Gives squares in batches, and notes everything else on the way."""

    def __init__(self, manifest: Manifest, progress: bool | None) -> None:
        self.manifest, self.progress = manifest, progress
        self.places: list[int] = []
        self.unreadable: list[str] = []
        self.blank: list[int] = []
        self.files: list[_File] = []
        self.kinds: dict[str, int] = {}
        self.of_pixels: list[np.ndarray] = []

    def batches(self) -> Iterator[Tensor]:
        squares: list[Tensor] = []
        records = self.manifest.records
        read = read_sized_squares([record.item() for record in records], SEEN)
        with progress_bar(len(records), f"read {self.manifest.name}", "img", self.progress) as bar:
            for place, found in enumerate(read):
                bar.update()
                if isinstance(found, ImageError):
                    self.unreadable.append(str(found))
                    continue
                square = as_bytes(found.pixels)
                if int(square.max()) - int(square.min()) <= _EVEN:
                    self.blank.append(place)
                    continue
                self.places.append(place)
                self.files.append(_of_file(records[place], *found.size))
                self.kinds.setdefault(self.files[-1].kind, len(self.kinds))
                squares.append(square)
                if len(squares) == _BATCH:
                    yield self._noted(squares)
                    squares.clear()
        if squares:
            yield self._noted(squares)

    def _noted(self, squares: list[Tensor]) -> Tensor:
        batch = torch.stack(squares)
        self.of_pixels.append(_pixel_statistics(batch).numpy())
        return batch


def _of_file(record: Record, height: int, width: int) -> _File:
    size, kind, tables = (0, "", 0) if record.source is not None else _header(record.path)
    return _File((height, width, width / height, size / (height * width), tables), kind)


def _header(file: Path) -> tuple[int, str, int]:
    """Returns the size of a file in bytes, its format, mode and ending, and the sum of its JPEG tables."""
    try:
        with quiet_decoders(), Image.open(file, formats=FORMATS) as image:
            tables = getattr(image, "quantization", None) or {}
            kind = f"{image.format} {image.mode} {file.suffix.lower()}"
            return os.path.getsize(file), kind, sum(sum(table) for table in tables.values())
    except Exception:  # no picture of Pillow's, such as DICOM: its ending says what it is
        return 0, file.suffix.lower(), 0


def _pixel_statistics(squares: Tensor) -> Tensor:
    """Returns colour, red, green and blue of the border, its width on four sides, mean and spread of squares, (B, 10).

    Widths are shares of a side; colours are 0..255.
    """
    values = squares.float()
    grey = values.mean(1)
    colour = (values.amax(1) - values.amin(1)).mean((1, 2))
    ring = torch.cat([values[..., 0, :], values[..., -1, :], values[..., 0], values[..., -1]], dim=-1).median(-1).values
    sides = [grey, grey.flip(1), grey.mT, grey.mT.flip(1)]
    widths = torch.stack([_even_rows(side) for side in sides], dim=1)
    spread = grey.flatten(1).std(1)
    return torch.cat([colour[:, None], ring, widths, grey.mean((1, 2))[:, None], spread[:, None]], dim=1).double()


def _even_rows(grey: Tensor) -> Tensor:
    """Returns the share (B,) of the rows of pictures (B, H, W) from the top that are even and alike."""
    mean = grey.mean(2)
    even = (grey.std(2) <= _EVEN / 2) & ((mean - mean[:, :1]).abs() <= _EVEN)
    return even.cumprod(1).float().mean(1)
