"""A model against labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import tiny_model

import diffmiczoo
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.dcg_report import predict_with_dcg
from diffmiczoo.evaluation.evaluate import probabilities


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
    metrics = diffmiczoo.evaluate(model, tmp_path / "m.npz", bootstrap=0, progress=False)
    assert metrics.num_images == 6
