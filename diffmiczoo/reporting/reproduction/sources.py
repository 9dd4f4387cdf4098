"""Where the data sets of a table lie: their originals, folders of their names, or what stands in for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffmiczoo.data.catalog import DATASETS
from diffmiczoo.data.downloads import recognized_download
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.medmnist_names import is_medmnist
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.errors import DiffMICError, InvalidValueError, MissingFileError
from diffmiczoo.reporting.reproduction.planning import Target

#: Data set → how folders that hold it are called, in small letters without what is no letter or digit.
_FOLDERS = {
    "pmg2000": ("pmg2000",),
    "busi": ("busi", "datasetbusiwithgt"),
    "ham10000": ("ham10000",),
    "aptos2019": ("aptos2019", "aptos2019blindnessdetection"),
    "chestxray14": ("chestxray14", "chestxray14subset", "nihchestxray14", "nihchestxrays"),
}

#: Data set → what is taken where it is not there, and why.
_STAND_INS = {"pmg2000": ("busi", "BUSI in place of PMG2000, which is not public")}


@dataclass(frozen=True)
class Source:
    """Data of a table.

    Attributes:
        dataset: its name.
        stands_for: the data set of the paper that it is, or is in place of; "" for none.
        data: what is read.
        title: what it is, and in place of what.
    """

    dataset: str
    stands_for: str
    data: str
    title: str

    def read(self) -> Manifest:
        """Reads the pictures' names and labels, with the classes in the package's order where it knows them.

        Raises:
            FileNotFoundError, ValueError: as `as_manifest` does.
        """
        known = DATASETS.get(self.dataset)
        task = None if known is None else known.task
        manifest = as_manifest(self.data, task=task)
        names = set(manifest.class_names)
        order = next((each.class_names for each in DATASETS.values() if set(each.class_names) == names), None)
        return manifest if order is None else manifest.with_classes(order)


def sources_of(target: Target, data: str | os.PathLike[str], datasets: Sequence[str] = ()) -> list[Source]:
    """Finds the data sets of a table.

    Args:
        target: table or figure.
        data: a folder of data sets, or one of them: a folder, a table, an `.npz`, or medmnist:NAME.
        datasets: names of data sets, or of sub-folders of `data`, in place of the table's own.

    Raises:
        FileNotFoundError: none is there; the message says what was looked for.
        ValueError: a name that was asked for is nowhere.
    """
    wanted = tuple(datasets) or target.datasets or target.any_of
    if not is_medmnist(Path(data)) and not Path(data).exists():
        raise MissingFileError(f"{data} does not exist; expected a folder with {_listed(wanted)}, or labelled images")
    found = [source for name in wanted if (source := _find(name, Path(data))) is not None]
    missing = [
        name
        for name in datasets
        if name not in {each for source in found for each in (source.dataset, source.stands_for)}
    ]
    if missing:
        raise InvalidValueError(f"dataset {missing[0]!r}: neither {data} nor a folder in it is called so")
    if not found:
        found = [_single(target, data, wanted)]
    return found if target.datasets or datasets else found[:1]


def _find(name: str, data: Path) -> Source | None:
    if is_medmnist(data):
        return None
    stand_in, why = _STAND_INS.get(name, ("", ""))
    for candidate in (name, stand_in):
        folder = next((each for each in _candidates(data) if _is(candidate, each)), None) if candidate else None
        if folder is not None:
            return Source(candidate, name, str(folder), why if candidate == stand_in else _title(name, folder))
    return None


def _title(name: str, folder: Path) -> str:
    return name if name == folder.name else f"{name} ({folder.name})"


def _candidates(data: Path) -> Iterator[Path]:
    yield data
    if data.is_dir():
        yield from sorted(each for each in data.iterdir() if each.is_dir())


def _is(name: str, folder: Path) -> bool:
    plain = "".join(sign for sign in folder.resolve().name.lower() if sign.isalnum())
    if plain in _FOLDERS.get(name, ()) or folder.name == name:
        return True
    return folder.is_dir() and recognized_download(folder) == name


def _single(target: Target, data: str | os.PathLike[str], wanted: Sequence[str]) -> Source:
    """Returns labelled images that are none of the table's data sets, in their place."""
    try:
        manifest = as_manifest(data)
    except DiffMICError as error:
        raise MissingFileError(
            f"{data}: {target.name} needs {_listed(wanted)}; looked for folders of these names and for the original "
            f"downloads in it, and it is no data set of labelled images itself ({error})"
        ) from error
    return Source(manifest.name, "", str(data), f"{manifest.name}, in place of {_listed(wanted)}")


def _listed(names: Sequence[str]) -> str:
    return " or ".join(names)
