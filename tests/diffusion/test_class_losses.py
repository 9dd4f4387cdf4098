"""LDAM and OHEM by numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from factories import BRIEF, tiny_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.class_losses import HardExamples, LabelDistributionMargin, create_class_loss
from diffmiczoo.diffusion.losses import cross_entropy
from diffmiczoo.training.plan import _check_combinations
from diffmiczoo.training.stages import StageLoss, create_stages

THREE = DiffMICConfig(num_classes=3)
LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 3.0], [0.5, 0.5, 0.5]])
LABELS = torch.eye(3)[[0, 1, 2]]


def test_margins_fall_with_the_fourth_root_of_the_class_size() -> None:
    targets = torch.tensor([0] * 81 + [1] * 16 + [2])
    loss = LabelDistributionMargin(targets, THREE)
    torch.testing.assert_close(loss.margins, torch.tensor([0.5 / 3, 0.5 / 2, 0.5]))
    # The true logit alone is lowered: worked out for the second image.
    by_hand = -math.log(math.exp(0.75) / (math.exp(0.75) + 1 + math.exp(3)))
    assert float(loss(LOGITS[1:2], LABELS[1:2], THREE)) == pytest.approx(by_hand, rel=1e-6)
    assert float(loss(LOGITS, LABELS, THREE)) > float(cross_entropy(LOGITS, LABELS, THREE))
    weights = torch.tensor([2.0, 0.0, 1.0])[:, None].expand(3, 3)
    each = [float(loss(LOGITS[row : row + 1], LABELS[row : row + 1], THREE)) for row in range(3)]
    assert float(loss(LOGITS, LABELS, THREE, weights)) == pytest.approx((2 * each[0] + each[2]) / 3, rel=1e-6)


def test_a_class_without_images_has_no_margin() -> None:
    assert LabelDistributionMargin(torch.tensor([0, 0, 1]), THREE).margins[2] == 0


def test_hard_examples_are_those_with_the_largest_loss() -> None:
    each = F.cross_entropy(LOGITS, LABELS, reduction="none")
    assert each.argmax() == 1 and each.argmin() == 0
    assert float(HardExamples(0.01)(LOGITS, LABELS, THREE)) == pytest.approx(float(each[1]))
    assert float(HardExamples(0.7)(LOGITS, LABELS, THREE)) == pytest.approx(float(each[1:].mean()))
    assert float(HardExamples(1.0)(LOGITS, LABELS, THREE)) == pytest.approx(float(each.mean()))
    weights = torch.tensor([100.0, 1.0, 1.0])[:, None].expand(3, 3)
    assert float(HardExamples(0.3)(LOGITS, LABELS, THREE, weights)) == pytest.approx(100 * float(each[0]))


def test_hard_examples_of_several_labels() -> None:
    config = DiffMICConfig(num_classes=3, task="multilabel")
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]])
    each = F.binary_cross_entropy_with_logits(LOGITS, labels, reduction="none").mean(1)
    assert float(HardExamples(0.3)(LOGITS, labels, config)) == pytest.approx(float(each.max()))
    with pytest.raises(ValueError, match="dcg_loss='ldam'"):
        _check_combinations(BRIEF.replace(dcg_loss="ldam"), config)


def test_the_stage_of_a_classifier_learns_by_the_loss_that_is_asked_for() -> None:
    model, images = tiny_model(predictor="dcg").eval(), torch.randn(4, 3, 64, 64)
    labels = torch.eye(2)[[0, 0, 0, 1]]
    stage = create_stages(BRIEF, model.config)[0]
    loss = create_class_loss("ldam", 0.5, torch.tensor([0, 0, 0, 1]), model.config)
    priors = model.dcg.training_priors(images, model.config)
    expected = loss(priors.global_prior, labels, model.config) + loss(priors.local_prior, labels, model.config)
    torch.testing.assert_close(StageLoss(model, stage, loss)(images, labels, None, None), expected)
    assert not torch.isclose(expected, StageLoss(model, stage)(images, labels, None, None))
