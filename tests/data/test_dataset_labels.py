"""Datasets number their classes as they like; labels are named by the dataset's own names."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from factories import save_picture
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, random_split
from torchvision.datasets import ImageFolder

from diffmiczoo.data.readers import as_manifest, read_manifest

PICTURE = Image.new("RGB", (8, 8))


class Items(Dataset):
    """A dataset of these labels, with any attributes."""

    def __init__(self, given: list, /, **attributes: Any) -> None:
        self.given = given
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Any:
        return PICTURE, self.given[index]


class Around(Dataset):
    """What people write to give two parts of a dataset different transforms."""

    def __init__(self, subset: Dataset, change: Any = None, **attributes: Any) -> None:
        self.subset, self.change = subset, change or (lambda label: label)
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.subset)

    def __getitem__(self, index: int) -> Any:
        image, label = self.subset[index]
        return image, self.change(label)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes in folders; the brighter a picture, the later its class."""
    root = tmp_path_factory.mktemp("folders")
    for place, name in enumerate(("benign", "malignant")):
        (root / name).mkdir()
        for number in range(3):
            save_picture(root / name / f"{number}.png", np.full((8, 8, 3), 100 * place + 10 * number, np.uint8))
    return root


def names(data: Any, **options: Any) -> list[str]:
    """Returns the labels of a dataset; fails where it warns."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ["+".join(record.labels) for record in as_manifest(data, **options).records]


TRUE = ["benign"] * 3 + ["malignant"] * 3


@pytest.mark.parametrize(
    ("make", "labels"),
    [
        (ImageFolder, TRUE),
        (lambda root: Subset(ImageFolder(root), [5, 0]), ["malignant", "benign"]),
        (lambda root: Subset(Subset(ImageFolder(root), [5, 4, 0]), [2, 0]), ["benign", "malignant"]),
        (lambda root: Subset(ImageFolder(root), np.array([5, 0])), ["malignant", "benign"]),
        (lambda root: Subset(ImageFolder(root), torch.tensor([5, 0])), ["malignant", "benign"]),
        (
            lambda root: ConcatDataset([ImageFolder(root), Subset(ImageFolder(root), [3, 0])]),
            [*TRUE, "malignant", "benign"],
        ),
        (lambda root: Around(ImageFolder(root)), TRUE),
        (lambda root: Around(Subset(ImageFolder(root), [5, 0]), torch.tensor), ["malignant", "benign"]),
        (lambda root: ImageFolder(root, target_transform=float), TRUE),
        (lambda root: ImageFolder(root, target_transform=lambda k: ("benign", "malignant")[k]), TRUE),
    ],
)
def test_image_folders_and_what_is_around_them(root: Path, make: Any, labels: list[str]) -> None:
    assert names(make(root)) == labels
    assert as_manifest(make(root)).class_names == ("benign", "malignant")


def test_an_image_folder_that_numbers_otherwise(root: Path) -> None:
    class Turned(ImageFolder):
        def find_classes(self, directory: Any) -> Any:
            return ["benign", "malignant"], {"malignant": 0, "benign": 1}

    assert sorted(names(Turned(root))) == TRUE
    assert all(record.path.parent.name == record.labels[0] for record in as_manifest(Turned(root)).records)
    listed = ImageFolder(root)
    listed.classes = np.array(listed.classes)
    assert names(listed) == TRUE


@pytest.mark.parametrize(
    "attributes",
    [
        {"classes": ["cat", "dog"]},
        {"classes": ("cat", "dog")},
        {"classes": np.array(["cat", "dog"])},
        {"class_to_idx": {"dog": 1, "cat": 0}},
        {"idx_to_class": {1: "dog", 0: "cat"}},
        {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}},
        {"class_names": ["cat", "dog"]},
        {"info": {"label": {"0": "cat", "1": "dog"}}, "labels": np.array([[1], [0]])},
        {"features": {"image": None, "label": SimpleNamespace(names=["cat", "dog"])}},
        {"classes": ["cat", "dog"], "targets": ["dog", "cat"]},
        {"classes": 2, "class_to_idx": {"cat": 0, "dog": 1}},
    ],
)
def test_attributes_that_name_class_numbers(attributes: dict) -> None:
    assert names(Items([1, np.array([0])], **attributes)) == ["dog", "cat"]
    assert as_manifest(Items([1, 0], **attributes)).class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "attributes", "found"),
    [
        ([1, 2], {}, ["1", "2"]),
        ([1, 2], {"classes": {"cat", "dog"}}, ["1", "2"]),  # a set has no order
        ([1, 3], {"classes": np.array([1, 3])}, ["1", "3"]),  # np.unique(labels)
        ([0, 2], {"classes": ["1", "10", "2"]}, ["1", "2"]),  # folders of numbers, in the order of the alphabet
        (["nv", "mel"], {}, ["nv", "mel"]),
        (["1", "0"], {"classes": ["cat", "dog"]}, ["dog", "cat"]),
        ([[1, 0], [1, 1]], {"classes": ["cat", "dog"]}, ["cat", "cat+dog"]),
        ([["cat"], ["cat", "dog"]], {}, ["cat", "cat+dog"]),
    ],
)
def test_what_numbers_are_called(labels: list, attributes: dict, found: list[str]) -> None:
    assert names(Items(labels, **attributes)) == found


def test_items_may_be_dictionaries() -> None:
    class Rows(Items):
        def __getitem__(self, index: int) -> Any:
            return {"image": PICTURE, "label": self.given[index], "patient": index}

    assert names(Rows([1, 0], classes=["cat", "dog"])) == ["dog", "cat"]
    with pytest.raises(TypeError, match=r"Rows\[0\] has the keys \['x'\]; expected image and label"):
        Rows.__getitem__ = lambda self, index: {"x": 1}
        as_manifest(Rows([1, 0]))


def test_lists_beside_items_do_not_change_labels(root: Path) -> None:
    """`targets` that somebody changed, a subclass, `target_transform`: items count, and their numbers are nameless."""

    class Binary(ImageFolder):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return image, 1 - label

    relabelled = ImageFolder(root)
    relabelled.samples = [(path, 1 - label) for path, label in relabelled.samples]
    cases = [
        ImageFolder(root, target_transform=lambda label: 1 - label),
        Binary(root),
        relabelled,
        Around(ImageFolder(root), lambda label: 1 - label, classes=["benign", "malignant"]),
        Items([1, 1, 1, 0, 0, 0], classes=["cat", "dog"], targets=[0, 0, 0, 1, 1, 1]),
    ]
    for dataset in cases:
        with pytest.warns(UserWarning, match="do not name these labels; they are read as bare numbers"):
            manifest = as_manifest(dataset)
        assert [record.labels[0] for record in manifest.records] == list("111000") and not manifest.named
        # Whoever says what the numbers stand for is believed.
        assert names(dataset, class_names=["malignant", "benign"]) == TRUE
    changed = ImageFolder(root)
    changed.targets = [1] * 6  # what no item shows
    assert names(changed) == TRUE
    assert names(Around(ImageFolder(root), lambda label: 1 - label)) == list("111000")


def test_contradicting_names_are_refused_unless_others_are_given() -> None:
    dataset = Items([1, 0], classes=["cat", "dog"], class_to_idx={"dog": 0, "cat": 1})
    with pytest.raises(ValueError, match=r"class_to_idx and classes number its classes differently; give class_names"):
        as_manifest(dataset)
    assert names(dataset, class_names=["eel", "fox"]) == ["fox", "eel"]


def test_given_names_are_for_bare_numbers_only() -> None:
    assert names(Items([1, 2]), class_names={1: "a", 2: "b"}) == ["a", "b"]
    assert names(Items([0, 2], classes=["1", "10", "2"]), class_names={1: "a", 2: "b", 10: "c"}) == ["a", "b"]
    assert names(Items([1, 0], classes=["cat", "dog"]), class_names=["dog", "cat"]) == ["dog", "cat"]
    with pytest.raises(ValueError, match=r"class_names has no name for the class numbers \[2\]; it names"):
        as_manifest(Items([1, 2]), class_names=["a", "b"])
    with pytest.raises(ValueError, match=r"labels \['cat', 'dog'\] are not among the classes \['a', 'b'\]"):
        as_manifest(Items([1, 0], classes=["cat", "dog"]), class_names=["a", "b"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, -1], r"Items\[1\]: label -1 is no class number"),
        ([0, None], r"Items\[1\]: label None"),
        ([0, 0.5], "label 0.5"),
    ],
)
def test_labels_that_are_none_name_the_item(labels: list, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        as_manifest(Items(labels))


def test_images_are_told_apart_by_what_they_are(root: Path) -> None:
    def same(one: Any, other: Any) -> int:
        return len({r.identity for r in as_manifest(one).records} & {r.identity for r in as_manifest(other).records})

    whole, again = ImageFolder(root), ImageFolder(root)
    first, second = random_split(whole, [4, 2], torch.Generator().manual_seed(0))
    assert same(first, second) == 0 and same(whole, first) == 4 and same(Around(first), Around(second)) == 0
    assert same(whole, again) == 6  # two objects, the same files
    tensors = TensorDataset(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0]))
    assert same(tensors, TensorDataset(*tensors.tensors)) == 0 and same(tensors, tensors) == 3
    assert same(Subset(tensors, [0, 1]), Subset(tensors, [1, 2])) == 1


def test_an_npz_may_bring_names_and_several_labels(tmp_path: Path) -> None:
    images = np.zeros((3, 8, 8), np.uint8)
    np.savez(
        tmp_path / "named.npz", train_images=images, train_labels=[[1.0], [0.0], [1.0]], class_names=["cat", "dog"]
    )
    assert [record.labels for record in read_manifest(tmp_path / "named.npz").records] == [("dog",), ("cat",), ("dog",)]
    np.savez(tmp_path / "several.npz", train_images=images, train_labels=np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]))
    several = read_manifest(tmp_path / "several.npz")
    assert several.class_names == ("0", "1", "2") and several.targets().tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
    np.savez(tmp_path / "bad.npz", train_images=images, train_labels=[0, -1, 1])
    with pytest.raises(ValueError, match=r"bad\.npz, train_labels\[1\]: label -1 is no class number"):
        read_manifest(tmp_path / "bad.npz")
    np.savez(tmp_path / "from1.npz", train_images=images, train_labels=[1, 2, 3])
    named = read_manifest(tmp_path / "from1.npz", class_names={1: "a", 2: "b", 3: "c"})
    assert named.class_names == ("a", "b", "c") and named.targets().tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"no name for the class numbers \[3\].*Give a dictionary"):
        read_manifest(tmp_path / "from1.npz", class_names=["a", "b", "c"])


def test_tables_with_numbers_of_pandas(tmp_path: Path) -> None:
    for name in "ab":
        save_picture(tmp_path / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "t.csv").write_text("file,label\na.png,1.0\nb.png,2.0\n")
    assert read_manifest(tmp_path / "t.csv").class_names == ("1", "2")
    assert read_manifest(tmp_path / "t.csv", class_names={1: "mild", 2: "severe"}).class_names == ("mild", "severe")
    (tmp_path / "t.csv").write_text("file,label\na.png,1\nb.png,-1\n")
    with pytest.raises(ValueError, match=r"t\.csv: b\.png has label -1, which is no class number"):
        read_manifest(tmp_path / "t.csv")


def test_the_order_of_a_datasets_classes_is_no_order_of_grades() -> None:
    assert not as_manifest(Items([1, 0, 2], classes=["bad", "good", "awful"])).ordered  # as pandas.unique found them
    assert as_manifest(Items([1, 0, 2], classes=["a", "b", "c"]), class_names=["c", "a", "b"]).ordered
    with pytest.raises(TypeError, match="a DataFrame is not read; save it with to_csv"):
        as_manifest(pd.DataFrame({"file": ["a.png"], "label": [1]}))


def test_vectors_tell_the_task() -> None:
    assert as_manifest(Items([[0, 0, 0], [0, 1, 0]])).task == "multilabel"  # nothing found is no missing label
    one_hot = as_manifest(Items([[1, 0, 0], [0, 1, 0]]))
    assert one_hot.task == "multiclass" and one_hot.class_names == ("0", "1", "2")
    with pytest.raises(TypeError, match=r"a DataLoader is not a map-style dataset.*; hand in its dataset"):
        as_manifest(DataLoader(Items([0, 1])))
