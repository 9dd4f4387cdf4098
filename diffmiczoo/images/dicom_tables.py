"""Lookup tables of DICOM: modality, VOI and palette."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffmiczoo.images.items import ImageError
from diffmiczoo.images.pixels import stretch

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False)
class Table:
    """Values that replace the numbers from `first` on; numbers beyond its ends get its ends.

    pydicom 3.0 looks up in the type of the results, so that a number above 255 wraps around in a table of 8 bits, and
    it knows neither tables of 9 to 15 bits nor those whose values do not fill the bits that they are said to have.
    """

    first: int
    values: np.ndarray

    def look_up(self, numbers: np.ndarray) -> np.ndarray:
        """Returns an array of the same shape."""
        places = np.rint(numbers).astype(np.int64) if numbers.dtype.kind == "f" else numbers.astype(np.int64)
        found: np.ndarray = self.values[np.clip(places - self.first, 0, len(self.values) - 1)]
        return found

    @property
    def white(self) -> int:
        """The end of the range that the values use: 2^bits - 1 with no more bits than the largest needs.

        The third number of the descriptor should say so; tables of 12-bit values are often said to have 16.
        """
        return int(2 ** max(1, int(self.values.max()).bit_length()) - 1)


def table_in(header: Dataset, sequence: str, signed: bool) -> Table | None:
    """Reads the first table of a sequence, None where there is none or it is empty.

    Args:
        header: of the file.
        sequence: keyword of the sequence.
        signed: numbers that are looked up may be negative, so the table's first number may be as well.
    """
    items = header.get(sequence)
    if not items:
        return None
    return _table(items[0].get("LUTDescriptor"), items[0].get("LUTData"), signed, _is_little_endian(header))


def palette_colours(name: str, stored: np.ndarray, header: Dataset, signed: bool) -> np.ndarray:
    """Looks the numbers (H, W) up in the palette, (H, W, 3) uint8.

    Raises:
        ImageError: the palette is missing or incomplete.
    """
    if header.get("SegmentedRedPaletteColorLookupTableData"):
        from pydicom.pixels.processing import apply_color_lut

        entries, first, _ = header.RedPaletteColorLookupTableDescriptor
        inside = np.clip(stored.astype(np.int64), first, first + (entries or 2**16) - 1)
        colours = apply_color_lut(inside, header)[..., :3]
        return colours if colours.dtype == np.uint8 else stretch(colours, 0, 2**16 - 1)
    tables = []
    for colour in ("Red", "Green", "Blue"):
        found = [header.get(f"{colour}PaletteColorLookupTable{part}") for part in ("Descriptor", "Data")]
        tables.append(_table(found[0], found[1], signed, _is_little_endian(header)))
    if any(table is None for table in tables):
        raise ImageError(name, "has colours by palette and no whole palette; expected one, convert it to RGB first")
    whole = [table for table in tables if table is not None]
    colours = np.stack([table.look_up(stored) for table in whole], axis=-1)
    return stretch(colours, 0, max(255, *(table.white for table in whole)))


def _is_little_endian(header: Dataset) -> bool:
    return header.original_encoding[1] is not False


def _table(descriptor: Any, data: Any, signed: bool, little_endian: bool) -> Table | None:
    if not descriptor or data is None or len(descriptor) != 3 or not (isinstance(data, int) or len(data)):
        return None
    entries, first, bits = (int(number) for number in descriptor)
    entries = entries % 2**16 or 2**16
    if signed and first >= 2**15:
        first -= 2**16
    if not isinstance(data, bytes):
        values = np.atleast_1d(np.asarray(data, np.int64)) % 2**16
    elif len(data) in (entries, entries + 1) or (bits <= 8 and len(data) < 2 * entries):
        values = np.frombuffer(data, np.uint8)
    else:
        values = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little_endian else ">u2")
    return Table(first, values[:entries].astype(np.uint16))
