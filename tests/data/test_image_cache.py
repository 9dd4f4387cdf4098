"""Squares of a data set in memory, in a mapped file and from a cache."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from factories import TINY, write_images
from torch.utils.data import TensorDataset

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data import image_cache
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.image_cache import load_squares
from diffmiczoo.data.readers import as_manifest, read_manifest
from diffmiczoo.images import loading
from diffmiczoo.images.items import ImageError

CONFIG = DiffMICConfig(**{"num_classes": 2, **TINY})


def test_all_unreadable_images_are_named_at_once(tmp_path) -> None:
    write_images(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    for name in ("a/2.png", "b/4.png"):
        (tmp_path / name).write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"(?s)2 of 4 images cannot be read; .*2\.png.*4\.png"):
        ImageDataset(read_manifest(tmp_path), CONFIG, progress=False)


def test_large_sets_are_mapped_and_a_cache_is_used_again(tmp_path, monkeypatch) -> None:
    write_images(tmp_path / "d", ["a/1.png", "a/2.png", "b/3.png"])
    manifest = read_manifest(tmp_path / "d")
    in_memory = load_squares(manifest, CONFIG, progress=False)
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 1000)
    mapped = load_squares(manifest, CONFIG, progress=False)
    cached = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
    assert torch.equal(in_memory, mapped) and torch.equal(in_memory, cached)
    (file,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(image_cache, "_fill", lambda *_: pytest.fail("decoded again"))
    again = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
    assert torch.equal(in_memory, again)
    monkeypatch.undo()
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 1000)
    write_images(tmp_path / "d", ["a/1.png"], seed=9)
    other = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
    assert not torch.equal(other, in_memory) and len(list((tmp_path / "cache").iterdir())) == 2 and file.exists()


def test_a_cache_holds_no_file_of_images_that_cannot_be_read(tmp_path, monkeypatch) -> None:
    write_images(tmp_path / "d", ["a/1.png", "b/2.png"])
    (tmp_path / "d/a/1.png").write_bytes(b"not an image")
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 1000)
    with pytest.raises(ImageError, match=r"1 of 2 images cannot be read; .*\n.*1\.png: is not an image"):
        load_squares(read_manifest(tmp_path / "d"), CONFIG, cache=tmp_path / "cache", progress=False)
    assert not list((tmp_path / "cache").iterdir())


def test_too_little_room_is_said_before_anything_is_decoded(tmp_path, monkeypatch) -> None:
    write_images(tmp_path / "d", ["a/1.png", "b/2.png"])
    manifest = read_manifest(tmp_path / "d")
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 1000)
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: real._replace(free=500))
    monkeypatch.setattr(image_cache, "_fill", lambda *_: pytest.fail("decoded"))
    for cache in (tmp_path / "cache", None):
        with pytest.raises(OSError, match=r"need 0\.0 GiB and 0\.0 are free; make room"):
            load_squares(manifest, CONFIG, cache=cache, progress=False)
    assert not list((tmp_path / "cache").iterdir())


def test_room_is_reserved_and_not_only_promised(tmp_path) -> None:
    with (tmp_path / "squares").open("wb") as file:
        image_cache._reserve(file, (8, 3, 128, 128))
        assert os.fstat(file.fileno()).st_size == 8 * 3 * 128 * 128
        if hasattr(os, "posix_fallocate"):
            assert os.fstat(file.fileno()).st_blocks * 512 >= 8 * 3 * 128 * 128


def test_several_threads_decode_the_same(tmp_path, monkeypatch) -> None:
    write_images(tmp_path, [f"{name}/{number}.png" for name in "ab" for number in range(4)])
    manifest = read_manifest(tmp_path)
    alone = load_squares(manifest, CONFIG, progress=False)
    monkeypatch.setattr(loading, "WORTH_THREADS", 1)
    together = load_squares(manifest, CONFIG, progress=False)
    assert torch.equal(alone, together)


def test_images_of_datasets_are_not_taken_from_a_cache(tmp_path, monkeypatch) -> None:
    """Another dataset of the same class and length has the same names."""
    monkeypatch.setattr(image_cache, "MEMORY_LIMIT", 1000)
    first, second = (
        as_manifest(TensorDataset(torch.full((2, 3, 8, 8), grey, dtype=torch.uint8), torch.tensor([0, 1])))
        for grey in (10, 200)
    )
    for manifest, grey in ((first, 10), (second, 200)):
        squares = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
        assert squares.unique().tolist() == [grey]
