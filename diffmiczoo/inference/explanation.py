"""`Explanation`: for each of some images, where what speaks for a class lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from diffmiczoo.errors import InvalidValueError


@dataclass(frozen=True, eq=False)
class Explanation:
    """Maps of one method.

    Attributes:
        maps: (B, S, S) float32 in [0, 1], of the squares that the model saw.
        method: a name of `diffmiczoo.reporting.gradcam.METHODS`.
        title: what it is called in a legend.
        names: of the images.
        classes: whose evidence is shown, one per image.
    """

    maps: Tensor
    method: str
    title: str
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.maps.ndim != 3 or len(self.maps) != count or len(self.classes) != count:
            raise InvalidValueError(
                f"an explanation has one map, name and class per image; found maps {tuple(self.maps.shape)}, "
                f"{count} names and {len(self.classes)} classes"
            )

    def row_of(self, names: Sequence[str], row: int) -> int:
        """Returns the place of the image that has a row among names; where these are the same it is the row.

        Raises:
            ValueError: it is not explained.
        """
        if tuple(names) == self.names:
            return row
        if (name := names[row]) not in self.names:
            raise InvalidValueError(f"{name!r} is not among the {len(self.names)} images that are explained")
        return self.names.index(name)


#: None for the saliency that a prediction brings.
Explained: TypeAlias = Explanation | None
