"""`prepare`: a model, a plan and a recipe from a name and labelled images."""

from __future__ import annotations

import pytest
import torch
from factories import QUICK, SMALL_ENCODERS, TINY, tiny_model

import diffmiczoo
from diffmiczoo.training.plan import plan_run
from diffmiczoo.training.prepare import prepare
from diffmiczoo.training.presets import finetune_recipe, preset_recipe

SMALL = {**TINY, **SMALL_ENCODERS}


def test_classes_come_from_the_data_and_the_recipe_from_their_number(manifest_csv) -> None:
    before = torch.get_rng_state()
    prepared = prepare("diffmicv2_nano", manifest_csv, changes={"seed": 5, "hflip": 0.25}, config=SMALL)
    assert torch.equal(torch.get_rng_state(), before)
    assert prepared.model.config.class_names == ("dark", "light") and prepared.model.config.num_points == 3
    assert len(prepared.plan.train) == 24 and len(prepared.plan.val) == 8
    preset = preset_recipe(diffmiczoo.create_model("diffmicv2_nano").config, 24)
    assert prepared.recipe == preset.replace(seed=5, hflip=0.25)
    own = prepare("diffmicv2_nano", manifest_csv, recipe=QUICK, changes={"seed": 6}, config=SMALL)
    assert own.recipe == QUICK.replace(seed=6)


def test_new_parameters_follow_from_the_seed(manifest_csv) -> None:
    one, same, other = (
        prepare("diffmicv2_nano", manifest_csv, changes={"seed": seed}, config=SMALL).model.state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not torch.equal(one["feature_prior.Q"], other["feature_prior.Q"])


def test_pretrained_weights_are_kept_but_for_the_classes(manifest_csv, tmp_path) -> None:
    model = tiny_model(num_classes=3, class_names=("a", "b", "c"))
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    prepared = prepare(f"local-dir:{tmp_path}/weights", manifest_csv, pretrained=True)
    assert prepared.model.config.class_names == ("dark", "light")
    assert torch.equal(prepared.model.feature_prior.Q, model.feature_prior.Q)
    assert prepared.recipe == finetune_recipe(model.config, 24)


def test_a_plan_is_taken_as_it_is_or_refused(manifest_csv) -> None:
    prepared = prepare("diffmicv2_nano", manifest_csv, config=SMALL)
    assert plan_run(prepared.model.config, prepared.plan, None, seed=9) is prepared.plan
    with pytest.raises(ValueError, match="call finetune"):
        plan_run(tiny_model(class_names=("a", "b")).config, prepared.plan, None, seed=0)
    with pytest.raises(ValueError, match="config field num_classes comes from the data"):
        prepare("diffmicv2_nano", manifest_csv, config={"num_classes": 3})


@pytest.mark.parametrize("pretrained", [False, True])
def test_grades_of_a_folder(image_folder, tmp_path, pretrained: bool) -> None:
    (image_folder / "dark").rename(image_folder / "severe")
    (image_folder / "light").rename(image_folder / "mild")
    (image_folder / "none").mkdir()
    for file in sorted((image_folder / "mild").glob("*.png"))[:3]:
        file.rename(image_folder / "none" / file.name)
    model = tiny_model(num_classes=3, class_names=("mild", "none", "severe"))  # in no order
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    name = f"local-dir:{tmp_path}/weights"
    with pytest.warns(UserWarning, match="grades in the order none, mild, severe"):
        prepared = prepare(name, image_folder, pretrained=pretrained, config={"ordinal": True})
    assert prepared.model.config.class_names == ("none", "mild", "severe") and prepared.model.config.ordinal
    assert prepared.plan.train.class_names == ("none", "mild", "severe")
    plain = prepare(name, image_folder, pretrained=pretrained)
    assert plain.model.config.class_names == ("mild", "none", "severe") and not plain.model.config.ordinal


def test_some_of_the_classes_of_weights_keep_their_rows(manifest_csv, tmp_path) -> None:
    model = tiny_model(num_classes=3, class_names=("light", "purple", "dark"))
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    with pytest.warns(UserWarning, match="light, dark are learned, and purple are left out"):
        prepared = prepare(f"local-dir:{tmp_path}/weights", manifest_csv, pretrained=True)
    assert prepared.model.config.class_names == ("light", "dark")
    kept = prepared.model.dcg.local_classifier.weight
    assert torch.equal(kept, model.dcg.local_classifier.weight[[0, 2]])


def test_the_preset_is_that_of_the_model_that_was_asked_for(manifest_csv) -> None:
    for config, ablation, changes, start in (
        ({}, None, {}, "trained"),
        ({}, None, {"freeze": "backbones"}, "given"),
        ({"predictor": "global"}, None, {}, "given"),
        ({}, "c1", {}, "given"),
        ({}, "dcg", {}, "trained"),
        ({}, "c3", {"encoder_start": "given"}, "given"),
    ):
        prepared = prepare(
            "diffmicv2_nano", manifest_csv, changes=changes, ablation=ablation, config={**SMALL, **config}
        )
        assert prepared.recipe.encoder_start == start, (config, ablation, changes)
