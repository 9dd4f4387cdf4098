"""A model against labels."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import tiny_model

import diffmiczoo
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.dcg_report import predict_with_dcg
from diffmiczoo.evaluation.evaluate import evaluation_split, probabilities
from diffmiczoo.metrics.report import Metrics


def test_evaluate_takes_only_splits_that_there_are(manifest_csv, image_folder) -> None:
    model = tiny_model(class_names=("dark", "light"))
    model.trained = True
    options = {"bootstrap": 0, "progress": False}
    assert diffmiczoo.evaluate(model, manifest_csv, **options).num_images == 8
    assert diffmiczoo.evaluate(model, image_folder, **options).num_images == 12
    for data, split in ((manifest_csv, "banana"), (image_folder, "test")):
        with pytest.raises(ValueError, match=f"no image belongs to split '{split}'"):
            diffmiczoo.evaluate(model, data, split=split, **options)


def test_one_pass_predicts_the_model_and_for_its_dcg(manifest_csv) -> None:
    model = tiny_model(temperature=0.5, prior_weight=0.4)
    manifest = read_manifest(manifest_csv, class_names=("dark", "light")).split("test")
    model.config = model.config.replace(class_names=("dark", "light"))
    model.trained = True
    both = predict_with_dcg(model, manifest, progress=False)
    for part, dcg_alone in (("model", False), ("dcg", True)):
        alone = probabilities(model, manifest, dcg_alone=dcg_alone, progress=False)
        torch.testing.assert_close(getattr(both, part).probs, alone, rtol=0, atol=1e-6)
    assert both.model.names == both.dcg.names and not torch.equal(both.model.probs, both.dcg.probs)


def test_evaluate_takes_an_npz(tmp_path, run_directory) -> None:
    images = np.random.default_rng(0).integers(0, 255, (6, 28, 28, 3), dtype=np.uint8)
    np.savez(tmp_path / "m.npz", test_images=images, test_labels=np.array([[0], [1]] * 3))
    model = diffmiczoo.create_model(f"local-dir:{run_directory}/best", pretrained=True)
    metrics = diffmiczoo.evaluate(model, tmp_path / "m.npz", class_names=["dark", "light"], bootstrap=0, progress=False)
    assert metrics.num_images == 6


def test_labels_are_matched_by_name_and_numbers_with_a_word(tmp_path) -> None:
    images, labels = np.zeros((4, 28, 28), np.uint8), [0, 1, 1, 1]
    np.savez(tmp_path / "m.npz", test_images=images, test_labels=labels)
    named = tiny_model(class_names=("light", "dark")).config
    with pytest.warns(UserWarning, match=r"0 = light, 1 = dark\), which may be wrong: class_names"):
        assert evaluation_split(named, tmp_path / "m.npz").targets().tolist() == labels
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = evaluation_split(named, tmp_path / "m.npz", class_names=["dark", "light"])
        places = evaluation_split(tiny_model(num_classes=3).config, tmp_path / "m.npz")
        learned = evaluation_split(tiny_model(class_names=("1", "0")).config, tmp_path / "m.npz")
    assert given.targets().tolist() == learned.targets().tolist() == [1, 0, 0, 0]
    assert places.targets().tolist() == labels and places.class_names == ("class_0", "class_1", "class_2")
    with pytest.raises(ValueError, match=r"has the classes \['0', '1'\], the model .*class_names=\[\.\.\.\]"):
        evaluation_split(tiny_model(num_classes=3, class_names=("a", "b", "c")).config, tmp_path / "m.npz")


def test_one_class_is_enough_to_measure(image_folder) -> None:
    config = tiny_model(num_classes=3, class_names=("purple", "light", "dark")).config
    for file in (image_folder / "light").iterdir():
        file.unlink()
    (image_folder / "light").rmdir()
    (image_folder / "Purple").mkdir()
    next((image_folder / "dark").iterdir()).rename(image_folder / "Purple" / "x.png")
    with pytest.warns(UserWarning, match="'Purple' as 'purple'"):
        assert sorted(set(evaluation_split(config, image_folder).targets().tolist())) == [0, 2]


def test_pictures_of_the_training_are_counted(quick_run, common_manifest) -> None:
    everything = read_manifest(common_manifest)
    with pytest.warns(UserWarning, match="24 of 40 images were used to train these weights"):
        metrics = diffmiczoo.evaluate(
            quick_run.model, everything.with_records(replace(r, split=None) for r in everything.records),
            bootstrap=0, progress=False,
        )  # fmt: skip
    assert metrics.num_trained_on == 24 and metrics.to_dict()["num_trained_on"] == 24
    assert "24 of them were used to train these weights" in str(metrics)
    loaded = diffmiczoo.create_model(f"local-dir:{quick_run.output}/best", pretrained=True)
    assert loaded.training_pictures == quick_run.model.training_pictures and len(loaded.training_pictures) == 24
    new = diffmiczoo.evaluate(loaded, common_manifest, bootstrap=0, progress=False)
    assert new.num_trained_on == 0 and "train" not in str(new)
    assert Metrics.from_dict(metrics.to_dict()).num_trained_on == 24
    loaded.training_pictures = None
    assert diffmiczoo.evaluate(loaded, common_manifest, bootstrap=0, progress=False).num_trained_on is None
