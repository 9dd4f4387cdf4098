"""`Shard`: which of the images are a process's, where several predict the same folder."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffmiczoo.errors import InvalidValueError

if TYPE_CHECKING:
    from diffmiczoo.images.items import Item


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `count` shards, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads "3/16".

        Raises:
            ValueError: it is something else.
        """
        match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
        number, count = map(int, match.groups()) if match else (0, 0)
        if not 1 <= number <= count:
            raise InvalidValueError(f"{text!r} is no shard; expected I/N with I from 1 to N, such as 3/16")
        return cls(number, count)

    def of(self, items: Collection[Item]) -> Collection[Item]:
        """Returns the images of this shard.

        An image's name alone decides, not its place in the list: what comes to a folder later moves no other image.
        """
        from diffmiczoo.images.folder_items import matching

        return matching(items, self._holds)

    def _holds(self, name: str) -> bool:
        return zlib.crc32(name.encode("utf-8", "surrogateescape")) % self.count == self.number - 1
