"""`PictureSet`: which pictures weights were trained on, as short hashes from which no picture can be had back."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diffmiczoo.errors import InvalidValueError

#: Bytes of a hash that are kept. A picture that was not trained on is taken for one that was with a probability of
#: N / 2³²: one in 700,000 for 6,000 training pictures, one in 43,000 for 100,000.
_BYTES = 4


@dataclass(frozen=True, eq=False)
class PictureSet:
    """A set of pictures, each by 32 bits of the hash of its square; 4 bytes a picture, sorted, so that order is lost.

    No pixel can be computed from it. Whoever has a picture can tell whether it is in the set, which is what it is for.

    Attributes:
        hashes: (N,) uint32, sorted, each once.
    """

    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PictureSet) and np.array_equal(self.hashes, other.hashes)

    @classmethod
    def of(cls, contents: Iterable[bytes]) -> PictureSet:
        """Builds a set of `data.duplicates.content_hash` of each picture."""
        return cls(np.unique(_short(contents)))

    def union(self, other: PictureSet | None) -> PictureSet:
        """Returns the pictures of both."""
        return self if other is None else PictureSet(np.union1d(self.hashes, other.hashes))

    def contains(self, contents: Iterable[bytes]) -> np.ndarray:
        """Returns for each hash of a picture whether it is in the set, (N,) bool."""
        return np.isin(_short(contents), self.hashes)

    def to_text(self) -> str:
        """Returns letters and digits that hold the set: the differences of the hashes, compressed."""
        steps = np.diff(self.hashes, prepend=np.uint32(0)).astype("<u4")
        # The bytes of equal worth beside each other: the first of each difference are nearly all 0.
        planes = steps.view(np.uint8).reshape(-1, _BYTES).T
        return base64.b85encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> PictureSet:
        """Reads what `to_text` wrote.

        Raises:
            ValueError: it is no such text.
        """
        try:
            content = _decompressed(base64.b85decode(text))
            planes = np.frombuffer(content, np.uint8).reshape(_BYTES, -1)
        except (ValueError, binascii.Error, zlib.error) as error:
            raise InvalidValueError(f"the list of training pictures cannot be read ({error})") from error
        steps = np.ascontiguousarray(planes.T).view("<u4")[:, 0]
        return cls(np.cumsum(steps, dtype=np.uint32))


#: Bytes of the largest list that is read, ten million pictures: a hostile file must not fill the memory.
_MOST_BYTES = 40_000_000


def _decompressed(packed: bytes) -> bytes:
    machine = zlib.decompressobj()
    content = machine.decompress(packed, _MOST_BYTES)
    if machine.unconsumed_tail or not machine.eof:
        raise InvalidValueError("it is cut short, or too long")
    return content


def _short(contents: Iterable[bytes]) -> np.ndarray:
    return np.array([int.from_bytes(content[:_BYTES], "little") for content in contents], dtype=np.uint32)
