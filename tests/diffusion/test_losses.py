"""Class weights, drawn timesteps and the terms of the losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY, tiny_model

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion import losses
from diffmiczoo.diffusion.losses import (
    Balance,
    dcg_loss,
    diffusion_loss,
    draw_timesteps,
    label_vectors,
    maximum_mean_discrepancy,
    sample_training_noise,
)
from diffmiczoo.nn.condition import Priors
from diffmiczoo.runtime.modes import seeded_generator


def config(**fields) -> DiffMICConfig:
    return DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS, **fields})


def test_balance_gives_every_class_the_same_weight_and_mean_one() -> None:
    targets = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    weights = Balance(targets, config())(label_vectors(targets, config()))
    assert torch.equal(weights[:, 0], weights[:, 2])
    sums = [weights[targets == label, 0].sum().item() for label in range(3)]
    assert sums == pytest.approx([100 / 3] * 3) and weights.mean().item() == pytest.approx(1)
    missing = Balance(torch.tensor([0, 0, 2]), config())(torch.eye(3))[:, 0]
    assert missing.tolist() == pytest.approx([0.75, 0.0, 1.5])


def test_balance_of_several_labels_weighs_each_on_its_own() -> None:
    own = config(task="multilabel")
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 1, 1]])
    weights = Balance(targets, own)(targets)
    assert weights[:, :2].mean(0).tolist() == pytest.approx([1, 1])
    assert weights[0, 0].item() == pytest.approx(2) and weights[1, 0].item() == pytest.approx(2 / 3)
    assert weights[:, 2].tolist() == pytest.approx([0.5] * 4)  # no image lacks it


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_weights_of_one_change_no_loss_and_others_scale_their_terms(task: str) -> None:
    model = tiny_model(num_classes=3, task=task).eval()
    images, labels = torch.randn(4, 3, 64, 64), torch.eye(3)[[0, 1, 2, 0]]
    ones, doubled = torch.ones(4, 3), torch.tensor([2.0, 0, 0, 0])[:, None].expand(4, 3)
    with torch.no_grad():
        priors = model.priors(images)
        condition = model.condition_from_priors(images, priors)
        drawn = sample_training_noise(model.config, 4, seeded_generator(0))
        parts = (model.unet, model.schedule, model.config)
        for loss in (
            lambda weights: dcg_loss(priors, labels, model.config, weights),
            lambda weights: diffusion_loss(*parts, condition, labels, drawn, weights),
        ):
            torch.testing.assert_close(loss(ones), loss(None))
            torch.testing.assert_close(loss(2 * ones), 2 * loss(None))
        first = Priors(**{name: tensor[:1] for name, tensor in vars(priors).items() if tensor is not None})
        one = dcg_loss(first, labels[:1], model.config)
        torch.testing.assert_close(dcg_loss(priors, labels, model.config, doubled), one / 2)


def test_discrepancy_by_hand_and_its_properties() -> None:
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    own, mixed, other = (1 + np.exp(-4)) / 2, np.exp(-1), 1.0
    assert maximum_mean_discrepancy(first, second).item() == pytest.approx(own - 2 * mixed + other, rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    sample, same, shifted = (torch.randn(500, 7, generator=generator) for _ in range(3))
    assert maximum_mean_discrepancy(sample, sample).item() == pytest.approx(0, abs=1e-6)
    assert maximum_mean_discrepancy(sample, same) < 0.01 < maximum_mean_discrepancy(sample, shifted + 0.5)


def test_timesteps_cover_the_whole_range() -> None:
    config = diffmiczoo.DiffMICConfig(num_train_timesteps=5, sampling_steps=5)
    t = draw_timesteps(config, 100, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert t.unique().tolist() == [0, 1, 2, 3, 4] and t.shape == (100, 6, 6)
    assert losses.FOCAL_WEIGHT == 10
