"""Everything that holds pictures gives the picture that its path gives, under the name that people know it by."""

from __future__ import annotations

import base64
import io
import tarfile
import threading
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from factories import save_picture
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from diffmiczoo.data import columns
from diffmiczoo.errors import DiffMICError, InvalidTypeError, InvalidValueError
from diffmiczoo.images.containers import FILE_COLUMNS
from diffmiczoo.images.items import ImageError, as_items
from diffmiczoo.images.reading import read_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures "1.png", "2.png", "10.png" whose grey is their number, in a folder, a zip and a tar file."""
    folder = tmp_path_factory.mktemp("held")
    for number in (1, 2, 10):
        save_picture(folder / f"{number}.png", np.full((8, 9, 3), number, np.uint8))
    with zipfile.ZipFile(folder / "scans.zip", "w") as archive:
        for number in (1, 2, 10):
            archive.write(folder / f"{number}.png", f"inside/{number}.png")
    with tarfile.open(folder / "scans.tar", "w") as archive:
        archive.add(folder / "2.png", "2.png")
    return folder


def greys(images: Any) -> list[int]:
    return [int(read_image(item)[0, 0, 0]) for item in as_items(images)]


def names(images: Any) -> list[str]:
    return [item.name for item in as_items(images)]


class Rows(torch.utils.data.Dataset):
    """A data set of rows in some form."""

    def __init__(self, folder: Path, form: Callable[[Image.Image, int], Any]) -> None:
        self.folder, self.form = folder, form

    def __len__(self) -> int:
        return 2

    def __getitem__(self, row: int) -> Any:
        return self.form(Image.open(self.folder / f"{row + 1}.png"), row)


class HuggingFaceLike(list):
    """What is seen of a data set of Hugging Face's: names of columns, and rows that are dicts."""

    column_names = ("image", "label")
    features = ()


ONE_AND_TWO: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda d: [(d / "1.png").read_bytes(), bytearray((d / "2.png").read_bytes())],
    "memoryview": lambda d: [memoryview((d / f"{n}.png").read_bytes()) for n in (1, 2)],
    "paths as bytes": lambda d: [str(d / "1.png").encode(), str(d / "2.png").encode()],
    "open files": lambda d: (open(d / f"{n}.png", "rb") for n in (1, 2)),  # noqa: SIM115
    "buffers at their end": lambda d: [_buffer(d / "1.png"), _buffer(d / "2.png")],
    "zip members": lambda d: [_archive(d).open(f"inside/{n}.png") for n in (1, 2)],
    "zip paths": lambda d: [zipfile.Path(d / "scans.zip", f"inside/{n}.png") for n in (1, 2)],
    "generator": lambda d: (d / f"{n}.png" for n in (1, 2)),
    "map": lambda d: map(Image.open, [d / "1.png", d / "2.png"]),
    "dict values": lambda d: {"a": d / "1.png", "b": d / "2.png"}.values(),
    "deque": lambda d: deque([d / "1.png", d / "2.png"]),
    "pattern": lambda d: f"{d}/[12].png",
    "file URLs": lambda d: [f"file://{d}/1.png", (d / "2.png").as_uri()],
    "data URLs": lambda d: [f"data:image/png;base64,{_base64(d / f'{n}.png')}" for n in (1, 2)],
    "array of paths": lambda d: np.array([str(d / "1.png"), str(d / "2.png")]),
    "array of objects": lambda d: np.array([d / "1.png", d / "2.png"], dtype=object),
    "frame": lambda d: pd.DataFrame({"ImagePath": [f"{d}/1.png", f"{d}/2.png"], "label": [0, 1]}),
    "frame of one column": lambda d: pd.DataFrame({"where": [f"{d}/1.png", f"{d}/2.png"]}),
    "frame with ids": lambda d: pd.DataFrame({"image_id": ["a", "b"], "path": [f"{d}/1.png", f"{d}/2.png"]}),
    "frame of pictures": lambda d: pd.DataFrame({"image": [Image.open(d / f"{n}.png") for n in (1, 2)]}),
    "series": lambda d: pd.Series([f"{d}/1.png", d / "2.png"], index=[7, 3]),
    "index": lambda d: pd.Index([f"{d}/1.png", f"{d}/2.png"]),
    "arrow table": lambda d: pa.table({"filename": [f"{d}/1.png", f"{d}/2.png"], "y": [1, 2]}),
    "arrow table of ids": lambda d: pa.table({"image_id": ["a", "b"], "path": [f"{d}/1.png", f"{d}/2.png"]}),
    "arrow column": lambda d: pa.chunked_array([[f"{d}/1.png"], [f"{d}/2.png"]]),
    "arrow bytes": lambda d: pa.table({"image": [(d / f"{n}.png").read_bytes() for n in (1, 2)]}),
    "arrow rows of bytes": lambda d: pa.table(
        {"image": [{"bytes": (d / f"{n}.png").read_bytes(), "path": None} for n in (1, 2)]}
    ),
    "rows of bytes": lambda d: [{"bytes": (d / f"{n}.png").read_bytes(), "path": f"{n}.png"} for n in (1, 2)],
    "rows of paths": lambda d: [{"bytes": None, "path": str(d / "1.png")}, {"file": d / "2.png", "label": 1}],
    "rows of pictures": lambda d: [{"image": Image.open(d / f"{n}.png"), "label": 0} for n in (1, 2)],
    "hugging face": lambda d: HuggingFaceLike({"image": Image.open(d / f"{n}.png"), "label": 0} for n in (1, 2)),
    "dataset of pairs": lambda d: Rows(d, lambda image, row: (image, row)),
    "dataset of pictures": lambda d: Rows(d, lambda image, _: image),
    "dataset of dicts": lambda d: Rows(d, lambda image, row: {"image": image, "label": row}),
    "subset": lambda d: Subset(Rows(d, lambda image, row: (image, row)), [0, 1]),
    "list of iterators' parts": lambda d: [pd.Series([f"{d}/1.png"]), d / "2.png"],
    "tensors of a dataset": lambda d: TensorDataset(
        torch.stack([torch.full((3, 4, 4), n / 255) for n in (1, 2)]), torch.zeros(2)
    ),
}


def _archive(folder: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(folder / "scans.zip")


def _buffer(path: Path) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "png")
    return buffer


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("kind", ONE_AND_TWO)
def test_the_pictures_are_those_of_the_paths(folder: Path, kind: str) -> None:
    items = as_items(ONE_AND_TWO[kind](folder))
    found = [read_image(item)[0, 0, 0].item() for item in items]
    assert [round(255 * value) if isinstance(value, float) else value for value in found] == [1, 2]
    assert len({item.name for item in items}) == 2


def test_items_are_named_as_people_know_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (folder / "1.png").read_bytes()
    assert names([content, content]) == ["images[0]", "images[1]"]
    with open(folder / "1.png", "rb") as file:
        assert names([file, file]) == [f"{folder}/1.png", f"{folder}/1.png (2)"]
    assert names(_archive(folder).open("inside/1.png")) == ["inside/1.png"]
    assert names({"bytes": content, "path": "scan.png"}) == ["scan.png"]
    assert names(f"{folder}/*.png") == [f"{folder}/{n}.png" for n in (1, 2, 10)]
    monkeypatch.setenv("HOME", str(folder))
    assert names(["~/2.png", "~/[1].png"]) == [f"{folder}/2.png", f"{folder}/1.png"]


def test_patterns_reach_into_folders_and_names_with_brackets_are_names(folder: Path, tmp_path: Path) -> None:
    save_picture(tmp_path / "scan[1].png", np.full((5, 5, 3), 7, np.uint8))
    (tmp_path / "sub").mkdir()
    save_picture(tmp_path / "sub" / "a.png", np.full((5, 5, 3), 9, np.uint8))
    assert greys(str(tmp_path / "scan[1].png")) == [7]
    assert greys(f"{tmp_path}/**/*.png") == [7, 9] and greys(f"{tmp_path}/s*b") == [9]


def test_a_dicom_dataset_that_is_open_is_its_file(tmp_path: Path, make_dicom: Callable[..., Path]) -> None:
    pydicom = pytest.importorskip("pydicom")
    path = make_dicom(tmp_path / "a.dcm", np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    (item,) = as_items(pydicom.dcmread(path))
    assert torch.equal(read_image(item), read_image(as_items(path)[0])) and item.name == str(path)


# ---------------------------------------------------------------------- URLs


@pytest.fixture(scope="module")
def memory(folder: Path) -> str:
    fsspec = pytest.importorskip("fsspec")
    system = fsspec.filesystem("memory")
    for number in (1, 2, 10):
        system.pipe(f"/diffmic/{number}.png", (folder / f"{number}.png").read_bytes())
    system.pipe("/diffmic/notes.txt", b"no picture")
    system.pipe("/diffmic/scans.zip", (folder / "scans.zip").read_bytes())
    return "memory://diffmic"


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (folder / "page.html").write_text("<html>Please log in</html>")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_urls_of_fsspec(memory: str, folder: Path) -> None:
    assert greys([f"{memory}/2.png", f"{memory}/1.png"]) == [2, 1] and names(f"{memory}/2.png") == [f"{memory}/2.png"]
    assert greys(f"{memory}/*.png") == greys(f"{memory}/") == [1, 2, 10]
    assert greys(f"zip://inside/*.png::{memory}/scans.zip") == [1, 2, 10]
    assert greys(f"zip://inside/2.png::{folder}/scans.zip") == greys(f"tar://*.png::{folder}/scans.tar") == [2]


def test_urls_of_servers(server: str) -> None:
    assert greys([f"{server}/1.png", f"{server}/10.png?size=full"]) == [1, 10]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "{memory}/missing.png",
            r"memory://diffmic/missing.png: cannot be read \(FileNotFoundError.*check the address",
        ),
        ("{server}/missing.png", r"/missing.png: cannot be read \(HTTPError: HTTP Error 404.*check the address"),
        ("{server}/page.html", "gives a web page, not a picture"),
        ("http://127.0.0.1:9/a.png", r"a.png: cannot be read \(URLError"),
        ("data:image/png;base64,***", r"images\[0\]: cannot be read .*expected data:image/png;base64"),
        ("data:image/png", "has a comma before its content"),
        ("{memory}/notes.txt", "is not an image"),
    ],
)
def test_urls_that_give_no_picture_are_named_when_they_are_read(
    url: str, message: str, memory: str, server: str
) -> None:
    (item,) = as_items(url.format(memory=memory, server=server))
    with pytest.raises(ImageError, match=message):
        read_image(item)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{memory}/*.gif", "no file matches this pattern"),
        ("{memory}/nothing/", "cannot be listed|holds no image"),
        ("nosuch://b/*.png", "fsspec knows no nosuch://"),
    ],
)
def test_urls_that_cannot_be_listed(url: str, message: str, memory: str) -> None:
    with pytest.raises(DiffMICError, match=message):
        as_items(url.format(memory=memory))


def test_urls_that_need_another_package_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ImportError, match=r"s3:// needs more: pip install \"diffmiczoo\[urls\]\""):
        read_image(as_items("s3://bucket/a.png")[0])


# ---------------------------------------------------------------------- what is refused, and how


REFUSED: dict[str, tuple[Callable[[Path], Any], type[Exception], str]] = {
    "set": (lambda d: {str(d / "1.png")}, InvalidTypeError, "a set has no order"),
    "text file": (lambda d: io.StringIO("text"), InvalidTypeError, r'the StringIO gives str.*"rb"'),
    "closed file": (lambda d: _closed(d / "1.png"), InvalidValueError, r"1.png cannot be read \(.*closed file"),
    "dict": (lambda d: {"a": 1, "b": 2}, InvalidTypeError, "a dict with 'a', 'b' is not an image"),
    "no column": (
        lambda d: pd.DataFrame({"x": [1], "y": [2]}),
        InvalidValueError,
        "no column of files among: 'x', 'y'",
    ),
    "two columns": (
        lambda d: pd.DataFrame({"image": [f"{d}/1.png"], "path": [f"{d}/2.png"]}),
        InvalidValueError,
        "several columns that may hold files: 'image', 'path'",
    ),
    "empty cell": (
        lambda d: pd.DataFrame({"file": ["a.png", None]}),
        InvalidValueError,
        "row 1 of the DataFrame, column 'file', is empty",
    ),
    "empty entry": (lambda d: pd.Series(["a.png", np.nan]), InvalidValueError, "entry 1 of the Series is empty"),
    "pattern": (lambda d: f"{d}/*.gif", ImageError, r"\*.gif: no file matches this pattern"),
    "zip": (lambda d: d / "scans.zip", ImageError, r"is an archive.*zip://\*.png::.*scans.zip"),
    "tar": (lambda d: d / "scans.tar", ImageError, r"is an archive.*tar://\*.png::.*scans.tar"),
    "gzip": (lambda d: "scan.dcm.gz", ImageError, "is a compressed file"),
    "volume": (lambda d: "scan.nii.gz", ImageError, r"is a volume \(NIfTI\), not an image; hand in a slice"),
    "table": (lambda d: "labels.csv", ImageError, "is a table, not an image.*DataFrame"),
}


def _closed(path: Path) -> Any:
    with open(path, "rb") as file:
        pass
    return file


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused_is_named(folder: Path, kind: str) -> None:
    make, error, message = REFUSED[kind]
    with pytest.raises(error, match=message):
        as_items(make(folder))


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b"no picture", "is not an image")])
def test_bytes_that_are_no_picture(content: bytes, message: str) -> None:
    (item,) = as_items([content])
    with pytest.raises(ImageError, match=rf"images\[0\]: {message}"):
        read_image(item)


def test_a_row_that_fails_is_named_and_the_others_are_read() -> None:
    class Broken(Rows):
        def __getitem__(self, row: int) -> Any:
            raise KeyError("no such row")

    for item in as_items(Broken(Path(), lambda image, row: image)):
        with pytest.raises(ImageError, match=r"images\[[01]\]: cannot be read \(KeyError: 'no such row'"):
            read_image(item)


def test_tables_on_disk_and_in_memory_know_the_same_columns() -> None:
    assert columns.FILE_COLUMNS is FILE_COLUMNS
