"""`FolderItems`: the pictures of a folder as items, one after the other, for folders of any size."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from diffmiczoo.images.items import SHOWN, ImageError, Item, as_items, no_image, tell_passed_over
from diffmiczoo.images.listing import natural_key
from diffmiczoo.images.walking import FolderOfMasksError, walk

#: Whether a path is one of those that are wanted.
Wanted = Callable[[str], bool]


class FolderItems(Collection[Item]):
    """What `as_items` gives for a folder, in the same order, listed anew whenever it is gone through.

    Each time the folder is read again, so that nothing is held but the names of the sub-folder that is being read, of
    which 50,000 are sorted in memory and more in a temporary file. What comes to the folder meanwhile is seen, too.

    Args:
        folder: where the pictures lie.
        wanted: path → whether it is one of them; all are by default.

    Raises:
        ImageError: a part of the folder cannot be listed.
        FolderOfMasksError: this cannot be done one by one, see `folder_items`.
    """

    def __init__(self, folder: str, wanted: Wanted | None = None, *, count: int | None = None) -> None:
        self.folder, self._wanted = folder, wanted
        self._count = sum(1 for _ in self._paths(in_order=False)) if count is None else count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        return (Item(path, path) for path in self._paths(in_order=True))

    def __contains__(self, item: object) -> bool:
        return isinstance(item, Item) and any(item.name == path for path in self._paths(in_order=False))

    def where(self, wanted: Wanted) -> FolderItems:
        """Returns those of these pictures whose path is wanted."""
        before = self._wanted
        return FolderItems(self.folder, wanted if before is None else lambda path: before(path) and wanted(path))

    def _paths(self, *, in_order: bool) -> Iterator[str]:
        wanted = self._wanted
        try:
            for kind, path in walk(os.fspath(Path(self.folder)), in_order=in_order):
                if kind == "images" and (wanted is None or wanted(path)):
                    yield path
        except OSError as error:
            raise cannot_be_listed(self.folder, error) from error


def folder_items(folder: str) -> Collection[Item]:
    """Does what `as_items` does for a folder, without holding its pictures.

    The folder is gone through once at first, without an order: how many there are is known then, and what is passed
    over is told. Where it has sub-folders of masks or thumbnails, it is listed whole after all: which of these belong
    to a picture depends on the names of all pictures.

    Raises:
        ImageError: it cannot be listed, or holds no image.
    """
    counts = dict.fromkeys(("images", "others", "masks", "thumbnails", "runs"), 0)
    first: dict[str, list[str]] = {kind: [] for kind in counts}
    try:
        for kind, path in walk(os.fspath(Path(folder)), in_order=False):
            counts[kind] += 1
            if kind != "images":
                first[kind] = heapq.nsmallest(SHOWN, [*first[kind], path], key=lambda each: natural_key(Path(each)))
    except FolderOfMasksError:
        return as_items(folder)
    except OSError as error:
        raise cannot_be_listed(folder, error) from error
    if not counts["images"]:
        raise no_image(folder, counts["others"], first["others"])
    for kind in ("others", "masks", "thumbnails", "runs"):
        tell_passed_over(folder, kind, counts[kind], first[kind])
    return FolderItems(folder, count=counts["images"])


def matching(items: Collection[Item], wanted: Wanted) -> Collection[Item]:
    """Returns the items whose name is wanted, without listing a folder into memory."""
    if isinstance(items, FolderItems):
        return items.where(wanted)
    return [item for item in items if wanted(item.name)]


def cannot_be_listed(folder: str, error: OSError) -> ImageError:
    """Returns the error for a folder that cannot be listed."""
    return ImageError(folder, f"cannot be listed ({error}); expected a readable directory")
