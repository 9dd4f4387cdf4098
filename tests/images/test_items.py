"""Items of everything that holds pictures, and what holds none."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import save_picture
from PIL import Image

from diffmiczoo.errors import DiffMICError
from diffmiczoo.images.items import IMAGE_EXTENSIONS, ImageError, Item, as_items, list_folder, list_images
from diffmiczoo.images.listing import natural_key
from diffmiczoo.images.reading import read_image
from diffmiczoo.images.sniffing import is_dicom


def test_items_of_everything(tmp_path, picture):
    first, second = save_picture(tmp_path / "b2.png", picture), save_picture(tmp_path / "b10.png", picture)
    items = as_items([tmp_path, str(first), Image.fromarray(picture), np.stack([picture] * 2), torch.zeros(3, 8, 8)])
    assert [item.name for item in items] == [
        str(first),
        str(second),
        f"{first} (2)",
        "images[3]",
        "images[4]",
        "images[5]",
        "images[6]",
    ]
    assert all(isinstance(item, Item) for item in items)
    assert as_items(items) == items
    more = as_items([*items, first])
    assert more[-1].name == f"{first} (3)" and len({item.name for item in more}) == 8
    assert read_image(more[0]).shape == (3, 20, 30)


@pytest.mark.parametrize(
    "wrong", [None, {"image": 1}, 3, [["a.png"]], object(), np.array([b"a.png"]), np.array([["a.png"]])]
)
def test_items_of_something_else(wrong):
    with pytest.raises(TypeError, match="a path, a directory, a pattern, a URL, a PIL image, a NumPy array or a"):
        as_items(wrong)


def test_what_can_be_made_an_array_is_one(picture):
    """Of JAX, TensorFlow, h5py, zarr, xarray, which have no name here."""

    class Foreign:
        def __init__(self, array):
            self.array = array

        def __array__(self, dtype=None, copy=None):
            return self.array

    assert torch.equal(read_image(as_items(Foreign(picture))[0]), read_image(as_items(picture)[0]))
    assert len(as_items([Foreign(np.stack([picture] * 3)), picture])) == 4
    for wrong in (Foreign(np.float64(3)), Foreign(np.array([["a.png"]])), Foreign("none")):
        with pytest.raises(TypeError, match=r"a Foreign (is not an image|cannot be made an array)"):
            as_items(wrong)


def test_texts_and_lists_that_hold_a_picture_say_how_it_is_handed_in(picture):
    with pytest.raises(ValueError, match=r"a text of 9,000 characters, 'iVBORw0KGgo.*base64.b64decode\(text\)"):
        as_items("iVBORw0KGgo" + "A" * 8989)
    with pytest.raises(TypeError, match=r"numpy.asarray\(…\) makes an array"):
        as_items(picture.tolist())


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 8, 8, 3), np.uint8), torch.zeros(0, 3, 8, 8)])
def test_no_images(empty):
    with pytest.raises(ValueError, match="there are no images"):
        as_items(empty)


def test_list_images_sorts_and_filters(tmp_path):
    names = [
        "10.png",
        "2.PNG",
        "sub/1.jpeg",
        "sub/x.dcm",
        "notes.txt",
        ".hidden.png",
        "._2.png",
        ".ipynb_checkpoints/3.png",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [str(path.relative_to(tmp_path)) for path in list_images(tmp_path)] == [
        "2.PNG",
        "10.png",
        "sub/1.jpeg",
        "sub/x.dcm",
    ]
    assert all(extension == extension.lower() for extension in IMAGE_EXTENSIONS)


def test_list_images_of_nothing(tmp_path):
    with pytest.raises(ImageError, match="holds no image among 0 files"):
        list_images(tmp_path)
    with pytest.raises(ImageError, match="cannot be listed"):
        list_images(tmp_path / "missing")


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(ImageError("a.png", "is empty")))
    assert (str(error), error.name, error.reason) == ("a.png: is empty", "a.png", "is empty")
    assert isinstance(error, DiffMICError) and isinstance(error, ValueError)


def test_a_folder_of_dicom_files_without_extension(tmp_path, picture, make_dicom):
    make_dicom(tmp_path / "IM000001", picture)
    make_dicom(tmp_path / "1.2.840.113619.2.5", picture)
    make_dicom(tmp_path / "scan.IMA", picture)
    whole = make_dicom(tmp_path / "one.dcm", picture).read_bytes()
    (tmp_path / "bare").write_bytes(whole[132:])
    (tmp_path / "DICOMDIR").write_bytes(whole[:132] + b"\x02\0\x02\0UI\x14\x001.2.840.10008.1.3.10" + bytes(300))
    save_picture(tmp_path / "photo", picture, format="JPEG")
    (tmp_path / "notes.txt").write_text("DICM " * 100)
    (tmp_path / "README").write_text("Rows 512, Columns 512\n" * 20)
    (tmp_path / "empty").touch()
    listing = list_folder(tmp_path)
    assert [path.name for path in listing.images] == [
        "1.2.840.113619.2.5",
        "bare",
        "IM000001",
        "one.dcm",
        "photo",
        "scan.IMA",
    ]
    assert [path.name for path in listing.others] == ["empty", "notes.txt", "README"]
    with pytest.warns(UserWarning, match=r"3 files are no images and passed over: empty, notes.txt, README"):
        items = as_items(tmp_path)
    assert all(torch.equal(read_image(item), read_image(items[0])) for item in items if "photo" not in item.name)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("explicit", [True, False])
def test_dicom_without_preamble_is_known_by_its_first_elements(order, explicit):
    kind = (b"CS" + struct.pack(f"{order}H", 10)) if explicit else struct.pack(f"{order}I", 10)
    first = struct.pack(f"{order}HH", 8, 5) + kind + b"ISO_IR 100"
    assert is_dicom(first + struct.pack(f"{order}HH", 8, 8) + bytes(20))
    assert not is_dicom(first + struct.pack(f"{order}HH", 8, 4) + bytes(20))
    assert not is_dicom(first[:12])


@pytest.mark.parametrize("text", [b"", b"DICM", b"\x08\0" * 20, b"Patient;Modality\n" * 9, bytes(200), b"\xff" * 200])
def test_what_is_not_dicom(text):
    assert not is_dicom(text)


def test_masks_and_folders_of_systems_are_passed_over(tmp_path, picture):
    for name in ("1.png", "1_mask.png", "2_mask.png", "masks/1.png", "@eaDir/1.png/THUMB.jpg", "__MACOSX/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_picture(tmp_path / name, picture)
    with pytest.warns(
        UserWarning, match=r"2 masks of pictures that lie there too are passed over: 1_mask.png, masks/1"
    ):
        items = as_items(tmp_path)
    assert [os.path.relpath(item.name, tmp_path) for item in items] == ["1.png", "2_mask.png"]
    assert len(as_items([tmp_path / "1_mask.png"])) == 1


def test_a_long_list_of_files_takes_little_memory(tmp_path) -> None:
    """A folder of ten million pictures has to fit: 200 bytes and the name of each."""
    for number in range(2000):
        (tmp_path / f"{number}.png").touch()
    as_items(tmp_path)
    tracemalloc.start()
    try:
        items = as_items(tmp_path)
        held = tracemalloc.get_traced_memory()[0] / len(items)
    finally:
        tracemalloc.stop()
    assert len(items) == 2000 and held < 200 + len(items[0].name)


def test_paths_are_sorted_as_people_count() -> None:
    names = [
        "a/10.png",
        "a/9.png",
        "a/09b.png",
        "A/2.png",
        "a1/1.png",
        "a/b/1.png",
        "a-/1.png",
        "a/é2.png",
        "a/é10.png",
    ]
    expected = [
        "A/2.png",
        "a/9.png",
        "a/09b.png",
        "a/10.png",
        "a/b/1.png",
        "a/é2.png",
        "a/é10.png",
        "a1/1.png",
        "a-/1.png",
    ]
    assert sorted(names, key=lambda name: natural_key(Path(name))) == expected
