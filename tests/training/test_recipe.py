"""What the fields of a recipe do."""

from __future__ import annotations

import json

import pytest
import torch
from factories import QUICK, edited, tiny_model

import diffmiczoo
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.validation import check_selectable


def test_recipe_json_round_trip_and_errors(tmp_path) -> None:
    QUICK.save(tmp_path / "recipe.json")
    assert Recipe.load(tmp_path / "recipe.json") == QUICK
    (tmp_path / "part.json").write_text(json.dumps({"dcg_lr": 0.5}))
    assert Recipe.load(tmp_path / "part.json") == Recipe(dcg_lr=0.5)
    for text, message in [("[1]", "expected a JSON object"), ("{", "not a JSON file"), ('{"lr": 1}', "unknown fields")]:
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            Recipe.load(tmp_path / "bad.json")
    for wrong in ({"precision": "fp8"}, {"batch_size": 1}, {"hflip": 2}, {"dcg_lr": "fast"}, {"seed": True}):
        with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
            Recipe(**wrong)


@pytest.mark.parametrize("fields", [{"batch_size": 2.5}, {"dcg_epochs": 1.5}, {"seed": True}])
def test_counts_of_a_recipe_are_whole_numbers(fields: dict) -> None:
    with pytest.raises(TypeError, match=r"is not of type int"):
        Recipe(**fields)


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


def test_patience_ends_a_stage_early(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=12, diffusion_epochs=0, dcg_lr=0.0, patience=3, freeze="backbones", ema_decay=0.0)
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert len(result.history) == 4, "the first epoch is better than none, and three more are not better"
    assert [row["epoch"] for row in result.history if row["best"]] == [4]


def test_patience_waits_for_a_validation(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(
        dcg_epochs=9, diffusion_epochs=0, dcg_lr=0.0, patience=2, validate_every=3, freeze="backbones"
    )
    recipe = recipe.replace(ema_decay=0.0)
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert [row["epoch"] for row in result.history if "nll" in row] == [3, 6]
    assert len(result.history) == 6


@pytest.mark.parametrize(
    ("fields", "config", "message"),
    [
        ({"loss": "focal"}, {"predictor": "dcg"}, "loss='focal' is that of a diffusion, and predictor='dcg' has none"),
        ({"hard_share": 0.2}, {}, "hard_share=0.2 is for dcg_loss='ohem', not 'cross_entropy'"),
        ({"teacher_share": 0.2}, {}, "teacher_share=0.2 is for teachers, and there are none"),
        ({"teachers": ("runs/a/best",), "teacher_share": 0.0}, {}, "would never ask them"),
        ({"teachers": ("runs/a/best",), "dcg_epochs": 0}, {}, "would never ask them"),
        ({"start_size": 32, "dcg_epochs": 1}, {}, "dcg_epochs=1 leaves none; set at least 2"),
    ],
)
def test_fields_that_would_do_nothing_are_refused(manifest_csv, tmp_path, fields, config, message) -> None:
    with pytest.raises(ValueError, match=message):
        diffmiczoo.fit(tiny_model(**config), manifest_csv, recipe=QUICK.replace(**fields), output=tmp_path / "run")


def test_a_metric_that_the_validation_images_do_not_define(manifest_csv, tmp_path) -> None:
    one = edited(manifest_csv, lambda lines: [line for line in lines if "light" not in line or ",val" not in line])
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0, select="auroc")
    with pytest.warns(UserWarning, match=r"do not define select='auroc'.*the last epoch of each stage is taken"):
        diffmiczoo.fit(tiny_model(), one, recipe=recipe, output=tmp_path / "run", progress=False)
    with pytest.raises(ValueError, match="patience=2 would end stages by chance"):
        diffmiczoo.fit(tiny_model(), one, recipe=recipe.replace(patience=2), output=tmp_path / "other", progress=False)


def test_an_output_without_a_name_is_refused(manifest_csv) -> None:
    with pytest.raises(ValueError, match="output='' names no directory"):
        diffmiczoo.fit(tiny_model(), manifest_csv, output="")


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


def test_any_validation_images_can_be_asked_what_they_define() -> None:
    config = tiny_model(task="multilabel", num_classes=3).config
    targets = torch.zeros(400, 3)
    assert len(check_selectable(QUICK.replace(select="auroc"), targets, config)) == 1
    targets[::2] = 1
    assert check_selectable(QUICK.replace(select="auroc"), targets, config) == []
