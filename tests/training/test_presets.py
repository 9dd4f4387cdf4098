"""The recipes that are chosen where none is given."""

from __future__ import annotations

import pytest

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.presets import finetune_recipe, preset_recipe
from diffmiczoo.zoo.factory import get_config


def test_presets_are_the_papers_for_paper_sized_models() -> None:
    paper = preset_recipe(get_config("diffmicv2_resnet18.ham10000"))
    assert (paper.dcg_epochs, paper.diffusion_epochs, paper.dcg_lr, paper.diffusion_lr) == (100, 1000, 2e-4, 1e-3)
    assert paper.diffusion_lr * paper.min_lr_ratio == pytest.approx(1e-5) and paper.batch_size == 64
    chest = preset_recipe(get_config("diffmicv2_densenet169.chestxray14"))
    assert (chest.dcg_epochs, chest.diffusion_epochs) == (20, 100)
    assert preset_recipe(get_config("diffmicv2_ham10000")).encoder_lr is not None


def test_presets_follow_the_number_of_images() -> None:
    nano = get_config("diffmicv2_nano")
    batches = [preset_recipe(nano, images).batch_size for images in (60, 500, 2000, 6000)]
    assert batches == [8, 32, 32, 64]
    for images in (60, 250, 449, 450, 500, 2000, 6000):
        recipe, careful = preset_recipe(nano, images), finetune_recipe(nano, images)
        assert images // recipe.batch_size * recipe.diffusion_epochs >= 140  # BUSI's released weights had so many
        assert careful.diffusion_lr < recipe.diffusion_lr and careful.encoder_lr < recipe.encoder_lr
    paper = finetune_recipe(get_config("diffmicv2_resnet18"))
    assert paper.ema_decay and paper.encoder_lr < 2e-4


def test_any_small_architecture_gets_a_short_recipe() -> None:
    small = DiffMICConfig(latent_dim=512, raw_encoder="resnet18")
    assert (
        preset_recipe(small, 500).diffusion_epochs < 50 and preset_recipe(DiffMICConfig(), 500).diffusion_epochs == 1000
    )


@pytest.mark.parametrize("name", ["diffmicv2_nano", "diffmicv2_resnet18"])
def test_a_handful_of_images_fills_a_batch(name: str) -> None:
    for preset in (preset_recipe, finetune_recipe):
        assert [preset(get_config(name), images).batch_size for images in (2, 3, 5)] == [2, 3, 5]
