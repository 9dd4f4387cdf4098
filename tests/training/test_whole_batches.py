"""Training with batches that are changed as a whole; and which runs are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import QUICK, tiny_model
from torch.utils.data import DataLoader

import diffmiczoo
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.training import trainer, whole_batches
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.sampler import BatchSampler
from diffmiczoo.training.whole_batches import BatchedImages, BatchesInOrder, augmentation_of, batched

RECIPE = QUICK.replace(dcg_epochs=2, diffusion_epochs=1, min_scale=0.7, color_jitter=0.1)
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def images(manifest_csv: Path) -> ImageDataset:
    return ImageDataset(read_manifest(manifest_csv), tiny_model().config)


def test_batches_in_order_are_those_of_a_data_loader(images: ImageDataset) -> None:
    batches = BatchesInOrder(BatchedImages.of(images, CPU, CPU), range(len(images)), 3)
    wanted = list(DataLoader(images, 3))
    assert len(batches) == len(wanted)
    for (pixels, targets), (own, labels) in zip(batches, wanted, strict=True):
        torch.testing.assert_close(pixels, own)
        assert torch.equal(targets, labels)


def test_a_picture_is_changed_by_its_seed_and_keeps_its_target(images: ImageDataset) -> None:
    (data,) = batched(RECIPE, CPU, images) or ()
    change = augmentation_of(RECIPE)
    sampler = BatchSampler(images.targets, 4, "shuffle", (0, 0, 0))
    for keys, (pixels, targets) in zip(sampler, data.augmented(sampler, change), strict=True):
        for row, (place, seed) in enumerate(keys):
            alone = BatchedImages(images.squares[place][None], images.targets[place][None], images.config, CPU)
            (wanted, target), *_ = alone.augmented([[(0, seed)]], change)  # type: ignore[arg-type]
            torch.testing.assert_close(pixels[row], wanted[0])
            assert torch.equal(targets[row], target[0])


def test_pictures_in_memory_are_not_copied(images: ImageDataset) -> None:
    (data,) = batched(RECIPE, CPU, images) or ()
    assert data.squares.data_ptr() == images.squares.data_ptr()


def test_what_changes_pictures_one_by_one_does_so(images: ImageDataset) -> None:
    assert batched(RECIPE.replace(rand_augment=9.0), CPU, images) is None


def test_pictures_changed_one_by_one_are_the_same_with_a_worker(manifest_csv: Path, tmp_path: Path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0, rand_augment=9.0, degrade=0.5)
    runs = [
        diffmiczoo.fit(
            tiny_model(), manifest_csv, recipe=recipe.replace(num_workers=n), output=tmp_path / f"{n}", progress=False
        )
        for n in (0, 1)
    ]
    assert [row["train_loss"] for row in runs[0].history] == [row["train_loss"] for row in runs[1].history]


def test_workers_without_anything_to_do_are_a_warning(manifest_csv: Path, tmp_path: Path) -> None:
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0, num_workers=2)
    with pytest.warns(UserWarning, match="num_workers=2 is for rand_augment"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)


@pytest.mark.parametrize(("free", "place"), [(2**40, "cuda"), (1, "cpu")])
def test_pictures_lie_on_a_gpu_that_holds_them(
    images: ImageDataset, monkeypatch: pytest.MonkeyPatch, free: int, place: str
) -> None:
    made = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    monkeypatch.setattr(whole_batches.BatchedImages, "of", lambda *args: made.append(args))
    batched(RECIPE, GPU, images, images)
    assert [(device.type, where.type) for _, device, where in made] == [("cuda", place)] * 2


def test_another_accelerator_has_its_batches_from_the_cpu(images: ImageDataset) -> None:
    (data,) = batched(RECIPE, torch.device("mps"), images) or ()
    assert data.device == CPU
    assert data.squares.device == CPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_of_pictures_beside_a_gpu_are_those_of_pictures_on_it(images: ImageDataset) -> None:
    recipe, sampler = RECIPE.replace(rotation=30.0), BatchSampler(images.targets, 4, "shuffle", (0, 0, 0))
    both = (BatchedImages.of(images, GPU, place).augmented(sampler, augmentation_of(recipe)) for place in (CPU, GPU))
    for (pixels, _), (wanted, _) in zip(*both, strict=True):
        assert pixels.is_cuda
        torch.testing.assert_close(pixels, wanted)


def test_a_run_that_was_stopped_goes_on_with_the_same_pictures(
    manifest_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
