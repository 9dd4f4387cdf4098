"""What is said of data, model and recipe before a run begins."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import BRIEF, QUICK, edited, tiny_model
from torch.utils.data import Subset, TensorDataset

import diffmiczoo
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.training.plan import plan_run, training_manifest


def test_validation_data_with_splits_give_their_validation_images(manifest_csv, tmp_path) -> None:
    model = tiny_model(class_names=("dark", "light"))
    plan = plan_run(model.config, manifest_csv, manifest_csv, seed=0)
    assert {record.split for record in plan.train.records} == {"train"}
    assert {record.split for record in plan.val.records} == {"val"}
    assert not any("are not used" in line for line in plan.lines())
    others = read_manifest(manifest_csv).split("test")
    beside = plan_run(
        model.config, manifest_csv, others.with_records(replace(r, split=None) for r in others.records), 0
    )
    count = len(read_manifest(manifest_csv).split("val"))
    assert f"{plan.whole.name}: its {count} images of split val are not used" in beside.lines()
    unsplit = edited(manifest_csv, lambda lines: [",".join(line.split(",")[:2]) for line in lines])
    with pytest.raises(ValueError, match=r"24 images are in the training and in the validation data, first .*\.png"):
        diffmiczoo.fit(model, manifest_csv, unsplit, QUICK, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_manifests_have_to_fit_the_model(manifest_csv, tmp_path) -> None:
    given = read_manifest(manifest_csv)
    turned = read_manifest(manifest_csv, class_names=["light", "dark"])
    plan = plan_run(tiny_model().config, given, turned, seed=0)  # by name, in whatever order
    assert plan.val.class_names == plan.train.class_names == ("dark", "light")
    assert plan.val.targets().tolist() == given.split("val").targets().tolist()
    other = given.with_classes(("dark", "bright"), {"light": "bright"}).split("val")
    with pytest.raises(
        ValueError, match=r"data .* the classes \[.dark., .bright.\], the training data \[.dark., .light.\]"
    ):
        diffmiczoo.fit(tiny_model(), given, other, QUICK, output=tmp_path / "run")
    several = read_manifest(manifest_csv, task="multilabel")
    with pytest.raises(ValueError, match="is multilabel, the model multiclass; create it with task='multilabel'"):
        diffmiczoo.fit(tiny_model(), several, recipe=QUICK, output=tmp_path / "run")
    with pytest.raises(
        ValueError,
        match="select='balanced_accuracy' is not a metric of this multilabel model; it has accuracy, macro_f1",
    ):
        recipe = QUICK.replace(select="balanced_accuracy")
        diffmiczoo.fit(tiny_model(task="multilabel"), several, recipe=recipe, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_splits_some_are_made_and_written_down(manifest_csv, tmp_path) -> None:
    lines = [",".join(np.array(line.split(","))[[0, 1, 3]]) for line in manifest_csv.read_text().splitlines()]
    (manifest_csv.parent / "plain.csv").write_text("\n".join(lines) + "\n")
    data = manifest_csv.parent / "plain.csv"
    result = diffmiczoo.fit(tiny_model(), data, recipe=BRIEF, output=tmp_path / "run", progress=False)
    report = json.loads((result.output / "data_report.json").read_text())
    assert "no split was given: made 70% train, 10% val, 20% test, stratified; groups stay together" in report["made"]
    split = read_manifest(result.output / "split.csv")
    assert len(split) == 40 and split.has_splits and {len(split.split(name)) for name in ("val", "test")} == {4, 8}
    assert "No split was given" in (result.output / "README.md").read_text()
    metrics = diffmiczoo.evaluate(result.model, result.output / "split.csv", bootstrap=0, progress=False)
    assert metrics.num_images == 8


def test_a_class_without_training_images_stops_the_run(manifest_csv, tmp_path) -> None:
    model = tiny_model(num_classes=3, class_names=("dark", "light", "purple"))
    with pytest.raises(ValueError, match=r"no training image shows purple; .*data_report\.json"):
        diffmiczoo.fit(model, manifest_csv, recipe=BRIEF, output=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "data_report.json").exists() and not (tmp_path / "run" / "checkpoint.pt").exists()


def test_torn_groups_and_repeated_images_are_warned_of(manifest_csv, tmp_path) -> None:
    text = manifest_csv.read_text().replace("24.png,dark,val,patient12", "24.png,dark,val,patient1")
    manifest_csv.write_text(text)
    (manifest_csv.parent / "26.png").write_bytes((manifest_csv.parent / "0.png").read_bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=BRIEF, output=tmp_path / "run", progress=False)
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert any("1 group has images in train and val, first patient1" in message for message in said)
    same = "1 image is in more than one split (train and val), first 0.png (dark, train) = 26.png (dark, val)"
    assert any(same in message for message in said)
    assert any(
        "8 validation images (dark 4, light 4) are too few to calibrate 2 classes" in message for message in said
    )
    assert same in (tmp_path / "run" / "README.md").read_text()


def test_fit_takes_an_npz_and_a_dataset(tmp_path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = (rng.integers(0, 60, (24, 28, 28)) + 180 * labels[:, None, None]).astype(np.uint8)
    arrays = {"train_images": images, "train_labels": labels[:, None]}
    arrays |= {"val_images": images[:8], "val_labels": labels[:8, None]}
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.warns(UserWarning, match="8 images are in more than one split"):
        first = diffmiczoo.fit(tiny_model(), tmp_path / "m.npz", recipe=BRIEF, output=tmp_path / "a", progress=False)
    pictures = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1)
    dataset = TensorDataset(pictures, torch.from_numpy(labels))
    second = diffmiczoo.fit(tiny_model(), dataset, recipe=BRIEF, output=tmp_path / "b", progress=False)
    assert first.model.config.labels == second.model.config.labels == ("0", "1")


def test_fewer_of_the_models_own_classes_are_learned_in_its_order(manifest_csv) -> None:
    own = tiny_model(num_classes=3, class_names=("light", "purple", "dark")).config
    with pytest.warns(
        UserWarning,
        match="2 of the model's 3 classes; light, dark are learned, and purple are left out for want of images",
    ):
        assert training_manifest(manifest_csv, own).class_names == ("light", "dark")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        every = training_manifest(manifest_csv, own, class_names=["dark", "light", "purple"])
        other = training_manifest(manifest_csv, tiny_model(class_names=("cat", "dog")).config)
        more = training_manifest(manifest_csv, tiny_model(class_names=("light", "dog")).config)
    assert every.class_names == ("light", "purple", "dark")
    assert other.class_names == more.class_names == ("dark", "light")


def test_some_classes_are_chosen_for_training_and_validation(manifest_csv) -> None:
    plan_of_three = {"class_names": ("dark", "grey", "light"), "num_classes": 3}
    lines = manifest_csv.read_text().splitlines()
    manifest_csv.write_text(
        "\n".join([*lines[:3], *(line.replace("dark", "grey", 1) for line in lines[3:7]), *lines[7:]])
    )
    with pytest.warns(UserWarning, match="only dark, light are learned; grey are left out, with 2 of 40 images"):
        plan = plan_run(tiny_model().config, manifest_csv, None, seed=0, classes=["light", "dark"])
    assert len(plan.train) == 22 and plan.train.class_names == ("dark", "light")
    with pytest.raises(ValueError, match=r"has no \['black'\]; its classes are \['dark', 'grey', 'light'\]"):
        plan_run(tiny_model(**plan_of_three).config, manifest_csv, None, seed=0, classes=["light", "black"])


def test_two_datasets_of_one_class_and_two_parts_of_one_dataset() -> None:
    images, labels = torch.zeros(8, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1] * 4)
    first, second = TensorDataset(images, labels), TensorDataset(images, labels)
    config = tiny_model().config
    assert len(plan_run(config, first, second, seed=0).val) == 8
    train, val = Subset(first, [0, 1, 2, 3]), Subset(first, [4, 5, 6, 7])
    assert len(plan_run(config, train, val, seed=0).val) == 4
    for both, count in (((first, first), 8), ((train, Subset(first, [3, 4])), 1), ((first, val), 4)):
        with pytest.raises(ValueError, match=f"{count} images are in the training and in the validation data, first "):
            plan_run(config, *both, seed=0)


def test_validation_numbers_are_those_of_training(tmp_path) -> None:
    images = np.zeros((6, 8, 8), np.uint8)
    np.savez(tmp_path / "train.npz", train_images=images, train_labels=[1, 2, 3] * 2)
    np.savez(tmp_path / "val.npz", val_images=images, val_labels=[2, 3] * 3)
    model = tiny_model(num_classes=3)
    plan = plan_run(model.config, tmp_path / "train.npz", tmp_path / "val.npz", seed=0)
    assert plan.val.class_names == ("1", "2", "3") and plan.val.targets().tolist() == [1, 2] * 3
    names = {1: "mild", 2: "moderate", 3: "severe"}
    plan = plan_run(model.config, tmp_path / "train.npz", tmp_path / "val.npz", seed=0, class_names=names)
    assert plan.val.class_names == tuple(names.values()) and plan.val.targets().tolist() == [1, 2] * 3
    named = read_manifest(tmp_path / "train.npz", class_names=names)
    with pytest.raises(ValueError, match=r"validation data val have the classes .*class_names=\[\.\.\.\]"):
        plan_run(model.config, named, tmp_path / "val.npz", seed=0)


def test_grades_are_never_in_the_order_of_the_alphabet(image_folder) -> None:
    (image_folder / "dark").rename(image_folder / "severe")
    (image_folder / "light").rename(image_folder / "mild")
    (image_folder / "none").mkdir()
    for file in sorted((image_folder / "mild").glob("*.png"))[:3]:
        file.rename(image_folder / "none" / file.name)
    grades = tiny_model(num_classes=3, ordinal=True).config
    with pytest.warns(UserWarning, match="grades in the order none, mild, severe"):
        assert plan_run(grades, image_folder, None, seed=0).train.class_names == ("none", "mild", "severe")
    (image_folder / "none").rename(image_folder / "zero")
    with pytest.raises(ValueError, match=r"is that of the alphabet; give class_names=\[\.\.\.\] from the lowest grade"):
        plan_run(grades, image_folder, None, seed=0)
    given = plan_run(grades, image_folder, None, seed=0, class_names=["zero", "mild", "severe"])
    assert given.train.class_names == ("zero", "mild", "severe")
    own = tiny_model(num_classes=3, ordinal=True, class_names=("a", "b", "c")).config
    with pytest.warns(UserWarning, match="other classes than the model's grades"):
        assert not training_manifest(image_folder, own).ordered
