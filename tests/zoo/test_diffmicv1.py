"""DiffMIC (v1) as a special case."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from factories import SMALL_ENCODERS, TINY

import diffmiczoo
from diffmiczoo.diffusion.losses import maximum_mean_discrepancy
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.guidance import build_guidance_map

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))


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
            alpha = torch.tensor(model.schedule.alphas_cumprod[t])
            ended = guidance_map + alpha.sqrt() * (true - guidance_map)
            return (y_t - ended) / (1 - alpha).sqrt()

    model.unet = Oracle()
    torch.testing.assert_close(model.sample(condition), true, rtol=0, atol=1e-3)
    many = model.sampling_noise(1, 4000, generator=torch.Generator().manual_seed(0)).initial.expand(-1, 3, -1, -1, -1)
    from diffmiczoo.diffusion.sampling import initial_sample

    start = initial_sample(model.config, condition, many)
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
    alpha = model.schedule.alphas_cumprod_on(t.device)[t][:, None]
    noise = (seen[0][0] - seen[0][2] - alpha.sqrt() * (y_0 - seen[0][2])) / (1 - alpha).sqrt()
    expected = (noise - seen[0][3]).square().mean()
    for (y_t, _, mean, estimate), prior in zip(seen[1:], (condition.global_prior, condition.local_prior), strict=True):
        torch.testing.assert_close(mean[:, :, 0, 0], prior.softmax(-1))
        torch.testing.assert_close(y_t, mean + alpha.sqrt() * (y_0 - mean) + (1 - alpha).sqrt() * noise)
        expected = expected + 0.5 * maximum_mean_discrepancy(noise.flatten(1), estimate.flatten(1))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    without = plain.training_loss(IMAGES, targets, torch.Generator().manual_seed(3))
    torch.testing.assert_close(without, (noise - seen[0][3]).square().mean(), rtol=1e-4, atol=1e-5)


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
