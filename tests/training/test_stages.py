"""What each stage trains, at which rates."""

from __future__ import annotations

import re

import pytest
import torch
from factories import QUICK, tiny_model

import diffmiczoo
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import create_stages, parameter_groups, set_training
from diffmiczoo.zoo.factory import get_config


def test_learning_rates_and_decay_of_the_parameter_groups() -> None:
    model, recipe = tiny_model(), QUICK.replace(encoder_lr=1e-3, weight_decay=0.5)
    groups = parameter_groups(model, create_stages(recipe, model.config)[1], recipe)
    of = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(of) == len(list(model.feature_prior.parameters())) + len(list(model.unet.parameters()))
    assert of[id(model.feature_prior.Q)] == (1e-2, 0.0)
    assert of[id(model.unet.block1.gamma.weight)] == (1e-2, 0.0)
    assert of[id(model.unet.block2.conv.weight)] == (1e-2, 0.5)
    assert of[id(next(model.feature_prior.raw_encoder.parameters()))] == (pytest.approx(1e-3), 0.5)


def test_frozen_backbones_keep_weights_and_statistics(manifest_csv, tmp_path) -> None:
    model = tiny_model()
    before = {
        name: tensor.clone()
        for encoder in model.encoders()
        for name, tensor in encoder.state_dict(prefix=f"{id(encoder)}.").items()
    }
    assert any("running_mean" in name for name in before)
    recipe = QUICK.replace(freeze="backbones", dcg_epochs=1, diffusion_epochs=1)
    result = diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    after = {
        name: tensor
        for encoder in result.model.encoders()
        for name, tensor in encoder.state_dict(prefix=f"{id(encoder)}.").items()
    }
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    set_training(model, recipe)
    assert not any(module.training for encoder in model.encoders() for module in encoder.modules())
    assert model.unet.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_layer_decay_lowers_the_rate_towards_the_input() -> None:
    model = DiffMICv2(get_config("diffmicv2_nano").replace(image_size=64))
    recipe = Recipe(layer_decay=0.5, encoder_lr=1.0, dcg_lr=0.25)
    (dcg, _) = create_stages(recipe, model.config)
    rates = {parameter: group["lr"] for group in parameter_groups(model, dcg, recipe) for parameter in group["params"]}
    named = dict(model.dcg.global_encoder.named_parameters())
    by_block = {
        int(found[1]): rates[parameter]
        for name, parameter in named.items()
        if (found := re.search(r"blocks\.(\d+)\.", name))
    }
    last = max(by_block)
    assert by_block[last] == 1.0 and by_block[0] == 0.5**last
    assert rates[named["model.model.conv_stem.weight"]] == 0.5 ** (last + 1)
    assert rates[model.dcg.saliency_conv.weight] == 0.25
    assert sum(parameter.numel() for parameter in rates) == sum(each.numel() for each in model.dcg.parameters())
