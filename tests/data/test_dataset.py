"""The dataset that training reads."""

from __future__ import annotations

import torch
from factories import TINY, tiny_model, write_images

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.augmentation import create_augmentation
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.data.readers import read_manifest

CONFIG = DiffMICConfig(**{"num_classes": 2, **TINY})


def test_augmentation_depends_on_the_seed_of_the_image_alone(tmp_path) -> None:

    write_images(tmp_path, ["a/1.png", "b/2.png"])
    augmentation = create_augmentation(64, rotation=90, min_scale=0.3, color_jitter=0.4)
    dataset = ImageDataset(read_manifest(tmp_path), CONFIG, augmentation, progress=False)
    first, state = dataset[(0, 5)][0], torch.get_rng_state()
    assert torch.equal(torch.get_rng_state(), state)
    dataset[(1, 6)]
    assert torch.equal(dataset[(0, 5)][0], first) and not torch.equal(dataset[(0, 6)][0], first)


def test_dataset_gives_what_predict_sees(manifest_csv, tiny_config) -> None:
    model = tiny_model()
    manifest = read_manifest(manifest_csv)
    dataset = ImageDataset(manifest, model.config, progress=False)
    assert len(dataset) == 40
    image, target = dataset[3]
    assert torch.equal(image, model.preprocess(manifest.records[3].path)[0]) and target.item() == 1
