"""What is said of data, model and recipe before a run begins."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from factories import BRIEF, QUICK, edited, tiny_model
from torch.utils.data import TensorDataset

import diffmiczoo
from diffmiczoo.data.readers import read_manifest


def test_validation_data_with_splits_give_their_validation_images(manifest_csv, tmp_path) -> None:
    from diffmiczoo.training.plan import plan_run

    model = tiny_model(class_names=("dark", "light"))
    plan = plan_run(model.config, manifest_csv, manifest_csv, seed=0)
    assert {record.split for record in plan.train.records} == {"train"}
    assert {record.split for record in plan.val.records} == {"val"}
    unsplit = edited(manifest_csv, lambda lines: [",".join(line.split(",")[:2]) for line in lines])
    with pytest.raises(ValueError, match=r"24 images are in the training and in the validation data, first .*\.png"):
        diffmiczoo.fit(model, manifest_csv, unsplit, QUICK, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_manifests_have_to_fit_the_model(manifest_csv, tmp_path) -> None:
    given = read_manifest(manifest_csv)
    turned = read_manifest(manifest_csv, class_names=["light", "dark"])
    with pytest.raises(ValueError, match=r"has the classes \['light', 'dark'\], the model \['dark', 'light'\]"):
        diffmiczoo.fit(tiny_model(), given, turned.split("val"), QUICK, output=tmp_path / "run")
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
    assert any("1 image is in more than one split, first 0.png = 26.png" in message for message in said)
    assert "first 0.png = 26.png" in (tmp_path / "run" / "README.md").read_text()


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


def test_fewer_of_the_models_own_classes_keep_its_order(manifest_csv) -> None:
    from diffmiczoo.training.plan import training_manifest

    own = tiny_model(num_classes=3, class_names=("light", "purple", "dark")).config
    assert training_manifest(manifest_csv, own).class_names == ("light", "purple", "dark")
    other = tiny_model(class_names=("cat", "dog")).config
    assert training_manifest(manifest_csv, other).class_names == ("dark", "light")
