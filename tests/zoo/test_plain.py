"""Plain classifiers go through all that the zoo does with its own models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import QUICK, pictures, run_command, tiny_model, write_manifest

import diffmiczoo
from diffmiczoo.images.items import as_items
from diffmiczoo.inference.overlay import overlay_of
from diffmiczoo.inference.overlay_pictures import roi_words
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training import presets
from diffmiczoo.training.presets import finetune_recipe, preset_recipe
from diffmiczoo.zoo.factory import get_config


@pytest.fixture(scope="module")
def model() -> DiffMICv2:
    torch.manual_seed(0)
    model = diffmiczoo.create_model("timm/test_resnet", num_classes=3, image_size=64)
    model.trained = True
    return model


def test_pre_processing_is_timms_own() -> None:
    with torch.device("meta"):
        config = diffmiczoo.create_model("timm/vit_tiny_patch16_224", num_classes=7).config
    assert (config.image_size, config.mean, config.interpolation) == (224, (0.5, 0.5, 0.5), "bicubic")
    assert (config.predictor, config.dcg_encoder, config.roi_size) == ("classifier", "vit_tiny_patch16_224", 32)
    with torch.device("meta"):
        changed = diffmiczoo.create_model("timm/resnet18.a1_in1k", image_size=32, mean=(0.1, 0.2, 0.3)).config
    assert (changed.image_size, changed.roi_size, changed.mean) == (32, 5, (0.1, 0.2, 0.3))
    assert changed.std == pytest.approx((0.229, 0.224, 0.225))


def test_names() -> None:
    assert diffmiczoo.is_model("timm/resnet18") and not diffmiczoo.is_model("timm/resnet81")
    assert "timm/resnet18" in diffmiczoo.list_models("timm/resnet*")
    assert not [name for name in diffmiczoo.list_models() if name.startswith("timm/")]
    assert not diffmiczoo.list_models("timm/resnet*", pretrained=True)
    with pytest.raises(ValueError, match="did you mean timm/resnet18"):
        diffmiczoo.create_model("timm/resnet81")
    with pytest.raises(ValueError, match="pretrained_backbones=True starts from ImageNet's"):
        diffmiczoo.create_model("timm/resnet18", pretrained=True)
    assert "timm/resnet18.a1_in1k" in diffmiczoo.list_models("timm/resnet18.*")
    for build in (diffmiczoo.create_model, diffmiczoo.model_info):
        with pytest.raises(ValueError, match=r"no pretrained weights 'a1' of resnet18; it has resnet18\.a1_in1k, "):
            build("timm/resnet18.a1")
    with pytest.raises(ValueError, match=r"encoder 'test_vit\.none': timm"):
        tiny_model(raw_encoder="test_vit.none")


def test_a_plain_classifier_stays_one() -> None:
    with pytest.raises(ValueError, match="ablation='dcg' is for models with a DCG, and timm's test_resnet is a plain"):
        diffmiczoo.create_model("timm/test_resnet", ablation="dcg")
    with pytest.raises(ValueError, match="predictor='diffusion' is for models with a DCG"):
        diffmiczoo.create_model("timm/test_resnet", predictor="diffusion")


def test_fields_with_a_value_per_class_come_with_the_classes() -> None:
    fields = {"num_classes": 2, "image_size": 64}
    model = diffmiczoo.create_model("timm/test_resnet", **fields, label_adjustment=(0.0, 1.0))
    assert model.config.label_adjustment == (0.0, 1.0)
    model = diffmiczoo.create_model("timm/test_resnet", **fields, task="multilabel", thresholds=(0.3, 0.4))
    assert model.config.thresholds == (0.3, 0.4)


def test_model_info_counts_what_timm_has() -> None:
    info = diffmiczoo.model_info("timm/resnet18")
    assert info.parameters["total"] == info.parameters["dcg"] == 11_689_512 - 993 * 513  # 7 classes instead of 1000
    assert info.macs["total"] == info.macs["dcg"] == pytest.approx(1.82e9, rel=0.01)
    assert info.weights == "none" and "plain classifier" in info.description


def test_predictions(model: DiffMICv2) -> None:
    found = model.predict(pictures(4))
    assert found.saliency.shape == (4, 3, 2, 2) and found.rois.shape == (4, 6, 4)
    torch.testing.assert_close(found.probs, found.scores.softmax(1))
    torch.testing.assert_close(found.scores, model(model.preprocess(pictures(4))), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.saliency.mean((2, 3)), found.scores, rtol=1e-4, atol=1e-5)
    one = model.predict(pictures(4)[2])
    torch.testing.assert_close(one.scores[0], found.scores[2], rtol=0, atol=1e-5)
    assert torch.equal(one.rois[0], found.rois[2])


def test_the_legend_claims_no_reading_of_regions(model: DiffMICv2) -> None:
    marks = overlay_of(model.predict(pictures(1)), 0, as_items(pictures(1))[0], True).marks
    assert roi_words(marks).startswith("regions (ROIs) where the saliency is strongest")
    shares = replace(marks, roi_attention=torch.tensor([0.3, 0.2, 0.2, 0.1, 0.1, 0.1]))
    assert roi_words(shares).startswith("regions (ROIs) read closely, by their share of attention:  1: 30 %   2: 20 %")


@torch.no_grad()
def test_timms_interface(model: DiffMICv2) -> None:
    images = torch.randn(2, 3, 64, 64)
    features = model.forward_features(images)
    torch.testing.assert_close(model.forward_head(features), model(images))
    assert model.num_features == 96 and model.embed(pictures(2)).shape == (2, 96)
    assert [type(layer).__name__ for layer in model.get_classifier()] == ["Linear"]
    torch.testing.assert_close(model.get_classifier()[0](features[:, 0]), model(images))
    assert model(images[:, :1]).shape == (2, 3)


def test_classes_can_change(tmp_path: Path) -> None:
    names = ("cat", "dog", "eel")
    model = diffmiczoo.create_model("timm/test_vit", class_names=names, image_size=32)
    row = model.dcg.classifier.weight[2].clone()
    with pytest.warns(UserWarning, match=r"dcg\.classifier were rebuilt .* but for the rows of eel"):
        model.reset_classifier(4, ["eel", "fox", "gnu", "hen"])
    assert torch.equal(model.dcg.classifier.weight[0], row) and model(torch.randn(1, 3, 32, 32)).shape == (1, 4)
    with pytest.raises(ValueError, match="the weights are of a model with 4 classes, this one has 3"):
        diffmiczoo.create_model("timm/test_vit", num_classes=3, image_size=32).load_state_dict(model.state_dict())


def test_small_ones_train_as_the_small_model_does_for_all_of_its_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    config = get_config("timm/test_resnet")
    for images in (200, 10_000):
        nano = preset_recipe(get_config("diffmicv2_nano"), images)
        plain = preset_recipe(config, images)
        both = 2 * nano.dcg_epochs + nano.diffusion_epochs
        assert plain == nano.replace(dcg_epochs=both, diffusion_epochs=0, encoder_start="given")
        assert finetune_recipe(config, images).encoder_lr == 2e-4
    monkeypatch.setattr(presets, "LARGE", 1000)
    assert preset_recipe(config).encoder_lr == finetune_recipe(config).encoder_lr == 5e-5


def test_a_run_from_the_command_line(tmp_path: Path) -> None:
    data, output = write_manifest(tmp_path), tmp_path / "run"
    QUICK.replace(dcg_epochs=3, precision="bf16").save(tmp_path / "recipe.json")
    arguments = ("--model", "timm/test_resnet", "--train", data, "--output", output, "--quiet")
    run = run_command(
        "fit", "--no-report", *arguments, "--recipe", tmp_path / "recipe.json", "--config", "image_size=32"
    )
    assert run.exit_code == 0, run.output
    model = diffmiczoo.create_model(f"local-dir:{output / 'best'}", pretrained=True)
    assert (model.config.predictor, model.config.dcg_encoder) == ("classifier", "test_resnet")
    page = (output / "README.md").read_text()
    assert model.trained and "Budget: 3 epochs, 72 pictures of 32 × 32 in 9 steps." in page and "DCG" not in page
    assert diffmiczoo.evaluate(model, data, bootstrap=0, progress=False).values["accuracy"] >= 0.9
    light = np.full((40, 40, 3), 220, dtype=np.uint8)
    assert model.predict(light).labels == ["light"]
