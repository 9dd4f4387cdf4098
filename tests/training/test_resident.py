"""Training with pictures that lie on the device; here the device is the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import QUICK, tiny_model
from torch.utils.data import DataLoader

import diffmiczoo
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.training import trainer
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.resident import ResidentBatches, ResidentImages, can_be_resident

RECIPE = QUICK.replace(dcg_epochs=2, diffusion_epochs=1, min_scale=0.7, color_jitter=0.1)


def test_batches_are_those_of_a_data_loader(manifest_csv: Path) -> None:
    images = ImageDataset(read_manifest(manifest_csv), tiny_model().config)
    device = torch.device("cpu")
    batches = ResidentBatches(ResidentImages.of(images, device), range(len(images)), 3)
    wanted = list(DataLoader(images, 3))
    assert len(batches) == len(wanted)
    for (pixels, targets), (own, labels) in zip(batches, wanted, strict=True):
        torch.testing.assert_close(pixels, own)
        assert torch.equal(targets, labels)


def test_what_changes_pictures_one_by_one_keeps_them_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 2**31))
    images = type("Images", (), {"squares": torch.empty(0)})()
    large = type("Images", (), {"squares": torch.empty(10**9, device="meta")})()
    gpu = torch.device("cuda")
    assert can_be_resident(RECIPE, gpu, images)
    assert not can_be_resident(RECIPE, gpu, images, large)
    assert not can_be_resident(RECIPE, torch.device("cpu"), images)
    assert not can_be_resident(RECIPE.replace(rand_augment=9.0), gpu, images)


def test_a_run_that_was_stopped_goes_on_with_the_same_pictures(
    manifest_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "can_be_resident", lambda *_: True)
    monkeypatch.setattr(trainer, "training_batches", None)
    whole = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=RECIPE, output=tmp_path / "whole", progress=False)

    class Stop(Callback):
        def on_step(self, stage: str, epoch: int, batch: int) -> None:
            if (stage, epoch, batch) == ("dcg", 1, 1):
                raise KeyboardInterrupt

    options = {"recipe": RECIPE, "output": tmp_path / "parts", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        diffmiczoo.fit(tiny_model(), manifest_csv, callbacks=[Stop()], checkpoint_minutes=0, **options)
    resumed = diffmiczoo.fit(tiny_model(), manifest_csv, **options)
    found, wanted = resumed.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert [row["train_loss"] for row in resumed.history] == [row["train_loss"] for row in whole.history]
