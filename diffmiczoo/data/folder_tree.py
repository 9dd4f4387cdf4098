"""What lies in a folder of labelled images: pictures, sub-folders, and what is left out of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diffmiczoo.data.label_cells import case_key
from diffmiczoo.data.manifest import Skipped
from diffmiczoo.data.split_names import SKIP, split_of
from diffmiczoo.images.listing import Listing


@dataclass
class FolderTree:
    """What lies in a folder, and what is found out about it.

    Attributes:
        root: the folder.
        listing: what lies in it.
        words: further names of splits.
        known: `case_key` of the classes, where they are known.
        notes: what was decided.
        left: reason → what is left out for it.
    """

    root: Path
    listing: Listing
    words: dict[str, str]
    known: frozenset[str] = frozenset()
    notes: list[str] = field(default_factory=list)
    left: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self._direct: dict[Path, list[Path]] = defaultdict(list)
        self._below: dict[Path, list[Path]] = defaultdict(list)
        self._children: dict[Path, list[Path]] = defaultdict(list)
        for path in self.listing.images:
            self._direct[path.parent].append(path)
            for parent in path.parents:
                self._below[parent].append(path)
                if parent == self.root:
                    break
        for entry in self.listing.folders:
            self._children[entry.parent].append(entry)
        belonging = (*self.listing.masks, *self.listing.thumbnails)
        self._of_masks = {parent for path in belonging for parent in path.parents}
        self.leave("masks of pictures that lie there too", self.listing.masks)
        self.leave("thumbnails of pictures that lie there too", self.listing.thumbnails)
        self.leave("files that are no images", self.listing.others)
        self.leave("hidden or system files and folders", self.listing.system)
        self.leave("directories of runs of fit", self.listing.runs)

    def leave(self, reason: str, paths: Iterable[Path]) -> None:
        """Notes what is left out."""
        for path in paths:
            self.left[reason].append(path)

    def skipped(self) -> tuple[Skipped, ...]:
        """Returns what is left out, by reason, with paths as they lie in the folder."""
        return tuple(
            Skipped(reason, tuple(str(path.relative_to(self.root)) for path in paths))
            for reason, paths in self.left.items()
        )

    def name(self, path: Path) -> str:
        """Returns what a message calls a folder."""
        return f"{path.relative_to(self.root)}/"

    def plain_name(self, path: Path) -> str:
        """Returns what a message calls a file."""
        return str(path.relative_to(self.root))

    def names(self, paths: Sequence[Path]) -> str:
        """Returns what a message calls some folders."""
        return " and ".join(self.name(path) for path in paths[:4]) + (" and others" if len(paths) > 4 else "")

    def below(self, folder: Path) -> list[Path]:
        """Returns the pictures in a folder and its sub-folders."""
        return self._below.get(folder, [])

    def direct(self, folder: Path) -> list[Path]:
        """Returns the pictures that lie in a folder itself."""
        return self._direct.get(folder, [])

    def with_images(self, folder: Path) -> list[Path]:
        """Returns the sub-folders that hold pictures, but for those that are mapped to skip."""
        inside = [entry for entry in self._children.get(folder, []) if self.below(entry)]
        return sorted(entry for entry in inside if split_of(entry.name, self.words) != SKIP)

    def empty(self, folder: Path) -> list[Path]:
        """Returns the sub-folders without pictures; those of masks aside, which are said already."""
        inside = self._children.get(folder, [])
        return sorted(entry for entry in inside if not self.below(entry) and entry not in self._of_masks)

    def mapped_to_skip(self, folder: Path) -> list[Path]:
        """Returns the sub-folders that somebody wants to be left out."""
        return [entry for entry in self._children.get(folder, []) if split_of(entry.name, self.words) == SKIP]

    def split_of(self, folder: Path) -> str | None:
        """Returns the split that a folder's name stands for."""
        return split_of(folder.name, self.words)

    def is_known(self, folder: Path) -> bool:
        """Whether a folder is called like a class that is known."""
        return case_key(folder.name) in self.known

    def has_splits(self, folder: Path) -> bool:
        """Whether a folder holds folders of splits."""
        return any(self.split_of(entry) is not None for entry in self.with_images(folder))

    def unwrapped(self) -> Path:
        """Returns the folder that holds classes or splits: the root, or the one folder that holds everything."""
        folder = self.root
        while True:
            inside = self.with_images(folder)
            if len(inside) != 1 or self.split_of(inside[0]) is not None or not self.with_images(inside[0]):
                break
            if self.is_known(inside[0]):
                break
            self.leave_beside(folder)
            folder = inside[0]
        if folder != self.root:
            self.notes.append(f"classes are looked for in {self.name(folder)}, the one folder that holds images")
        return folder

    def leave_beside(self, folder: Path) -> None:
        """Leaves out what lies beside the folders that are used."""
        self.leave("images beside the folders", self.direct(folder))
        self.leave("folders without images", self.empty(folder))
        self.leave(f"folders that are mapped to {SKIP}", self.mapped_to_skip(folder))
