"""What a run sees in all, counted beside what it draws."""

from __future__ import annotations

import torch
from factories import QUICK, tiny_model

from diffmiczoo.training.budget import budget_of
from diffmiczoo.training.presets import preset_recipe
from diffmiczoo.training.sampler import BatchSampler
from diffmiczoo.zoo.factory import get_config


def test_pictures_and_steps_are_those_that_are_drawn() -> None:
    recipe, config = QUICK.replace(dcg_epochs=2, diffusion_epochs=3, batch_size=4, accumulate=2), tiny_model().config
    budget = budget_of(recipe, config, 15)
    drawn = list(BatchSampler(torch.zeros(15, dtype=torch.long), 4, "shuffle", (0, 0, 0)))
    assert budget.pictures == 5 * sum(map(len, drawn)) and budget.steps == 5 * 2
    assert budget.sentence == "budget: 5 epochs (2 dcg + 3 diffusion), 60 pictures of 64 × 64 in 10 steps"
    small = budget_of(recipe.replace(start_size=32), config, 15).sentence
    assert small == f"{budget.sentence}; seen whole at 32 × 32 in the first two thirds of the first stage"
    assert budget_of(recipe, config.replace(predictor="dcg"), 15).sentence.startswith("budget: 2 epochs, 24 pictures")
    assert budget_of(recipe, config, 15, world_size=2).pictures == 5 * 8


def test_the_presets_of_a_plain_classifier_and_of_the_small_models_are_an_equal_budget() -> None:
    names = ("diffmicv2_nano", "diffmicv2_small", "timm/test_resnet")
    for images in (100, 1000, 3000, 10_000):
        budgets = [budget_of(preset_recipe(config, images), config, images) for config in map(get_config, names)]
        assert len({(budget.pictures, budget.steps) for budget in budgets}) == 1
