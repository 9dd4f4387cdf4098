"""What is handed in → `Item`s, one per image and not read yet, and the `ImageError` that one of them may end in."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from PIL import Image
from torch import Tensor

from diffmiczoo.errors import DiffMICError, InvalidTypeError, InvalidValueError, warn
from diffmiczoo.images.batches import split_batch
from diffmiczoo.images.containers import opened
from diffmiczoo.images.listing import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
from diffmiczoo.images.listing import Listing, natural_key, scan_folder
from diffmiczoo.images.remote import Content, contents_of_url, is_url

_ACCEPTED = (
    "a path, a directory, a pattern, a URL, a PIL image, a NumPy array or a tensor (four dimensions are a batch), "
    "bytes, an open file, a table with a column of files, a Dataset, or a list of these"
)

#: Ending of an archive → how its content is addressed, where it can be.
_ARCHIVES = dict.fromkeys([".tar", ".tgz", ".gz", ".bz2", ".xz"], "tar") | {".zip": "zip", ".7z": "", ".rar": ""}

#: What every system takes; longer texts are pictures in base64 and the like.
_LONGEST_PATH = 4096

#: Tables, which name pictures and are none.
_TABLES = (".csv", ".tsv", ".parquet", ".xlsx", ".json", ".jsonl")


class ImageError(InvalidValueError):
    """An image cannot be used (a `ValueError`); the message starts with its name, then what was found and what to do.

    Attributes:
        name: of the item, as `as_items` gave it.
        reason: the message without the name.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


@contextmanager
def reading_errors(name: str, advice: str = "expected a whole image, save it again") -> Iterator[None]:
    """Turns what a decoder or the file system raises for an image into `ImageError`.

    Decoders raise whatever a broken file makes them raise, TypeError and AttributeError included: the place tells a
    broken file from a fault of this package, not the type. So this belongs around calls of decoders and nothing else.
    A module or name that does not exist, as with another version of a decoder, is no file's fault and goes through.

    Args:
        name: the image's.
        advice: what to do, the end of the message.

    Raises:
        ImageError: with the error of the decoder as its `__cause__`.
    """
    try:
        yield
    except (DiffMICError, ImportError, NameError):
        raise
    except Exception as error:
        if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
            raise
        found = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
        raise ImageError(name, f"cannot be read ({found}); {advice}") from error


def one_line(error: BaseException) -> str:
    """Returns the exception's text without line breaks and cut to 300 characters, to be part of a message."""
    return " ".join(str(error).split())[:300]


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One image that has not been read yet.

    Args:
        name: what errors and predictions call it, unique in its list.
        source: a path, PIL image, array or tensor, or a function that returns one of these when it is read.
    """

    name: str
    source: Any


def list_folder(folder: str | os.PathLike[str], *, may_be_empty: bool = False, follow_links: bool = False) -> Listing:
    """Lists a folder's images, by extension or else by content, and what is left out; in natural order.

    Hidden files and folders (".ipynb_checkpoints", "._scan.jpg"), folders of operating systems ("@eaDir", "__MACOSX"),
    masks and thumbnails whose picture lies there too, and directories of runs of `fit` are left out.

    Args:
        folder: where to look.
        may_be_empty: do not raise where there is no image.
        follow_links: look into links to folders too.

    Raises:
        ImageError: there is no such folder, a part of it cannot be listed, or it holds no image.
    """
    name = os.fsdecode(folder)
    try:
        listing = scan_folder(name, follow_links=follow_links)
    except OSError as error:
        raise ImageError(name, f"cannot be listed ({error}); expected a readable directory") from error
    if not listing.images and not may_be_empty:
        raise no_image(name, len(listing.others), list(map(str, listing.others[:SHOWN])))
    return listing


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Returns the images of `list_folder`, in natural order (image2 before image10).

    Raises:
        ImageError: see `list_folder`.
    """
    return list(list_folder(folder).images)


#: Files that a message names.
SHOWN = 3


def no_image(folder: str, count: int, first: Sequence[str]) -> ImageError:
    """Returns the error for a folder that holds no image among so many other files."""
    held = f" ({_first_names(folder, count, first)})" if count else ""
    expected = f"{' '.join(sorted(IMAGE_EXTENSIONS))}, or DICOM files of any name"
    return ImageError(folder, f"holds no image among {count} files{held}; expected {expected}")


def tell_passed_over(folder: str, kind: str, count: int, first: Sequence[str]) -> None:
    """Warns of what lies in a folder and is not used.

    Args:
        folder: which.
        kind: a field of `Listing`: "others", "masks", "thumbnails" or "runs".
        count: how many there are; nothing is said of none.
        first: paths of the first `SHOWN`.
    """
    if not count:
        return
    names = _first_names(folder, count, first)
    if kind == "others":
        verb = "file is no image" if count == 1 else "files are no images"
        warn(f"{folder}: {count} {verb} and passed over: {names}")
    elif kind == "runs":
        warn(f"{folder}: runs of diffmiczoo fit are passed over: {names}")
    else:
        said = f"{count} {kind} of pictures that lie there too are passed over: {names}"
        warn(f"{folder}: {said}; name such files to use them")


def _first_names(folder: str, count: int, paths: Sequence[str]) -> str:
    names = [os.path.relpath(path, folder) for path in paths[:SHOWN]]
    return ", ".join([*names, "…"] if count > SHOWN else names)


def _images_of_folder(name: str) -> list[str]:
    listing = list_folder(name)
    for kind in ("others", "masks", "thumbnails", "runs"):
        left: Sequence[Path] = getattr(listing, kind)
        tell_passed_over(name, kind, len(left), list(map(str, left[:SHOWN])))
    # Texts: a Path and what it remembers of itself take 400 bytes more.
    return [str(path) for path in listing.images]


def as_items(images: Any) -> list[Item]:
    """Lists what users hand in as items, one per image; pictures are not read yet, but directories are listed.

    Args:
        images: a path, a directory, a pattern ("scans/*.png"), a URL, a PIL image, an array (H, W), (H, W, C),
            (C, H, W) or a batch of four dimensions, a tensor (H, W), (C, H, W), (H, W, C) or a batch, an `Item`, what
            `diffmiczoo.images.containers.opened` takes (bytes, open files, tables, Datasets, iterators), or a list or
            tuple of these.

    Returns:
        Items named by their path, or "images[3]" after their place in the result. A name that occurs again gets its
        count: "scan.png (2)".

    Raises:
        TypeError: something else was handed in, such as None, a number or a set.
        ValueError: there are no images, or a row of a table has none; ImageError where a directory holds none, no file
            matches a pattern, or a path is that of an archive or table.
    """
    entries = images if isinstance(images, list | tuple) else [images]
    sources = [source for entry in entries for source in _sources(entry)]
    if not sources:
        raise InvalidValueError(f"there are no images; expected {_ACCEPTED}")
    if all(isinstance(source, Item) for source in sources):
        return sources
    contents = [source.source if isinstance(source, Item) else source for source in sources]
    return [Item(name, content) for name, content in zip(_names(sources), contents, strict=True)]


def _sources(entry: Any) -> Sequence[Any]:
    """Returns the images of one entry of the list: those of a directory or a batch, else itself."""
    if isinstance(entry, str | os.PathLike):
        return _sources_of_path(entry)
    if isinstance(entry, Tensor) or (isinstance(entry, np.ndarray) and entry.dtype.kind not in "OSUV"):
        return split_batch(entry)
    if isinstance(entry, Image.Image | Item):
        return [entry]
    if isinstance(entry, bytes) and len(entry) < 4096 and os.path.exists(entry):
        return _sources_of_path(os.fsdecode(entry))
    inside = opened(entry)
    if isinstance(inside, Content):
        return [inside]
    if inside is None and callable(getattr(entry, "__array__", None)):
        return _sources_of_array_like(entry)
    if inside is not None:
        return [source for part in inside for source in ([part] if isinstance(part, Content) else _sources(part))]
    hint = "; numpy.asarray(…) makes an array of rows of numbers" if isinstance(entry, list | tuple) else ""
    raise InvalidTypeError(f"{_shown(entry)} is not an image; expected {_ACCEPTED}{hint}")


def _sources_of_array_like(entry: Any) -> Sequence[Any]:
    """Lists the images of what can be made an array: of JAX, TensorFlow, h5py, zarr or xarray."""
    try:
        array = np.asarray(entry)
    except Exception as error:
        raise InvalidTypeError(f"{_shown(entry)} cannot be made an array ({one_line(error)})") from error
    if array.ndim < 2 or array.dtype.kind in "OSUV":
        raise InvalidTypeError(f"{_shown(entry)} is not an image; expected {_ACCEPTED}")
    return split_batch(array)


def _sources_of_path(entry: str | os.PathLike[str]) -> Sequence[Any]:
    path = os.fsdecode(entry)
    if len(path) > _LONGEST_PATH and not is_url(path):
        found = f"a text of {len(path):,} characters, {path[:20]!r}…, is no path"
        raise InvalidValueError(f"{found}; base64.b64decode(text) makes bytes of a picture, which are taken")
    if path.startswith("~") and not os.path.exists(path):
        path = os.path.expanduser(path)
    if path.lower().startswith("file://"):
        path = url2pathname(urlsplit(path).path)
    if os.path.isdir(path):
        return _images_of_folder(path)
    if not os.path.exists(path) and is_url(path):
        return contents_of_url(path)
    if glob.has_magic(path) and not os.path.lexists(path):
        return _matching(path)
    ending = os.path.splitext(path)[1].lower()
    if ending in _ARCHIVES or ending in _TABLES:
        raise ImageError(path, _instead_of_file(path, ending))
    return [path]


def _matching(pattern: str) -> list[str]:
    found = sorted(map(Path, glob.glob(pattern, recursive=True)), key=natural_key)
    if not found:
        raise ImageError(pattern, "no file matches this pattern; check the path")
    return [image for path in found for image in (_images_of_folder(str(path)) if path.is_dir() else [str(path)])]


def _instead_of_file(path: str, ending: str) -> str:
    if ending in _TABLES:
        return "is a table, not an image; pandas.read_csv or the like gives a DataFrame, which is taken"
    if path.lower().endswith(".nii.gz"):
        return "is a volume (NIfTI), not an image; hand in a slice of it as an array in [0, 1]"
    if _ARCHIVES[ending] and (ending in (".zip", ".tar", ".tgz") or ".tar." in path.lower()):
        inside = f'"{_ARCHIVES[ending]}://*.png::{path}"'
        return f"is an archive, not an image; unpack it, or name the pictures in it: {inside}"
    return "is a compressed file, not an image; unpack it"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | bytes | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _names(sources: Sequence[Any]) -> Iterator[str]:
    used: set[str] = set()
    repeats: Counter[str] = Counter()
    for index, source in enumerate(sources):
        name = free = _name(source, index)
        while free in used:
            repeats[name] += 1
            free = f"{name} ({repeats[name] + 1})"
        used.add(free)
        yield free


def _name(source: Any, index: int) -> str:
    if isinstance(source, Item):
        return source.name
    if isinstance(source, Content):
        return source.name or f"images[{index}]"
    return (os.fsdecode(source) or "''") if isinstance(source, str | os.PathLike) else f"images[{index}]"
