"""The rows of the paper's table IV and DiffMIC (v1): what each switches off, and that all of them train and predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY

import diffmiczoo
from diffmiczoo.diffusion import losses
from diffmiczoo.diffusion.losses import draw_timesteps, maximum_mean_discrepancy
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
    torch.testing.assert_close(model(IMAGES), whole.condition(IMAGES).dcg_scores)
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
    assert loaded.config == model.config and loaded.trained and loaded.config.temperature is not None
    prediction = loaded.predict(image_folder)
    assert prediction.calibrated and torch.equal(prediction.probs, model.predict(image_folder).probs)
    torch.testing.assert_close(prediction.roi_attention.sum(1), torch.ones(12))
    with pytest.warns(UserWarning, match=r"dcg\.saliency_conv"):
        loaded.reset_classifier(5)
    assert loaded(IMAGES).shape == (3, 5)


# ---------------------------------------------------------------------- DiffMIC (v1)


def v1(**fields) -> DiffMICv2:
    torch.manual_seed(0)
    sizes = {name: value for name, value in TINY.items() if name != "num_points"}
    return diffmiczoo.create_model("diffmicv1_resnet18", num_classes=3, **{**sizes, **SMALL_ENCODERS, **fields})


def test_v1_has_one_noise_vector_and_sees_the_whole_image_only() -> None:
    model = v1()
    assert model.default_noise.shape == (1, 3, 1, 1)
    assert model.feature_prior.roi_encoder is None and model.unet.block1.conv.in_channels == 6
    full = diffmiczoo.DiffMICConfig.from_dict(diffmiczoo.model_info("diffmicv1_resnet18").config.to_dict())
    assert (full.raw_encoder, full.sampler, full.sampling_steps) == ("resnet18", "ancestral", 100)


@torch.no_grad()
def test_v1_guidance_is_the_softmax_of_the_fused_prior() -> None:
    condition = v1().condition(IMAGES)
    fused = (0.5 * (condition.global_prior + condition.local_prior)).softmax(-1)
    torch.testing.assert_close(condition.guidance_map[:, :, 0, 0], fused)


@torch.no_grad()
def test_v1_starts_around_its_prior_and_ends_at_the_labels() -> None:
    model = v1(sampling_steps=50)
    condition = model.condition(IMAGES)
    true = torch.eye(3)[:, :, None, None]

    class Oracle(torch.nn.Module):
        """Knows the noise in y_t exactly, so that the sampler has to end at the true labels."""

        def forward(self, y_t, t, guidance_map, feature_prior):
            alpha = model.schedule.alphas_cumprod(t.device)[t.flatten()[0]]
            ended = guidance_map + alpha.sqrt() * (true - guidance_map)
            return (y_t - ended) / (1 - alpha).sqrt()

    model.unet = Oracle()
    torch.testing.assert_close(model.sample(condition), true, rtol=0, atol=1e-3)
    many = model.draw_noise(1, 4000, generator=torch.Generator().manual_seed(0)).start.expand(-1, 3, -1, -1, -1)
    from diffmiczoo.diffusion.sampling import start_from

    start = start_from(model.config, condition, many)
    torch.testing.assert_close(start.mean(0), condition.guidance_map, rtol=0, atol=0.06)


def test_v1_loss_adds_the_discrepancy_of_both_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = v1(), v1(mmd_weight=0.0)
    plain.load_state_dict(model.state_dict())
    targets = torch.tensor([0, 1, 2])
    seen = []
    forward = model.unet.forward

    def recorded(y_t, t, guidance_map, feature_prior):
        seen.append((y_t, t, guidance_map, forward(y_t, t, guidance_map, feature_prior)))
        return seen[-1][-1]

    monkeypatch.setattr(model.unet, "forward", recorded)
    loss = model.training_loss(IMAGES, targets, torch.Generator().manual_seed(3))
    assert len(seen) == 3
    condition = model.condition(IMAGES)
    y_0, t = torch.eye(3)[:, :, None, None], seen[0][1]
    alpha = model.schedule.alphas_cumprod(t.device)[t][:, None]
    noise = (seen[0][0] - seen[0][2] - alpha.sqrt() * (y_0 - seen[0][2])) / (1 - alpha).sqrt()
    expected = (noise - seen[0][3]).square().mean()
    for (y_t, _, mean, estimate), prior in zip(seen[1:], (condition.global_prior, condition.local_prior), strict=True):
        torch.testing.assert_close(mean[:, :, 0, 0], prior.softmax(-1))
        torch.testing.assert_close(y_t, mean + alpha.sqrt() * (y_0 - mean) + (1 - alpha).sqrt() * noise)
        expected = expected + 0.5 * maximum_mean_discrepancy(noise.flatten(1), estimate.flatten(1))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    without = plain.training_loss(IMAGES, targets, torch.Generator().manual_seed(3))
    torch.testing.assert_close(without, (noise - seen[0][3]).square().mean(), rtol=1e-4, atol=1e-5)


def test_discrepancy_by_hand_and_its_properties() -> None:
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])
    own, mixed, other = (1 + np.exp(-4)) / 2, np.exp(-1), 1.0
    assert maximum_mean_discrepancy(first, second).item() == pytest.approx(own - 2 * mixed + other, rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    sample, same, shifted = (torch.randn(500, 7, generator=generator) for _ in range(3))
    assert maximum_mean_discrepancy(sample, sample).item() == pytest.approx(0, abs=1e-6)
    assert maximum_mean_discrepancy(sample, same) < 0.01 < maximum_mean_discrepancy(sample, shifted + 0.5)


@torch.no_grad()
def test_v1_answers_do_not_depend_on_the_batch_and_follow_the_seed(image_folder: Path) -> None:
    model = v1()
    model.trained = True
    files = sorted(image_folder.rglob("*.png"))
    whole = model.predict(files, steps=20)
    alone = torch.cat([model.predict(file, steps=20).scores for file in files])
    torch.testing.assert_close(whole.scores, alone, rtol=0, atol=1e-5)
    assert not torch.allclose(model.predict(files, steps=20, seed=1).scores, whole.scores, atol=1e-3)
    assert torch.equal(model.predict(files, steps=20).scores, whole.scores)


def test_multilabel_priors_of_v1_are_sigmoids() -> None:
    config = v1(task="multilabel").config
    prior = torch.randn(2, 3)
    torch.testing.assert_close(build_guidance_map(prior, prior, config)[:, :, 0, 0], prior.sigmoid())


# ---------------------------------------------------------------------- what needs a guidance map


@pytest.mark.parametrize("fields", [{"init": "guided"}, {"process_mean": "prior"}, {"mmd_weight": 0.5}])
def test_nothing_can_need_a_guidance_map_that_is_not_there(fields: dict) -> None:
    with pytest.raises(ValueError, match="needs a guidance map, but guidance is 'none'"):
        diffmiczoo.DiffMICConfig(guidance="none", **fields)


@torch.no_grad()
def test_predict_starts_around_the_guidance_map_where_the_config_says_so(image_folder: Path) -> None:
    model = build(None, init="guided", num_points=3)
    model.trained = True
    files = sorted(image_folder.rglob("*.png"))[:2]
    condition = model.condition(model.preprocess(files))
    expected = model.sample(condition, y_T=model.default_noise + condition.guidance_map).mean((2, 3))
    torch.testing.assert_close(model.predict(files).scores, expected, rtol=0, atol=1e-5)


def test_timesteps_cover_the_whole_range() -> None:
    config = diffmiczoo.DiffMICConfig(num_train_timesteps=5, sampling_steps=5)
    t = draw_timesteps(config, 100, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert t.unique().tolist() == [0, 1, 2, 3, 4] and t.shape == (100, 6, 6)
    assert losses.FOCAL_WEIGHT == 10
