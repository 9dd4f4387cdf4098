"""Labels that are not quite sure have the values that their papers give."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from factories import QUICK, tiny_model

from diffmiczoo.data.readers import read_manifest
from diffmiczoo.training.distributed import Processes, Rank
from diffmiczoo.training.optimization import Optimization
from diffmiczoo.training.plan import check_recipe
from diffmiczoo.training.soft_labels import SoftLabels, grade_kernel
from diffmiczoo.training.stages import create_stages, trainable

#: Images, where no teacher looks at them.
NOTHING = torch.empty(0)


def test_smoothing_is_that_of_torchs_cross_entropy() -> None:
    logits, classes = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 3, 1])
    config = tiny_model(num_classes=4).config
    soft = SoftLabels(QUICK.replace(label_smoothing=0.1), config)(torch.eye(4)[classes], NOTHING)
    assert soft[0].tolist() == pytest.approx([0.925, 0.025, 0.025, 0.025])
    wanted = F.cross_entropy(logits, classes, label_smoothing=0.1)
    assert float(F.cross_entropy(logits, soft)) == pytest.approx(float(wanted), rel=1e-5)
    mixed = torch.tensor([[0.3, 0.7, 0.0, 0.0]])
    assert SoftLabels(QUICK, config)(mixed, NOTHING) is mixed


def test_smoothing_of_several_labels_is_between_yes_and_no() -> None:
    config = tiny_model(num_classes=3, task="multilabel").config
    soft = SoftLabels(QUICK.replace(label_smoothing=0.2), config)(torch.tensor([[1.0, 0.0, 1.0]]), NOTHING)
    assert soft[0].tolist() == pytest.approx([0.9, 0.1, 0.9])


def test_neighbouring_grades_share_a_label() -> None:
    kernel = grade_kernel(5, 0.5)
    near, far = math.exp(-2), math.exp(-8)
    whole = 1 + 2 * near + 2 * far
    assert kernel[2].tolist() == pytest.approx([far / whole, near / whole, 1 / whole, near / whole, far / whole])
    assert kernel.sum(1).tolist() == pytest.approx([1.0] * 5) and float(kernel[0, 0]) > float(kernel[2, 2])
    config = tiny_model(num_classes=5, ordinal=True).config
    soft = SoftLabels(QUICK.replace(ordinal_smoothing=0.5, label_smoothing=0.1), config)(torch.eye(5)[[2]], NOTHING)
    assert soft[0].tolist() == pytest.approx([0.9 * float(value) + 0.02 for value in kernel[2]])


def test_the_cross_entropies_are_softened_and_the_diffusion_is_not() -> None:
    losses = {}
    for name in ("dcg", "diffusion"):
        for smoothing in (0.0, 0.3):
            model, recipe = tiny_model(), QUICK.replace(label_smoothing=smoothing)
            stage = next(each for each in create_stages(recipe, model.config) if each.name == name)
            with trainable(model, stage, recipe):
                targets = torch.tensor([0, 1] * 4)
                optimization = Optimization(model, stage, recipe, targets, 1, Processes(torch.device("cpu")))
                images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
                losses[name, smoothing] = optimization.training_step(images, targets, 0, 0)
    assert losses["dcg", 0.0] != losses["dcg", 0.3] and losses["diffusion", 0.0] == losses["diffusion", 0.3]


def test_what_makes_no_sense_together_is_refused(common_manifest) -> None:
    manifest, config = read_manifest(common_manifest), tiny_model().config
    for fields, message in [
        ({"ordinal_smoothing": 0.5}, "for classes that are grades in order"),
        ({"drop_path": 0.1, "freeze": "backbones"}, "skips blocks of encoders that learn"),
    ]:
        with pytest.raises(ValueError, match=message):
            check_recipe(QUICK.replace(**fields), config, manifest, Rank(0, 1), torch.device("cpu"))
    with pytest.raises(ValueError, match=r"balance_labels=0\.1 is for one label out of several"):
        several = tiny_model(task="multilabel").config
        check_recipe(QUICK.replace(balance_labels=0.1), several, manifest, Rank(0, 1), torch.device("cpu"))
