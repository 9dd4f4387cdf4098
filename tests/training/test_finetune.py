"""Fine-tuning with new classes, the same or another task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import BRIEF, QUICK, tiny_model

import diffmiczoo
from diffmiczoo.data.readers import read_manifest


def test_finetune_takes_new_classes_and_keeps_the_rest(manifest_csv, tmp_path) -> None:
    model = tiny_model(num_classes=4, class_names=("a", "b", "c", "d"))
    model.weights_name, model.loaded_from = "diffmicv2_nano.busi", tmp_path
    before = model.feature_prior.Q.clone()
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=1, diffusion_lr=0.0, encoder_lr=0.0, dcg_lr=0.0)
    result = diffmiczoo.finetune(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert result.model.config.class_names == ("dark", "light")
    assert torch.equal(result.model.feature_prior.Q, before)
    assert result.model.display_name == "", "it is no longer what was loaded"


def test_finetune_of_the_same_classes_starts_from_all_that_is_known(manifest_csv, tmp_path) -> None:
    model = tiny_model(class_names=("dark", "light"))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    recipe = QUICK.replace(dcg_epochs=0, diffusion_epochs=0)
    result = diffmiczoo.finetune(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.model.named_parameters())


def test_finetune_may_change_the_task(manifest_csv, tmp_path) -> None:
    manifest = read_manifest(manifest_csv, task="multilabel")
    model = tiny_model(num_classes=5, ordinal=True)
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=1)
    # Eight validation images would be too few for thresholds.
    both = [record for record in manifest.records if record.split != "train"]
    val = manifest.with_records(replace(record, split="val") for record in both)
    result = diffmiczoo.finetune(model, manifest, val, recipe=recipe, output=tmp_path / "run", progress=False)
    assert result.model.config.task == "multilabel" and not result.model.config.ordinal
    assert len(result.model.config.thresholds) == 2
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True)
    assert loaded.config.thresholds == result.model.config.thresholds
    prediction = loaded.predict([record.path for record in manifest.split("test").records])
    wanted = [
        [
            name
            for name, value, limit in zip(("dark", "light"), row, loaded.config.thresholds, strict=True)
            if value >= limit
        ]
        for row in prediction.probs.tolist()
    ]
    assert prediction.labels == wanted


def test_class_numbers_are_not_taken_for_the_classes_of_the_model(tmp_path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 28, 28), dtype=np.uint8)
    labels = np.arange(24)[:, None] % 3
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=labels, val_images=images[:6], val_labels=labels[:6])
    model = tiny_model(num_classes=4, class_names=("cat", "dog", "cow", "hen"))
    with pytest.warns(UserWarning, match="more than one split"):
        result = diffmiczoo.finetune(model, tmp_path / "m.npz", recipe=BRIEF, output=tmp_path / "run", progress=False)
    assert result.model.config.class_names == ("0", "1", "2")
