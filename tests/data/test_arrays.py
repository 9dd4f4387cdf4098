"""Labelled images in an .npz file or a dataset of torch."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from factories import TINY, labels_of
from PIL import Image
from torch.utils.data import TensorDataset

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import as_manifest, read_manifest

CONFIG = DiffMICConfig(**{"num_classes": 2, **TINY})


def test_an_npz_like_medmnists(tmp_path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_images": rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for split, count in (("train", 12), ("val", 2), ("test", 2))
    }
    arrays |= {f"{split}_labels": np.arange(len(arrays[f"{split}_images"]))[:, None] % 11 for split in ("train", "val")}
    arrays["test_labels"] = np.array([[0], [10]])
    np.savez(tmp_path / "m.npz", **arrays)
    manifest = read_manifest(tmp_path / "m.npz")
    assert manifest.class_names == tuple(str(number) for number in range(11))  # as numbers: 10 is the last
    assert manifest.split("test").targets().tolist() == [0, 10]
    dataset = ImageDataset(manifest.split("train"), CONFIG, progress=False)
    assert dataset.squares.shape == (12, 3, 64, 64)
    grey = torch.from_numpy(arrays["train_images"][0]).float().mean()
    assert abs(dataset.squares[0].float().mean() - grey) < 4
    named = read_manifest(tmp_path / "m.npz", class_names=[f"c{number}" for number in range(11)])
    assert named.records[3].labels == ("c3",)


def test_an_npz_with_several_labels(tmp_path) -> None:
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    np.savez(tmp_path / "m.npz", train_images=np.zeros((2, 28, 28, 3), np.uint8), train_labels=labels)
    manifest = read_manifest(tmp_path / "m.npz", class_names=["a", "b", "c"], task="multilabel")
    assert manifest.targets().tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "needs train_images and train_labels"),
        ({"train_images": np.zeros((2, 8, 8), np.uint8)}, "train_labels holds no labels for 2 images"),
        (
            {"train_images": np.zeros((2, 8, 8), np.float32), "train_labels": np.zeros((2, 1), int)},
            r"float32 \(2, 8, 8\); expected uint8",
        ),
        *(
            ({"train_images": np.zeros(shape, np.uint8), "train_labels": np.zeros((2, 1), int)}, "expected uint8")
            for shape in ((2, 3, 8, 8), (2, 28, 28, 28), (2, 8, 8, 2))  # channels first, volumes, two colours
        ),
        ({"train_images": np.array([{}]), "train_labels": np.zeros((1, 1), int)}, "not a file of plain arrays"),
    ],
)
def test_a_wrong_npz(tmp_path, arrays, message: str) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "m.npz")


def test_a_dictionary_is_no_dataset() -> None:
    with pytest.raises(TypeError, match=r"a dict is not read; hand in a list of pairs \(image, label\)"):
        as_manifest({"a.png": "x", "b.png": "y"})


def test_a_dataset_of_torch() -> None:
    images = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8)
    manifest = as_manifest(TensorDataset(images, torch.tensor([0, 1, 2, 0, 1, 2])))
    assert manifest.class_names == ("0", "1", "2") and manifest.records[4].labels == ("1",)
    dataset = ImageDataset(manifest, CONFIG, progress=False)
    assert abs(dataset.squares[2].float().mean() - images[2].float().mean()) < 4

    class Named:
        classes = ("cat", "dog")
        targets = (1, 0)
        asked: ClassVar[list[int]] = []

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int):
            self.asked.append(index)
            return Image.new("RGB", (10, 10)), self.targets[index]

    named = as_manifest(Named())
    assert labels_of(named) == {"Named[0]": ("dog",), "Named[1]": ("cat",)}  # items count, not lists beside them
    assert Named.asked == [0, 1]
    with pytest.raises(TypeError, match=r"a int is not a map-style dataset of \(image, label\)"):
        as_manifest(7)
    with pytest.raises(ValueError, match=r"TensorDataset\[0\]: label 0\.\d+ is no class number: it is no whole number"):
        as_manifest(TensorDataset(images, torch.rand(6)))
    with pytest.raises(ValueError, match="neither a class number nor a vector of 0 and 1"):
        as_manifest(TensorDataset(images, torch.rand(6, 2)))
