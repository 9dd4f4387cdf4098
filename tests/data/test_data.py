"""Every source of labelled images, how they are split, and what is said of them before training."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from conftest import SHARED
from factories import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data import image_cache as squares_module
from diffmiczoo.data.checks import check_data
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.downloads import recognized_download
from diffmiczoo.data.image_cache import load_squares
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.data.readers import as_manifest, read_manifest
from diffmiczoo.data.splits import complete_splits, leaks, make_splits
from diffmiczoo.images import loading
from diffmiczoo.images.items import ImageError

CONFIG = DiffMICConfig(**{"num_classes": 2, **TINY})


def write_images(directory: Path, names: list[str], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)


def labels_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    return {record.path.name: record.labels for record in manifest.records}


# ---------------------------------------------------------------------- tables


@pytest.mark.parametrize(("ending", "sign"), [("csv", ","), ("csv", ";"), ("tsv", "\t"), ("csv", "\t")])
def test_tables_of_text(tmp_path, ending: str, sign: str) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    rows = [["file", "label", "split", "group"], ["a.png", "x", "train", "p1"], ["b.png", "y", "val", "p2"]]
    (tmp_path / f"t.{ending}").write_text("\n".join(sign.join(row) for row in rows) + "\n")
    manifest = read_manifest(tmp_path / f"t.{ending}")
    assert labels_of(manifest) == {"a.png": ("x",), "b.png": ("y",)}
    assert [record.split for record in manifest.records] == ["train", "val"] and manifest.groups() == ["p1", "p2"]


def test_a_parquet_table(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_images(tmp_path, ["a.png", "b.png"])
    table = pyarrow.table({"file": ["a.png", "b.png"], "label": ["x", "y"], "group": [7, 8], "split": [None, None]})
    parquet.write_table(table, tmp_path / "t.parquet")
    manifest = read_manifest(tmp_path / "t.parquet")
    assert labels_of(manifest) == {"a.png": ("x",), "b.png": ("y",)} and manifest.groups() == ["7", "8"]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"broken\.parquet: is not a Parquet table"):
        read_manifest(tmp_path / "broken.parquet")


def test_a_column_for_each_label(tmp_path) -> None:
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    (tmp_path / "t.csv").write_text("file,Mass,Edema\na.png,1,0\nb.png,1,1\nc.png,0,0\n")
    manifest = read_manifest(tmp_path / "t.csv", task="multilabel")
    assert labels_of(manifest) == {"a.png": ("Mass",), "b.png": ("Mass", "Edema"), "c.png": ()}
    assert manifest.task == "multilabel"
    (tmp_path / "t.csv").write_text("file,Mass,Edema,age\na.png,1,0,61\n")
    with pytest.raises(ValueError, match=r"line 2: column age holds '61'; .* Remove it, or name the labels"):
        read_manifest(tmp_path / "t.csv")
    named = read_manifest(tmp_path / "t.csv", class_names=["Edema", "Mass"], task="multilabel")
    assert labels_of(named) == {"a.png": ("Mass",)}
    with pytest.raises(ValueError, match=r"no column for the labels \['Hernia'\]"):
        read_manifest(tmp_path / "t.csv", class_names=["Mass", "Hernia"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\nmissing.png,x\na.png,y\n", r"1 of 2 files do not exist, first .*missing\.png"),
        ("file,label\na.png,x\na.png,y\n", r"lists 1 files more than once, first .*a\.png"),
        ("file,label\na.png,x,y\n", "line 2: has more values than there are columns"),
        ("file,label,split\na.png,x,training\n", "line 2: split 'training' is not one of train, val, test"),
        ("file,label,group\na.png,x,p\nb.png,y,\n", r"1 of 2 images have no group, first b\.png"),
        ("file,label\na.png,x|x\n", "line 2: a label is given twice"),
        ("picture,label\na.png,x\n", r"needs the columns file and label; found \['picture', 'label'\]"),
        ("file,label\n", "lists no images"),
    ],
)
def test_wrong_tables_name_the_line_and_the_cause(tmp_path, text: str, message: str) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_manifest(tmp_path / "t.csv")


def test_labels_that_are_not_classes(tmp_path) -> None:
    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "t.csv").write_text("file,label\na.png,cat\nb.png,dog\n")
    with pytest.raises(ValueError, match=r"labels \['dog'\] are not among the classes \['cat', 'cow'\]"):
        read_manifest(tmp_path / "t.csv", class_names=["cat", "cow"])


# ---------------------------------------------------------------------- arrays and datasets


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
        ({"train_images": np.array([{}]), "train_labels": np.zeros((1, 1), int)}, "not a file of plain arrays"),
    ],
)
def test_a_wrong_npz(tmp_path, arrays, message: str) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "m.npz")


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
    assert labels_of(named) == {"Named[0]": ("dog",), "Named[1]": ("cat",)} and not Named.asked  # none was read
    with pytest.raises(TypeError, match=r"a int is not a map-style dataset of \(image, label\)"):
        as_manifest(7)
    with pytest.raises(ValueError, match="neither a class number nor a vector of 0 and 1"):
        as_manifest(TensorDataset(images, torch.rand(6, 2)))


# ---------------------------------------------------------------------- the paper's sets as downloaded


def test_ham10000_as_downloaded(tmp_path) -> None:
    write_images(tmp_path, ["HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_1/I2.jpg", "part_2/I3.jpg"])
    rows = "lesion_id,image_id,dx,dx_type,age,sex,localization\nL1,I1,nv,histo,5,male,back\n"
    rows += "L1,I2,nv,histo,5,male,back\nL2,I3,mel,histo,6,male,back\n"
    (tmp_path / "HAM10000_metadata.csv").write_text(rows)
    manifest = read_manifest(tmp_path)
    assert labels_of(manifest) == {"I1.jpg": ("nv",), "I2.jpg": ("nv",), "I3.jpg": ("mel",)}
    assert manifest.groups() == ["L1", "L1", "L2"] and not manifest.has_splits
    assert manifest.class_names == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def test_aptos2019_as_downloaded(tmp_path) -> None:
    write_images(tmp_path, ["train_images/a.png", "train_images/b.png"])
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na,0\nb,4\n")
    manifest = read_manifest(tmp_path)
    assert labels_of(manifest) == {"a.png": ("no_dr",), "b.png": ("proliferative",)}


def test_chestxray14_as_downloaded(tmp_path) -> None:
    names = [f"0000000{patient}_00{shot}.png" for patient in (1, 2, 3) for shot in (0, 1)]
    write_images(tmp_path, [f"images_001/images/{name}" for name in names])
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID"]
    findings = ["Mass|Edema", "No Finding", "Hernia", "Mass", "Edema", "No Finding"]
    rows += [f"{name},{label},0,{name[7]}" for name, label in zip(names, findings, strict=True)]
    (tmp_path / "Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "train_val_list.txt").write_text("\n".join(names[:4]) + "\n")
    (tmp_path / "test_list.txt").write_text("\n".join(names[4:]) + "\n")
    manifest = read_manifest(tmp_path)
    assert manifest.task == "multilabel" and len(manifest.class_names) == 14
    assert manifest.records[0].labels == ("Mass", "Edema") and manifest.records[1].labels == ()
    assert [record.split for record in manifest.records] == ["train"] * 4 + ["test"] * 2
    complete, made = complete_splits(manifest)
    assert "no image had split val" in made and not leaks(complete)
    assert {record.split for record in complete.records} == {"train", "val", "test"}


def test_an_original_download_that_lacks_a_picture_says_which(tmp_path) -> None:
    write_images(tmp_path, ["train_images/a.png"])
    (tmp_path / "train.csv").write_text("id_code,diagnosis\na,0\nb,4\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images were not found .* first b"):
        read_manifest(tmp_path)
    assert recognized_download(tmp_path) is not None and recognized_download(tmp_path / "train_images") is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not here")
@pytest.mark.parametrize("name", ["ham10000", "aptos2019", "busi", "chestxray14_subset", "nihcxr_64px"])
def test_the_shared_sets_are_read_and_have_no_leak(name: str) -> None:
    manifest = read_manifest(SHARED / "data" / name, task="multilabel" if "cxr" in name or "chest" in name else None)
    assert manifest.has_splits and not leaks(manifest)
    made = make_splits(manifest)
    assert not leaks(made)
    total = manifest.counts
    together = Counter((record.group, label) for record in manifest.records for label in record.labels)
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        for label, count in made.split(split).counts.items():
            largest = max(images for (_, shown), images in together.items() if shown == label)
            assert abs(count - share * total[label]) <= max(0.02 * total[label], 3, largest), (split, label)


# ---------------------------------------------------------------------- splits


def manifest_of(labels: list[int], groups: list[int] | None) -> Manifest:
    records = tuple(
        Record(Path(f"{number}.png"), (f"c{label}",), None, None if groups is None else f"g{groups[number]}")
        for number, label in enumerate(labels)
    )
    return Manifest("made", records, tuple(f"c{label}" for label in range(4)), "multiclass")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=40, max_size=150), st.integers(0, 5))
def test_made_splits_tear_no_group_and_are_repeatable(rows, seed: int) -> None:
    labels, groups = [list(column) for column in zip(*rows, strict=True)]
    manifest = manifest_of(labels, groups)
    if len(set(groups)) < 3:
        with pytest.raises(ValueError, match="groups cannot fill 3 splits"):
            make_splits(manifest, seed=seed)
        return
    made = make_splits(manifest, seed=seed)
    assert not leaks(made) and made == make_splits(manifest, seed=seed)
    assert {record.split for record in made.records} == {"train", "val", "test"}
    assert [record.path for record in made.records] == [record.path for record in manifest.records]


def test_made_splits_hold_the_shares_of_every_class() -> None:
    labels = [0] * 200 + [1] * 60 + [2] * 20 + [3] * 10
    made = make_splits(manifest_of(labels, None), val=0.1, test=0.2)
    assert made.split("train").counts == {"c0": 140, "c1": 42, "c2": 14, "c3": 7}
    assert made.split("val").counts == {"c0": 20, "c1": 6, "c2": 2, "c3": 1}
    assert make_splits(manifest_of(labels, None), seed=1) != make_splits(manifest_of(labels, None), seed=2)
    with pytest.raises(ValueError, match=r"val=0\.5 and test=0\.5 must be shares"):
        make_splits(manifest_of(labels, None), val=0.5, test=0.5)


def test_leaks_of_given_splits_are_counted() -> None:
    records = [
        Record(Path("a"), ("c0",), "train", "g1"),
        Record(Path("b"), ("c1",), "test", "g1"),
        Record(Path("c"), ("c1",), "val", "g2"),
        Record(Path("d"), ("c0",), "train", "g2"),
        Record(Path("e"), ("c0",), "test", "g3"),
    ]
    assert leaks(Manifest("m", tuple(records), ("c0", "c1"), "multiclass")) == {
        ("train", "val"): ["g2"],
        ("train", "test"): ["g1"],
    }


# ---------------------------------------------------------------------- decoding and checks


def test_all_unreadable_images_are_named_at_once(tmp_path) -> None:
    write_images(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    for name in ("a/2.png", "b/4.png"):
        (tmp_path / name).write_bytes(b"not a picture")
    with pytest.raises(ImageError, match=r"(?s)2 of 4 images cannot be read; .*2\.png.*4\.png"):
        ImageDataset(read_manifest(tmp_path), CONFIG, progress=False)


def test_large_sets_are_mapped_and_a_cache_is_used_again(tmp_path, monkeypatch) -> None:
    write_images(tmp_path / "d", ["a/1.png", "a/2.png", "b/3.png"])
    manifest = read_manifest(tmp_path / "d")
    in_memory, _ = load_squares(manifest, CONFIG, progress=False)
    monkeypatch.setattr(squares_module, "MEMORY_LIMIT", 1000)
    mapped, _ = load_squares(manifest, CONFIG, progress=False)
    cached, _ = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
    assert torch.equal(in_memory, mapped) and torch.equal(in_memory, cached)
    (file,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(squares_module, "_fill", lambda *_: pytest.fail("decoded again"))
    again, _ = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
    assert torch.equal(in_memory, again)
    monkeypatch.undo()
    monkeypatch.setattr(squares_module, "MEMORY_LIMIT", 1000)
    write_images(tmp_path / "d", ["a/1.png"], seed=9)
    other, _ = load_squares(manifest, CONFIG, cache=tmp_path / "cache", progress=False)
    assert not torch.equal(other, in_memory) and len(list((tmp_path / "cache").iterdir())) == 2 and file.exists()


def test_several_processes_decode_the_same(tmp_path, monkeypatch) -> None:
    write_images(tmp_path, [f"{name}/{number}.png" for name in "ab" for number in range(4)])
    manifest = read_manifest(tmp_path)
    alone, _ = load_squares(manifest, CONFIG, progress=False)
    monkeypatch.setattr(loading, "WORTH_PROCESSES", 1)
    together, _ = load_squares(manifest, CONFIG, progress=False)
    assert torch.equal(alone, together)


def test_what_is_odd_about_data_is_reported(tmp_path) -> None:
    write_images(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    (tmp_path / "5.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "6.png").write_bytes((tmp_path / "2.png").read_bytes())
    rows = ["1,x,train,g1", "2,x,train,g2", "3,x,train,g3", "4,y,val,g3", "5,y,val,g4", "6,x,train,g5"]
    lines = [f"{row.split(',')[0]}.png,{row.split(',', 1)[1]}" for row in rows]
    (tmp_path / "t.csv").write_text("file,label,split,group\n" + "\n".join(lines) + "\n")
    manifest = read_manifest(tmp_path / "t.csv", class_names=["x", "y", "z"])
    config = CONFIG.replace(num_classes=3)
    splits = {name: ImageDataset(manifest.split(name), config, progress=False) for name in ("train", "val")}
    report = check_data(splits, manifest)
    assert report.counts == {"train": {"x": 4, "y": 0, "z": 0}, "val": {"x": 0, "y": 2, "z": 0}}
    assert report.problems == ["no training image shows y, z; a class cannot be learned without one"]
    assert report.duplicates == [["1.png", "5.png"]] and report.contradictions == [["1.png", "5.png"]]
    assert report.leaks == {"train and val": ["g3"]}
    text = "\n".join(report.warnings)
    for part in ("1 group has images in train and val", "1 image is in more than one split", "no validation image"):
        assert part in text
    several = read_manifest(tmp_path / "t.csv", class_names=["x", "y", "z"], task="multilabel")
    relaxed = check_data(splits, several)
    assert not relaxed.problems and any("no training image shows y, z: the model" in text for text in relaxed.warnings)
    report.save(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["problems"] == report.problems


def test_augmentation_depends_on_the_seed_of_the_image_alone(tmp_path) -> None:
    from diffmiczoo.data.augmentation import create_augmentation

    write_images(tmp_path, ["a/1.png", "b/2.png"])
    augmentation = create_augmentation(64, rotation=90, min_scale=0.3, color_jitter=0.4)
    dataset = ImageDataset(read_manifest(tmp_path), CONFIG, augmentation, progress=False)
    first, state = dataset[(0, 5)][0], torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), state)
    dataset[(1, 6)]
    assert torch.equal(dataset[(0, 5)][0], first) and not torch.equal(dataset[(0, 6)][0], first)
