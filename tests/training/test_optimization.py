"""A training step: accumulation, compilation, and gradients that are not finite."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from factories import FULL_RECIPE, QUICK, OnStep, tiny_model

import diffmiczoo
from diffmiczoo.training.checkpoint import load_checkpoint
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.optimization import Optimization
from diffmiczoo.training.stages import create_stages, trainable


def test_accumulated_batches_equal_a_larger_one(manifest_csv, tmp_path) -> None:
    fields = {"freeze": "backbones", "diffusion_epochs": 0, "dcg_epochs": 2, "ema_decay": 0.0, "rotation": 0.0}
    runs = {
        name: diffmiczoo.fit(
            tiny_model(), manifest_csv, recipe=QUICK.replace(**fields, **sizes), output=tmp_path / name, progress=False
        )
        for name, sizes in (("one", {"batch_size": 8}), ("two", {"batch_size": 4, "accumulate": 2}))
    }
    for name, tensor in runs["one"].model.state_dict().items():
        torch.testing.assert_close(tensor, runs["two"].model.state_dict()[name], rtol=1e-3, atol=1e-4, msg=name)


def test_compiling_is_refused_where_it_would_cost_the_fast_gradients(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(compile=True, precision="bf16")
    with pytest.raises(ValueError, match="compile=True would do without the fast gradients"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)


@pytest.mark.release
@pytest.mark.parametrize("stage", ["dcg", "diffusion"])
def test_compiled_steps_learn_the_same(stage: str, monkeypatch) -> None:
    """Through torch.compile up to its code generator, which needs a C++ compiler and minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    losses, weights = {}, {}
    for compile in (False, True):
        model = tiny_model().double()  # Adam makes much of rounding where a gradient is nearly nothing
        recipe = QUICK.replace(compile=compile, ema_decay=0.9)
        chosen = next(each for each in create_stages(recipe, model.config) if each.name == stage)
        with trainable(model, chosen, recipe):
            targets, processes = torch.tensor([0, 1] * 4), Processes(torch.device("cpu"))
            optimization = Optimization(model, chosen, recipe, targets, 2, processes)
            images = torch.randn(8, 3, model.config.image_size, model.config.image_size, dtype=torch.float64)
            losses[compile] = [optimization.training_step(images, targets, 0, batch) for batch in range(2)]
            weights[compile] = optimization.eval_model.state_dict()
        assert not any("forward" in vars(module) for module in model.modules())
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    for name, tensor in weights[True].items():
        torch.testing.assert_close(tensor, weights[False][name], rtol=1e-4, atol=1e-5)


def test_a_gradient_that_is_not_finite_stops_with_its_place_and_keeps_the_checkpoint(manifest_csv, tmp_path) -> None:
    model = tiny_model()

    def poison(*place) -> None:
        if place == ("dcg", 1, 2):
            next(model.dcg.parameters()).register_hook(lambda gradient: gradient * float("inf"))

    options = {"output": tmp_path / "run", "callbacks": [OnStep(poison)], "progress": False}
    with pytest.raises(ValueError, match=r"gradient became (inf|nan) in stage dcg, epoch 2, batch 4\. .*earlier state"):
        diffmiczoo.fit(model, manifest_csv, recipe=FULL_RECIPE, **options)
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert checkpoint.progress.epoch == 1
    floats = [tensor for tensor in checkpoint.model.values() if tensor.is_floating_point()]
    assert floats and all(bool(torch.isfinite(tensor).all()) for tensor in floats)
