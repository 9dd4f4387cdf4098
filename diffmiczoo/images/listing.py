"""What lies in a folder: pictures, masks and thumbnails that belong to them, and what systems leave there."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.images.sniffing import is_dicom, is_dicom_directory, is_picture, start_of

#: What is taken for an image without looking inside, in lower case. HEIF needs a plug-in of Pillow.
IMAGE_EXTENSIONS = frozenset(
    ".avif .bmp .dcm .dicom .gif .heic .heif .j2c .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx .mpo .pbm .pgm .png .pnm .ppm "
    ".tif .tiff .webp".split()
)

#: Folders of operating systems and network drives, in lower case; those that begin with a dot aside.
_SYSTEM_FOLDERS = frozenset(
    "@eadir,@tmp,@recycle,@recently-snapshot,#recycle,#snapshot,__macosx,__pycache__,$recycle.bin,recycler,lost+found,"
    "system volume information".split(",")
)

#: Files that lie in the directory of every run of `fit`, from before its first epoch on.
RUN_FILES = frozenset(("recipe.json", "data_report.json"))

#: Names of folders whose pictures belong to pictures of the same name beside or above them.
_MASK_FOLDER = re.compile(
    r"mask|(.*[ _-])?(masks|segmentations?|segs?|annotations?|ground[ _-]?truth|gt)", re.IGNORECASE
)
_THUMBNAIL_FOLDER = re.compile(r"(thumb|thumbnail|preview)s?", re.IGNORECASE)

_NUMBER = re.compile("[0-9]+")

MASK = re.compile(
    r"(?P<base>.+?)[ _.-]+(masks?(?![a-z])|segmentations?|seg|groundtruth|ground_truth|gt)([ _.-].*|\d+)?",
    re.IGNORECASE,
)
MASK_FIRST = re.compile(r"(masks?|segmentation|seg)[ _-]+(?P<base>.+)", re.IGNORECASE)
THUMBNAIL = re.compile(r"(?P<base>.+?)[ _.-]+(thumb|thumbs|thumbnail|thumbnails)([ _.-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Listing:
    """What lies in a folder and below it, in natural order (image2 before image10).

    Attributes:
        images: files with the extension of an image, and DICOM files and pictures of another or no extension.
        others: all other files, but for DICOMDIRs.
        masks: segmentation masks that lie beside the picture that they belong to, or in a folder of masks beside it.
        thumbnails: the same of small copies.
        system: hidden images and folders, and folders of operating systems; these were not looked into.
        folders: all folders below it that were looked into.
        runs: directories of runs of `fit` below it; these were not looked into: their pictures are drawings.
    """

    images: tuple[Path, ...]
    others: tuple[Path, ...]
    masks: tuple[Path, ...]
    thumbnails: tuple[Path, ...]
    system: tuple[Path, ...]
    folders: tuple[Path, ...]
    runs: tuple[Path, ...] = ()


def scan_folder(folder: str, *, follow_links: bool = False) -> Listing:
    """Lists a folder and its sub-folders.

    Args:
        folder: where to look.
        follow_links: look into links to folders too, but for those to a folder that holds them.

    Raises:
        OSError: it, or a part of it, cannot be listed.
    """
    found: list[Path] = []
    system: list[Path] = []
    inside: list[Path] = []
    runs: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=follow_links):
        if parent != folder and RUN_FILES.issubset(files):
            runs.append(Path(parent))
            folders.clear()
            continue
        system += [Path(parent, entry) for entry in folders if is_system(entry)]
        folders[:] = [entry for entry in folders if not is_system(entry) and not _is_circle(folder, parent, entry)]
        inside += [Path(parent, entry) for entry in folders]
        found += [Path(parent, entry) for entry in files if not is_system(entry)]
        hidden = [Path(parent, entry) for entry in files if is_system(entry)]
        system += [path for path in hidden if path.suffix.lower() in IMAGE_EXTENSIONS]
    images: list[Path] = []
    others: list[Path] = []
    for path in sorted(found, key=natural_key):
        start = b"" if path.suffix.lower() in IMAGE_EXTENSIONS else start_of(path)
        if not start or not is_dicom_directory(start):
            (images if is_image(path, start) else others).append(path)
    masks, thumbnails = _companions(Path(folder), images)
    return Listing(
        tuple(path for path in images if path not in masks and path not in thumbnails),
        tuple(others),
        tuple(path for path in images if path in masks),
        tuple(path for path in images if path in thumbnails),
        tuple(sorted(system, key=natural_key)),
        tuple(sorted((path for path in inside if path not in runs), key=natural_key)),
        tuple(sorted(runs, key=natural_key)),
    )


def _is_circle(root: str, parent: str, entry: str) -> bool:
    """Whether a folder is a link to one that holds it, where it lies or on the way from the root."""
    path = Path(parent, entry)
    if not path.is_symlink():
        return False
    place = path.resolve()
    way = [Path(parent), *(above for above in Path(parent).parents if above.is_relative_to(root))]
    return Path(parent).resolve().is_relative_to(place) or any(above.resolve() == place for above in way)


def is_image(path: Path, start: bytes) -> bool:
    """Whether a file is an image: by its name, or else by its first bytes, which `path` alone does not need."""
    if path.suffix.lower() in IMAGE_EXTENSIONS or is_dicom(start):
        return True
    return not path.suffix and is_picture(start)


def is_system(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to an operating system or network drive."""
    return name.startswith(".") or name.lower() in _SYSTEM_FOLDERS


def _raise(error: OSError) -> None:
    raise error


def natural_key(path: Path) -> str:
    """Returns what paths are sorted by: part by part, text as text, and numbers as numbers."""
    # As one text: lists of words and numbers take ten times the memory, for a folder of a million pictures a gigabyte.
    return "\0".join(map(natural_name, path.parts))


def natural_name(name: str) -> str:
    """Returns what the entries of one folder are sorted by."""
    # A number is written as how many digits it has and these, behind a sign that sorts before all text. The name itself
    # decides between "a1" and "A01", so that a folder's files stay together.
    return f"{_NUMBER.sub(_sortable, name.casefold())}\0{name}"


def _sortable(number: re.Match[str]) -> str:
    digits = number[0].lstrip("0")
    return f"\1{chr(len(digits) + 1)}{digits}"


def _companions(root: Path, images: Sequence[Path]) -> tuple[set[Path], set[Path]]:
    """Returns the masks and the thumbnails among pictures: those whose own picture lies there too."""
    stems: dict[Path, set[str]] = defaultdict(set)
    for path in images:
        stems[path.parent].add(path.stem)
    masks = {path for path in images if _belongs(path, stems, (MASK, MASK_FIRST))}
    thumbnails = {path for path in images if path not in masks and _belongs(path, stems, (THUMBNAIL,))}
    beside: dict[tuple[Path, Path], set[str]] = {}
    for path in images:
        parts = path.relative_to(root).parts[:-1]
        kinds = [folder_kind(part) for part in parts]
        place = next((place for place, kind in enumerate(kinds) if kind), None)
        if place is None:
            continue
        key = root.joinpath(*parts[:place]), Path(*parts[place + 1 :])
        if key not in beside:
            beside[key] = _stems_beside(*key, stems)
        if beside[key] & {path.stem, *bases(path.stem, (MASK, MASK_FIRST, THUMBNAIL))}:
            (masks if kinds[place] == "masks" else thumbnails).add(path)
    return masks, thumbnails


def folder_kind(name: str) -> str | None:
    """Returns "masks" or "thumbnails" for a folder that is called so."""
    if _MASK_FOLDER.fullmatch(name):
        return "masks"
    return "thumbnails" if _THUMBNAIL_FOLDER.fullmatch(name) else None


def _belongs(path: Path, stems: dict[Path, set[str]], patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(base in stems[path.parent] for base in bases(path.stem, patterns))


def bases(stem: str, patterns: Sequence[re.Pattern[str]]) -> list[str]:
    """Returns the names of the pictures that one of this name would be the mask or thumbnail of."""
    return [match["base"] for pattern in patterns if (match := pattern.fullmatch(stem))]


def _stems_beside(above: Path, below: Path, stems: dict[Path, set[str]]) -> set[str]:
    """Returns the names of the pictures above a folder of masks, and in the folders beside it that are none.

    Args:
        above: the folder that holds the folder of masks.
        below: where in the folder of masks one looks; the same place is looked up in those beside it.
        stems: names of all pictures by their folder.
    """
    found: set[str] = set()
    for folder, names in stems.items():
        parts = folder.relative_to(above).parts if folder.is_relative_to(above) else None
        if parts is None or (parts and folder_kind(parts[0])):
            continue
        if parts and re.search("mask", parts[0], re.IGNORECASE):
            return set()  # "mask" beside "no_mask" is a class
        if Path(*parts) == below or (parts and Path(*parts[1:]) == below):
            found |= names
    return found
