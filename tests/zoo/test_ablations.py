"""The rows of the paper's table IV: what each switches off, and that all of them train and predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from factories import SMALL_ENCODERS, TINY, tiny_model

import diffmiczoo
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.guidance import build_guidance_map
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.zoo.architectures import ABLATIONS
from diffmiczoo.zoo.complexity import count_macs, count_parameters

DIFFUSION = ["c2", "c3", "c4", "c5", "c6"]


def build(ablation: str | None, **fields) -> DiffMICv2:
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name != "num_points"}
    return diffmiczoo.create_model(
        "diffmicv2_resnet18", ablation=ablation, **{"num_classes": 3, **sizes, **SMALL_ENCODERS, **fields}
    )


def disturbed(model: DiffMICv2, part: str) -> DiffMICv2:
    """Changes every floating-point tensor of one part of a model."""
    with torch.no_grad():
        for tensor in model.get_submodule(part).state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(1.5).add_(0.1)
    return model


IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def test_the_names() -> None:
    assert list(ABLATIONS) == ["dcg", "c1", *DIFFUSION]
    with pytest.raises(ValueError, match="ablation='c7' is not one of 'dcg', 'c1'"):
        diffmiczoo.create_model("diffmicv2_nano", ablation="c7")
    with pytest.raises(ValueError, match="ablation='c6' is a model to train anew"):
        diffmiczoo.create_model("diffmicv2_nano.ham10000", pretrained=True, ablation="c6")


def test_a_dcg_alone_has_no_classifier_on_f(tmp_path) -> None:
    """Also where the architecture is that of weights that have one."""
    tiny_model(feature_loss_weight=0.5).save_pretrained(tmp_path)
    for ablation in ("dcg", "c1"):
        with pytest.warns(UserWarning, match="random weights"):
            model = diffmiczoo.create_model(f"local-dir:{tmp_path}", ablation=ablation)
        assert model.config.feature_loss_weight == 0


def test_an_override_wins_over_the_ablation() -> None:
    assert build("c2", num_points=4).config.num_points == 4


@torch.no_grad()
def test_c1_is_a_plain_classifier() -> None:
    model = build("c1")
    assert not hasattr(model, "unet") and not hasattr(model, "feature_prior") and model.dcg.local_encoder is None
    pooled = model.dcg.global_encoder(IMAGES).mean((2, 3))
    logits = pooled @ model.dcg.saliency_conv.weight[:, :, 0, 0].T
    torch.testing.assert_close(model(IMAGES), logits)
    targets = torch.tensor([0, 1, 2])
    torch.testing.assert_close(model.dcg_loss(IMAGES, targets), torch.nn.functional.cross_entropy(logits, targets))


@torch.no_grad()
def test_dcg_alone_answers_with_the_mean_of_both_priors() -> None:
    model, whole = build("dcg"), build(None)
    assert not hasattr(model, "unet") and not hasattr(model, "feature_prior")
    model.dcg.load_state_dict(whole.dcg.state_dict())
    torch.testing.assert_close(model(IMAGES), whole.condition(IMAGES).dcg_logits)
    with pytest.raises(TypeError, match="predictor='dcg' has no diffusion"):
        model.condition(IMAGES)


@torch.no_grad()
@pytest.mark.parametrize(("ablation", "sees_dcg"), [("c2", False), ("c3", True), ("c4", True), ("c6", True)])
def test_whether_the_priors_reach_the_answer(ablation: str, sees_dcg: bool) -> None:
    model = build(ablation)
    before = model(IMAGES)
    # Saliency moves the ROIs too, so the classifiers are disturbed only where nothing else depends on them.
    disturbed(model, "dcg")
    assert torch.equal(model(IMAGES), before) is not sees_dcg


@torch.no_grad()
@pytest.mark.parametrize(
    ("ablation", "global_matters", "local_matters"),
    [("c2", False, False), ("c3", True, False), ("c4", False, True), ("c5", False, False), ("c6", True, True)],
)
def test_which_prior_the_guidance_map_holds(ablation: str, global_matters: bool, local_matters: bool) -> None:
    config = build(ablation).config
    global_prior, local_prior = torch.randn(2, 3), torch.randn(2, 3)
    before = build_guidance_map(global_prior, local_prior, config)
    assert torch.equal(build_guidance_map(global_prior + 1, local_prior, config), before) is not global_matters
    assert torch.equal(build_guidance_map(global_prior, local_prior + 1, config), before) is not local_matters
    assert before.shape == (2, 3, config.num_points, config.num_points)


@pytest.mark.parametrize("ablation", ["c2", "c5"])
def test_without_guidance_the_network_has_no_input_for_it(ablation: str) -> None:
    model = build(ablation)
    assert model.unet.block1.conv.in_channels == 3
    assert build("c3").unet.block1.conv.in_channels == 6


@pytest.mark.parametrize(("ablation", "roi_features"), [("c2", 0), ("c3", 0), ("c4", 0), ("c5", 1), ("c6", 1)])
def test_whether_rois_are_features(ablation: str, roi_features: int) -> None:
    parts = {name.split(".")[0] for name, _ in build(ablation).feature_prior.named_parameters()}
    assert ({"roi_encoder", "roi_proj", "roi_norm", "Q"} <= parts) is bool(roi_features)
    assert len({"roi_encoder", "roi_proj", "roi_norm", "Q"} & parts) == 4 * roi_features


@pytest.mark.parametrize("ablation", [*DIFFUSION, None])
def test_one_timestep_for_all_points_or_one_per_point(ablation: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(ablation).train()
    seen = []
    forward = model.unet.forward
    monkeypatch.setattr(model.unet, "forward", lambda y, t, *rest: (seen.append((y, t)), forward(y, t, *rest))[1])
    model.training_loss(IMAGES, torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0))
    ((y_t, t),) = seen
    points = model.config.num_points
    assert t.shape == (3, points, points) and y_t.shape == (3, 3, points, points)
    per_image = [len(timesteps.unique()) for timesteps in t]
    assert per_image == [1, 1, 1] if ablation else min(per_image) > 5
    assert len(t[:, 0, 0].unique()) == 3
    # The noise is still drawn per point.
    assert points == 1 or y_t.flatten(2).std(-1).min() > 0


def test_vanilla_rows_have_one_noise_vector() -> None:
    assert [build(name).config.num_points for name in DIFFUSION] == [1, 1, 1, 1, 6]


@pytest.mark.parametrize("ablation", list(ABLATIONS))
def test_train_predict_save_load_and_count(ablation: str, image_folder: Path, tmp_path: Path) -> None:
    from diffmiczoo.data.readers import read_manifest

    model = build(ablation, num_classes=2)
    assert sum(count_parameters(model.config).values()) == 2 * sum(p.numel() for p in model.parameters())
    macs = count_macs(model.config)
    assert (macs["unet"] == 0) is (ablation in ("dcg", "c1")) and macs["condition"] > 0
    manifest = read_manifest(image_folder)
    training, validation = (replace(manifest, records=manifest.records[part::2]) for part in (0, 1))
    recipe = Recipe(dcg_epochs=1, diffusion_epochs=1, batch_size=4)
    result = diffmiczoo.fit(model, training, validation, recipe, output=tmp_path / "run", progress=False)
    stages = ["dcg"] if ablation in ("dcg", "c1") else ["dcg", "diffusion"]
    assert [row["stage"] for row in result.history] == stages
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path / 'run' / 'best'}", pretrained=True)
    assert loaded.config == model.config and loaded.trained
    prediction = loaded.predict(image_folder)
    # Six validation images are too few to calibrate.
    assert not prediction.calibrated and torch.equal(prediction.probs, model.predict(image_folder).probs)
    torch.testing.assert_close(prediction.roi_attention.sum(1), torch.ones(12))
    with pytest.warns(UserWarning, match=r"dcg\.saliency_conv"):
        loaded.reset_classifier(5)
    assert loaded(IMAGES).shape == (3, 5)


@torch.no_grad()
def test_predict_starts_around_the_guidance_map_where_the_config_says_so(image_folder: Path) -> None:
    model = build(None, init="guided", num_points=3)
    model.trained = True
    files = sorted(image_folder.rglob("*.png"))[:2]
    condition = model.condition(model.preprocess(files))
    expected = model.sample(condition, y_T=model.default_noise + condition.guidance_map).mean((2, 3))
    torch.testing.assert_close(model.predict(files).scores, expected, rtol=0, atol=1e-5)
