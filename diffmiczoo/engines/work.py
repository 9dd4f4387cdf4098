"""What is to be predicted, cut into parts of a few hundred pictures: each is computed and written whole."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from diffmiczoo.engines.pictures import Picture
from diffmiczoo.errors import InvalidValueError, MissingExtraError
from diffmiczoo.files import read_json_object, write_text
from diffmiczoo.images.folder_items import folder_items
from diffmiczoo.images.items import Item, as_items

#: Pictures of a part. Its decoded squares go through the object store as one: 30 MB at 192 pixels.
PART = 256

JOB_FILE = "job.json"


@dataclass(frozen=True)
class Part:
    """Some pictures, in order.

    Attributes:
        number: from 0.
        size: how many.
        packed: paths of files, or URLs, compressed; empty where the pictures lie in a table.
        file, row_group, start: `size` rows of a Parquet file with a column `bytes`, and perhaps `id`.
    """

    number: int
    size: int
    packed: bytes = b""
    file: str = ""
    row_group: int = 0
    start: int = 0

    @classmethod
    def of_paths(cls, number: int, paths: Sequence[str]) -> Part:
        """Makes a part of paths. Those of a folder are much alike: 10 bytes hold one, a text of its own takes 90."""
        return cls(number, len(paths), zlib.compress("\0".join(paths).encode("utf-8", "surrogateescape")))

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of files, or URLs; empty where the pictures lie in a table."""
        if not self.packed:
            return ()
        return tuple(zlib.decompress(self.packed).decode("utf-8", "surrogateescape").split("\0"))

    def pictures(self) -> list[Picture]:
        """Returns the pictures; those of a table are fetched."""
        if not self.file:
            return [Picture(path, path) for path in self.paths]
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.file) as file:
            named = "id" in file.schema_arrow.names
            rows = file.read_row_group(self.row_group, columns=["bytes", *(["id"] if named else [])])
        rows = rows.slice(self.start, self.size)
        places = range(self.start, self.start + self.size)
        ids = rows["id"].to_pylist() if named else [f"{self.file}[{self.row_group}:{place}]" for place in places]
        contents = (content or b"" for content in rows["bytes"].to_pylist())
        return [Picture(str(name), content) for name, content in zip(ids, contents, strict=True)]


def parts_of(images: Any, size: int = PART) -> list[Part]:
    """Cuts pictures into parts, the same ones for the same pictures.

    Args:
        images: a folder, pattern, path or URL, a list of these, or a Parquet file with a column `bytes`.
        size: pictures of a part.

    Raises:
        ValueError: there are none, or a picture is no file.
    """
    if isinstance(images, str | os.PathLike) and os.fspath(images).lower().endswith(".parquet"):
        return list(_parts_of_table(os.fspath(images), size))
    one = images[0] if isinstance(images, list | tuple) and len(images) == 1 else images
    folder = isinstance(one, str | os.PathLike) and os.path.isdir(one)
    paths = map(_path, folder_items(os.fspath(one)) if folder else as_items(images))
    cut = iter(lambda: tuple(islice(paths, size)), ())
    return [Part.of_paths(number, some) for number, some in enumerate(cut)]


def _path(item: Item) -> str:
    if not isinstance(item.source, str | os.PathLike):
        raise InvalidValueError(f"{item.name}: is no file; expected paths, or a Parquet file with a column bytes")
    return os.path.abspath(item.source)


def _parts_of_table(path: str, size: int) -> Iterator[Part]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f'{path}: Parquet needs pyarrow: pip install "diffmiczoo[ray]"') from error
    number, path = 0, os.path.abspath(path)
    with pyarrow.parquet.ParquetFile(path) as file:
        if "bytes" not in file.schema_arrow.names:
            found = ", ".join(file.schema_arrow.names)
            raise InvalidValueError(f"{path}: has the columns {found}; expected bytes, and perhaps id")
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            for start in range(0, rows, size):
                yield Part(number, min(size, rows - start), b"", path, group, start)
                number += 1


@dataclass(frozen=True)
class Job:
    """What the results of a folder are of; results of another one are never mixed with them.

    Attributes:
        model: name of the weights.
        weights_sha256, version: of the weights, of this package.
        settings: name → value of all that predictions depend on.
        class_names: C names.
        pictures, parts: how many.
        sources_sha256: of the names of all pictures, part by part.
    """

    model: str
    weights_sha256: str
    version: str
    settings: Mapping[str, Any]
    class_names: tuple[str, ...]
    pictures: int
    parts: int
    sources_sha256: str

    def begin(self, output: Path) -> None:
        """Writes the job into a folder, made if need be; a job that is there already has to be the same.

        Raises:
            ValueError: it is another one; the message names what differs.
        """
        output.mkdir(parents=True, exist_ok=True)
        file = output / JOB_FILE
        mine = json.loads(json.dumps(asdict(self)))
        if not file.exists():
            if any(output.iterdir()):
                raise InvalidValueError(f"{output}: holds files but no {JOB_FILE}; choose an empty or new folder")
            write_text(file, json.dumps(mine, indent=1) + "\n")
            return
        theirs = read_json_object(file)
        # Weights are known by their hash: the same under another name, or in a folder that has moved, are the same.
        differing = [name for name in mine if name != "model" and theirs.get(name) != mine[name]]
        if differing:
            found = "; ".join(f"{name} {_short(theirs.get(name))}, now {_short(mine[name])}" for name in differing)
            raise InvalidValueError(f"{output}: holds results of another job ({found}); choose another folder")

    @classmethod
    def load(cls, output: Path) -> Job:
        """Reads the job of a folder.

        Raises:
            ValueError: it has none, or the file is something else.
        """
        try:
            values = read_json_object(output / JOB_FILE)
            return cls(**{**values, "class_names": tuple(values["class_names"])})
        except FileNotFoundError as error:
            raise InvalidValueError(f"{output}: has no {JOB_FILE}; expected what predict --engine ray wrote") from error
        except (KeyError, TypeError) as error:
            raise InvalidValueError(f"{output / JOB_FILE}: is no job ({error})") from error

    def file_of(self, output: Path, part: int) -> Path:
        """Returns where the results of a part lie."""
        return output / f"part-{part:06d}.parquet"

    def missing(self, output: Path) -> list[int]:
        """Returns the parts that are not done."""
        return [part for part in range(self.parts) if not self.file_of(output, part).exists()]


def sources_digest(parts: list[Part]) -> str:
    """Returns the sha256 of where all pictures are."""
    digest = hashlib.sha256()
    for part in parts:
        place = (part.number, part.size, part.paths, part.file, part.row_group, part.start)
        digest.update(json.dumps(place).encode())
    return digest.hexdigest()


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"
