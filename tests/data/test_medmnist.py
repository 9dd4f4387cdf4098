"""The sets of MedMNIST by name, on small files of the same layout."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from diffmiczoo.data.medmnist_names import MEDMNIST, is_medmnist, parse_medmnist
from diffmiczoo.data.readers import Source, as_manifest, read_manifest
from diffmiczoo.data.splits import leaks
from diffmiczoo.errors import DiffMICError

COUNTS = {"train": 6, "val": 3, "test": 4}


def write_set(folder: Path, name: str, classes: int, size: int = 28, colours: tuple[int, ...] = (3,)) -> Path:
    """A file as the package `medmnist` downloads it; labels count up."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, size, size, *colours), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % classes)[:, None]
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / f"{name}.npz", **arrays)
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No network, and an empty folder of files."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path))
    return tmp_path


def test_a_name_is_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDMNIST_ROOT", raising=False)
    name = parse_medmnist("medmnist:dermamnist@224:/data/sets")
    assert (name.flag, name.size, name.file) == ("dermamnist", 224, Path("/data/sets/dermamnist_224.npz"))
    assert name.text == "medmnist:dermamnist@224"
    assert parse_medmnist("medmnist:pathmnist").file == Path("~/.medmnist/pathmnist.npz").expanduser()
    assert parse_medmnist(Path("medmnist:dermamnist_corrected@28")).file.name == "dermamnist_corrected_28.npz"
    monkeypatch.setenv("MEDMNIST_ROOT", "/elsewhere")
    assert parse_medmnist("medmnist:breastmnist@64").file == Path("/elsewhere/breastmnist_64.npz")
    assert is_medmnist("medmnist-c:pathmnist:/x") and not is_medmnist("medmnist/pathmnist.npz") and not is_medmnist(3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("medmnist:dermamist", "'dermamist' is no 2-D set of MedMNIST; .* did you mean dermamnist"),
        ("medmnist:dermamnist-c", "did you mean dermamnist_corrected"),
        ("medmnist:organmnist3d", "organmnist3d holds volumes; only the 2-D sets"),
        ("medmnist:dermamnist@32", "size '32' must be one of 28, 64, 128, 224"),
        ("medmnist:dermamnist@", "size '' must be one of"),
        ("medmnist-c:dermamnist", "say which folder MedMNIST-C was unpacked into"),
        ("medmnist-c:dermamnist_extended:/x", "is no 2-D set of MedMNIST"),
    ],
)
def test_a_wrong_name(name: str, message: str) -> None:
    with pytest.raises(DiffMICError, match=message):
        parse_medmnist(name)


def test_a_set_has_its_classes_in_words_and_its_official_splits(offline: Path) -> None:
    write_set(offline, "dermamnist_64", 7, size=64)
    manifest = read_manifest("medmnist:dermamnist@64")
    assert manifest.class_names[4] == "melanoma" and manifest.name == "medmnist:dermamnist@64"
    assert {split: len(manifest.split(split)) for split in COUNTS} == COUNTS
    assert manifest.split("val").targets().tolist() == [0, 1, 2]  # in the file's numbers
    assert manifest.task == "multiclass" and not manifest.ordered and manifest.benchmark == "medmnist"
    about, incomplete = manifest.notes
    assert "CC BY-NC 4.0" in about and "641 lesions have images in both train and test" in about
    assert "6 in train instead of 7,007" in incomplete and "published figures are for others" in incomplete
    assert as_manifest(Source(f"medmnist:dermamnist@64:{offline}")).targets().tolist() == manifest.targets().tolist()
    own = as_manifest(manifest, class_names=manifest.class_names)
    assert own.benchmark == "medmnist"


def test_somebody_may_call_the_classes_otherwise(offline: Path) -> None:
    write_set(offline, "breastmnist", 2, colours=())
    manifest = read_manifest("medmnist:breastmnist", class_names=["bad", "good"])
    assert manifest.class_names == ("bad", "good") and manifest.records[1].labels == ("good",)
    turned = read_manifest("medmnist:breastmnist", class_names=["normal, benign", "malignant"])  # by name, not by place
    assert turned.class_names[1] == "malignant" and turned.records[1].labels == ("normal, benign",)
    with pytest.raises(DiffMICError, match="only tables have"):
        read_manifest("medmnist:breastmnist", label_column="label")


def test_grades_are_in_order_and_named(offline: Path) -> None:
    write_set(offline, "retinamnist", 5)
    manifest = read_manifest("medmnist:retinamnist")
    assert manifest.ordered and manifest.class_names[0] == "no_dr" and manifest.class_names[4] == "proliferative"


def test_several_labels(offline: Path) -> None:
    labels = np.zeros((3, 14), np.uint8)
    labels[0, [1, 12]] = 1
    np.savez(offline / "chestmnist.npz", test_images=np.zeros((3, 28, 28), np.uint8), test_labels=labels)
    manifest = read_manifest("medmnist:chestmnist")
    assert manifest.task == "multilabel" and manifest.records[0].labels == ("cardiomegaly", "pleural")
    assert manifest.targets().tolist() == labels.tolist()
    labels[1:, 0] = 1
    np.savez(offline / "breastmnist.npz", test_images=np.zeros((3, 28, 28), np.uint8), test_labels=labels)
    with pytest.raises(DiffMICError, match=r"breastmnist\.npz: has .*which breastmnist has not"):
        read_manifest("medmnist:breastmnist")


def test_a_file_of_another_size_or_set(offline: Path) -> None:
    write_set(offline, "dermamnist_64", 7)
    with pytest.raises(DiffMICError, match=r"its images are 28×28 pixels, not 64×64"):
        read_manifest("medmnist:dermamnist@64")
    write_set(offline, "octmnist", 6)
    with pytest.raises(DiffMICError, match=r"octmnist\.npz: has the classes \['4', '5'\], which octmnist has not"):
        read_manifest("medmnist:octmnist")


def test_a_missing_file_says_how_to_get_it(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"pathmnist_128\.npz is not in .*HF_HUB_OFFLINE.*zenodo.*FOLDER"):
        read_manifest("medmnist:pathmnist@128")
    with pytest.raises(FileNotFoundError, match=r"dermamnist_extended_28\.npz is not in .*its authors"):
        read_manifest("medmnist:dermamnist_extended")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "medmnist", None)
    with pytest.raises(FileNotFoundError, match=r"or pip install medmnist, which fetches it"):
        read_manifest("medmnist:pathmnist@128")


def test_the_package_medmnist_fetches_what_is_missing(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(split: str, download: bool, root: str, size: int) -> None:
        assert (split, download, size) == ("test", True, 28)
        write_set(Path(root), "bloodmnist", 8)

    def fail(**options) -> None:
        raise RuntimeError("Something went wrong when downloading!")

    info = {"bloodmnist": {"python_class": "BloodMNIST"}, "octmnist": {"python_class": "OCTMNIST"}}
    fake = SimpleNamespace(INFO=info, BloodMNIST=fetch, OCTMNIST=fail)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setitem(sys.modules, "medmnist", fake)
    assert len(read_manifest(f"medmnist:bloodmnist:{offline / 'new'}")) == 13
    with pytest.raises(FileNotFoundError, match=r"octmnist\.npz .*medmnist could not fetch it \(Something went wrong"):
        read_manifest("medmnist:octmnist")


# ---------------------------------------------------------------------- DermaMNIST-C


def write_lists(folder: Path, lesion_of: dict[str, str], split_of: dict[str, str]) -> None:
    """The two lists of Abhishek et al. for a file of `write_set`; images are called split and place."""
    rows = ["split,index,image_id"]
    table = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset,split"]
    short = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    for split, count in COUNTS.items():
        for place in range(count):
            image = f"{split}{place}"
            rows.append(f"{split},{place},{image}")
            lesion, new = lesion_of.get(image, f"HAM_{image}"), split_of.get(image, split)
            table.append(f"{lesion},{image},{short[place % 7]},histo,80.0,male,scalp,vidir_modern,{new}")
    (folder / "dermamnist_split_info.csv").write_text("\n".join(rows))
    (folder / "combined_metadata_corrected.csv").write_text("\n".join(table))


def test_dermamnist_c_by_its_lists_in_any_size(offline: Path) -> None:
    write_set(offline, "dermamnist_64", 7, size=64)
    write_lists(offline, {"test1": "HAM_train1"}, {"test1": "train"})
    plain, corrected = read_manifest("medmnist:dermamnist@64"), read_manifest("medmnist:dermamnist_corrected@64")
    assert leaks(plain) and not leaks(corrected)
    assert len(corrected.split("train")) == 7 and len(corrected.split("test")) == 3
    moved = next(record for record in corrected.records if record.path.name.endswith("#test_1"))
    assert (moved.split, moved.group, moved.labels) == ("train", "HAM_train1", ("basal cell carcinoma",))
    assert moved.columns["sex"] == "male"
    assert "in the splits of combined_metadata_corrected.csv" in " ".join(corrected.notes)


def test_lists_of_another_file_are_refused(offline: Path) -> None:
    write_set(offline, "dermamnist", 5)  # other labels from the sixth image on
    write_lists(offline, {}, {})
    with pytest.raises(
        DiffMICError, match=r"its train image 5 has label 0, .* says nv \(train5\): the lists belong to"
    ):
        read_manifest("medmnist:dermamnist_corrected")
    (offline / "combined_metadata_corrected.csv").write_text("lesion_id,image_id,dx,split\nHAM_1,train0,akiec,train\n")
    with pytest.raises(DiffMICError, match="do not list its train image 1"):
        read_manifest("medmnist:dermamnist_corrected")
    (offline / "combined_metadata_corrected.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"needs combined_metadata_corrected-HAM10000_corrected\.csv as well"):
        read_manifest("medmnist:dermamnist_corrected")
    assert read_manifest("medmnist:dermamnist").groups() is None


def test_dermamnist_c_as_its_authors_file(offline: Path) -> None:
    write_set(offline, "dermamnist_corrected_28", 7)
    assert len(read_manifest("medmnist:dermamnist_corrected")) == 13


# ---------------------------------------------------------------------- MedMNIST-C


def test_medmnist_c(tmp_path: Path) -> None:
    labels = np.array([[1], [0], [3]])
    images = np.arange(15, dtype=np.uint8)[:, None, None] * np.ones((1, 8, 8), np.uint8)
    folder = tmp_path / "octmnist"
    folder.mkdir()
    for name in ("jpeg_compression", "speckle_noise"):
        np.savez_compressed(folder / f"{name}.npz", test_images=images, test_labels=np.tile(labels, (5, 1)))
    manifest = read_manifest(f"medmnist-c:octmnist:{tmp_path}")
    assert len(manifest) == 30 and manifest.has_splits and manifest.benchmark == ""
    record = manifest.records[15 + 7]  # of the second file: severity 3, image 1
    assert record.columns == {"corruption": "speckle_noise", "severity": "3"} and record.group == "test_1"
    assert record.labels == ("choroidal neovascularization",) and record.source()[0, 0] == 7
    assert len(read_manifest(f"medmnist-c:octmnist/speckle_noise:{folder}")) == 15
    with pytest.raises(FileNotFoundError, match=r"blur\.npz is not there; .*jpeg_compression, speckle_noise"):
        read_manifest(f"medmnist-c:octmnist/blur:{tmp_path}")
    np.savez_compressed(folder / "blur.npz", test_images=images, test_labels=np.arange(15)[:, None] % 4)
    with pytest.raises(DiffMICError, match=r"blur\.npz: its 15 labels are not 5 times those of one test split"):
        read_manifest(f"medmnist-c:octmnist/blur:{tmp_path}")


def test_what_is_known_is_whole() -> None:
    assert len(MEDMNIST) == 14
    assert all(len(set(known.class_names)) == len(known.class_names) >= 2 for known in MEDMNIST.values())
    assert {name for name, known in MEDMNIST.items() if known.license != "CC BY 4.0"} == {
        "dermamnist",
        "dermamnist_corrected",
        "dermamnist_extended",
    }
