"""What the fields of a recipe do."""

from __future__ import annotations

import re
from functools import partial

import pytest
import torch
from factories import QUICK, SMALL_ENCODERS, TINY, tiny_model

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.diffusion.losses import Balance, dcg_loss, diffusion_loss, draw, label_vectors
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.compiled import Compiled
from diffmiczoo.runtime.modes import seeded_generator
from diffmiczoo.training.distributed import Processes
from diffmiczoo.training.optimization import Steps
from diffmiczoo.training.presets import finetune_recipe, preset_recipe
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import BatchSampler, seed_of
from diffmiczoo.training.stages import create_stages, learning, parameter_groups, set_training
from diffmiczoo.zoo.registry import model_config


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
        condition = model.complete(images, priors)
        draws = draw(model.config, 4, seeded_generator(0))
        for loss in (
            lambda weights: dcg_loss(priors, labels, model.config, weights),
            lambda weights: diffusion_loss(model, condition, labels, draws, weights),
        ):
            torch.testing.assert_close(loss(ones), loss(None))
            torch.testing.assert_close(loss(2 * ones), 2 * loss(None))
        first = {name: tensor[:1] for name, tensor in priors.items()}
        one = dcg_loss(first, labels[:1], model.config)
        torch.testing.assert_close(dcg_loss(priors, labels, model.config, doubled), one / 2)


def test_balanced_drawing_takes_all_classes_equally_often() -> None:
    targets = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    drawn = [index for batch in BatchSampler(targets, 10, "balanced", (3,)) for index, _ in batch]
    counts = torch.bincount(targets[drawn], minlength=3)
    assert len(drawn) == 1000 and (counts - 333).abs().max() < 60
    several = torch.tensor([[1.0, 0]] * 90 + [[0.0, 1]] * 9 + [[0.0, 0]])
    drawn = [index for batch in BatchSampler(several, 10, "balanced", (3,)) for index, _ in batch]
    rare = sum(90 <= index < 99 for index in drawn) / 100
    assert 0.2 < rare < 0.5


def test_seeds_depend_on_every_number_and_their_order() -> None:
    seeds = {seed_of(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
    assert len(seeds) == 64 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("fields", [{"mixup": 0.4}, {"sampling": "balanced"}])
def test_fields_change_what_is_learned(manifest_csv, tmp_path, fields: dict) -> None:
    recipe = QUICK.replace(diffusion_epochs=1, dcg_epochs=1)
    losses = [
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=each, output=tmp_path / name, progress=False).history[0]
        for name, each in (("plain", recipe), ("changed", recipe.replace(**fields)))
    ]
    assert losses[0]["train_loss"] != losses[1]["train_loss"]


def test_the_focal_loss_is_kept_in_the_config(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=0, loss="focal")
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert result.model.config.loss == "focal"


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
    model = DiffMICv2(model_config("diffmicv2_nano").replace(image_size=64))
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


def test_patience_ends_a_stage_early(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=12, diffusion_epochs=0, dcg_lr=0.0, patience=3, freeze="backbones", ema_decay=0.0)
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert len(result.history) == 4, "the first epoch is better than none, and three more are not better"
    assert [row["epoch"] for row in result.history if row["kept"]] == [4]


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


def test_half_precision_fp16_is_for_gpus(manifest_csv, tmp_path) -> None:
    with pytest.raises(ValueError, match="precision='fp16' is for GPUs"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK.replace(precision="fp16"), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_a_gpu(manifest_csv, tmp_path, precision: str) -> None:
    recipe = QUICK.replace(dcg_epochs=6, precision=precision)
    model = tiny_model().to("cuda")
    result = diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert result.model.default_noise.is_cuda and result.history[5]["auroc"] > 0.9


def test_presets_follow_the_number_of_images() -> None:
    nano = model_config("diffmicv2_nano")
    batches = [preset_recipe(nano, images).batch_size for images in (60, 500, 2000, 6000)]
    assert batches == [8, 16, 32, 64]
    for images in (60, 500, 2000, 6000):
        recipe, careful = preset_recipe(nano, images), finetune_recipe(nano, images)
        assert images // recipe.batch_size * recipe.diffusion_epochs >= 250
        assert careful.diffusion_lr < recipe.diffusion_lr and careful.encoder_lr < recipe.encoder_lr
    paper = finetune_recipe(model_config("diffmicv2_resnet18"))
    assert paper.ema_decay and paper.encoder_lr < 2e-4


def test_finetune_takes_new_classes_and_keeps_the_rest(manifest_csv, tmp_path) -> None:
    model = tiny_model(num_classes=4, class_names=("a", "b", "c", "d"))
    before = model.feature_prior.Q.clone()
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=1, diffusion_lr=0.0, encoder_lr=0.0, dcg_lr=0.0)
    result = diffmiczoo.finetune(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert result.model.config.class_names == ("dark", "light")
    assert torch.equal(result.model.feature_prior.Q, before)


def test_finetune_of_the_same_classes_starts_from_all_that_is_known(manifest_csv, tmp_path) -> None:
    model = tiny_model(class_names=("dark", "light"))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    recipe = QUICK.replace(dcg_epochs=0, diffusion_epochs=0)
    result = diffmiczoo.finetune(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.model.named_parameters())


def test_finetune_may_change_the_task(manifest_csv, tmp_path) -> None:
    manifest = read_manifest(manifest_csv, task="multilabel")
    model = tiny_model(num_classes=5, ordinal=True)
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=1)
    result = diffmiczoo.finetune(model, manifest, recipe=recipe, output=tmp_path / "run", progress=False)
    assert result.model.config.task == "multilabel" and not result.model.config.ordinal
    assert len(result.model.config.thresholds) == 2
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True)
    assert loaded.config.thresholds == result.model.config.thresholds
    prediction = loaded.predict([record.path for record in manifest.split("test").records])
    wanted = [
        [
            name
            for name, value, limit in zip(("dark", "light"), row, loaded.config.thresholds, strict=True)
            if value >= limit
        ]
        for row in prediction.probs.tolist()
    ]
    assert prediction.labels == wanted


def test_compiling_leaves_a_forward_that_somebody_has_set() -> None:
    module, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    module.forward = own = lambda x: x + 1
    compiled = Compiled([module, other])
    with compiled.used():
        assert module.forward is not own and "forward" in vars(other)
    assert module.forward is own and "forward" not in vars(other)


def test_compiling_is_refused_where_it_would_cost_the_fast_gradients(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(compile=True, precision="bf16")
    with pytest.raises(ValueError, match="compile=True would do without the fast gradients"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)


@pytest.mark.parametrize("stage", ["dcg", "diffusion"])
def test_compiled_steps_learn_the_same(stage: str, monkeypatch) -> None:
    """Through torch.compile up to its code generator, which needs a C++ compiler and minutes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    losses, weights = {}, {}
    for compile in (False, True):
        model = tiny_model()
        recipe = QUICK.replace(compile=compile, ema_decay=0.9)
        chosen = next(each for each in create_stages(recipe, model.config) if each.name == stage)
        with learning(model, chosen, recipe):
            steps = Steps(model, chosen, recipe, torch.tensor([0, 1] * 4), 2, Processes(torch.device("cpu")))
            images = torch.randn(8, 3, model.config.image_size, model.config.image_size)
            losses[compile] = [steps.take(images, torch.tensor([0, 1] * 4), 0, batch) for batch in range(2)]
            weights[compile] = steps.judged.state_dict()
        assert not any("forward" in vars(module) for module in model.modules())
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
    for name, tensor in weights[True].items():
        torch.testing.assert_close(tensor, weights[False][name], rtol=1e-4, atol=1e-5)
