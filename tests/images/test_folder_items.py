"""`folder_items`: the items of `as_items` in the same order, in memory that does not grow with a folder."""

from __future__ import annotations

import os
import random
import tracemalloc
import warnings
from pathlib import Path

import pytest

from diffmiczoo.images import walking
from diffmiczoo.images.folder_items import FolderItems, folder_items, matching
from diffmiczoo.images.items import ImageError, Item, as_items

NAMES = [
    "1.png", "2.png", "10.PNG", "010.png", "A1.jpg", "a1.jpg", "a01.jpg", "é2.png", "é10.png", "bad\udcff.png",
    "x\ny.png", "1_mask.png", "3_mask.png", "mask_2.png", "a1_thumb.jpg", "9_thumb.jpg", "notes.txt", "README",
    ".hidden.png", "s.IMA",
]  # fmt: skip


def tree(root: Path, seed: int) -> Path:
    """Folders in folders, with names that sort alike, runs of fit, links, and folders of operating systems."""
    rng = random.Random(seed)
    places = [root]
    for name in ("A", "a", "a1", "a01", "a.png", "a-", "10", "9", "@eaDir", ".git"):
        places.append(rng.choice(places[:4]) / name)
    for place in places:
        place.mkdir(parents=True)
        for name in rng.sample(NAMES, rng.randint(0, len(NAMES))):
            (place / name).touch()
    (places[2] / "run").mkdir()
    for name in ("recipe.json", "data_report.json", "1.png"):
        (places[2] / "run" / name).touch()
    (root / "link").symlink_to(places[1])
    (root / "0.png").touch()
    return root


def told(make, folder: Path) -> tuple[list[str], list[str]]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        names = [item.name for item in make(folder)]
    return names, [str(warning.message) for warning in said]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("in_memory", [1, 4, 1000])
def test_it_is_what_as_items_gives(tmp_path, monkeypatch, seed: int, in_memory: int) -> None:
    monkeypatch.setattr(walking, "_SORTED_IN_MEMORY", in_memory)
    root = tree(tmp_path / "pictures", seed)
    found = told(lambda folder: folder_items(f"{folder}{os.sep}"), root)
    expected = told(as_items, root)
    assert found[0] == expected[0]
    # The folder is called as it was given.
    assert [text.replace(f"{os.sep}:", ":") for text in found[1]] == expected[1]


def test_the_folder_itself_may_be_a_dot(tmp_path, monkeypatch) -> None:
    (tmp_path / "a").mkdir()
    for name in ("2.png", "a/1.png"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert [item.name for item in folder_items(".")] == [item.name for item in as_items(".")] == ["2.png", "a/1.png"]


def test_some_of_them(tmp_path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.png").touch()
    whole = folder_items(str(tmp_path))
    even = matching(matching(whole, lambda name: Path(name).stem != "4"), lambda name: int(Path(name).stem) % 2 == 0)
    assert isinstance(even, FolderItems) and (len(whole), len(even)) == (20, 9)
    assert [Path(item.name).stem for item in even][:3] == ["0", "2", "6"]
    assert next(iter(even)) in even and next(iter(matching(whole, lambda name: name.endswith("/4.png")))) not in even
    assert matching([Item("a", 1), Item("b", 2)], lambda name: name == "b")[0].source == 2


def test_folders_of_masks_are_listed_whole(tmp_path) -> None:
    for name in ("1.png", "masks/1.png", "masks/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(UserWarning, match="1 masks of pictures"):
        items = folder_items(str(tmp_path))
    assert [Path(item.name).name for item in items] == ["1.png", "2.png"] and isinstance(items, list)


def test_what_cannot_be_listed_or_holds_nothing(tmp_path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ImageError, match=r"holds no image among 1 files \(notes\.txt\); expected \.avif"):
        folder_items(str(tmp_path))
    with pytest.raises(ImageError, match="cannot be listed"):
        folder_items(str(tmp_path / "missing"))
    (tmp_path / "1.png").touch()
    items = folder_items(str(tmp_path))
    (tmp_path / "1.png").unlink()
    (tmp_path / "notes.txt").unlink()
    tmp_path.rmdir()
    with pytest.raises(ImageError, match="cannot be listed"):
        list(items)


def test_memory_does_not_grow_with_the_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(walking, "_SORTED_IN_MEMORY", 100)
    peaks = []
    for count in (1000, 4000):
        root = tmp_path / str(count)
        root.mkdir()
        for number in range(count):
            (root / f"a_rather_long_name_{number}.png").touch()
        tracemalloc.start()
        try:
            assert sum(1 for _ in folder_items(str(root))) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 400_000
