"""The feature prior against its formula (eq. 6)."""

from __future__ import annotations

import pytest
import torch
from factories import tiny_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion.losses import sample_training_noise
from diffmiczoo.inference.probabilities import score_logits
from diffmiczoo.metrics.calibration import fit_calibration
from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.nn.feature_prior import FeaturePrior


@pytest.mark.parametrize("weighting", ["softmax", "none"])
@pytest.mark.parametrize("norm", ["batchnorm", "none"])
def test_feature_prior_is_the_weighted_sum_of_its_columns(weighting: str, norm: str) -> None:
    config = DiffMICConfig(latent_dim=6, num_rois=2, feature_weighting=weighting, feature_norm=norm)
    prior = FeaturePrior(create_encoder("test_resnet", 64), create_encoder("test_resnet", 32), config).eval()
    images, rois = torch.randn(3, 3, 64, 64), torch.randn(3, 2, 3, 32, 32)
    weights = prior.Q.softmax(1) if weighting == "softmax" else prior.Q
    expected = weights[:, 0] * prior.raw_norm(prior.raw_proj(prior.raw_encoder(images).mean((2, 3))))
    for k in range(2):
        roi = prior.roi_norm(prior.roi_proj(prior.roi_encoder(rois[:, k]).mean((2, 3))))
        expected = expected + weights[:, k + 1] * roi
    torch.testing.assert_close(prior(images, rois), expected, rtol=1e-4, atol=1e-5)


def test_a_classifier_on_the_features_learns_beside_the_noise_loss() -> None:
    torch.manual_seed(0)
    plain, model = (tiny_model(feature_loss_weight=weight) for weight in (0.0, 2.0))
    model.load_state_dict(plain.state_dict(), strict=False)
    images, targets = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 1, 0])
    drawn = sample_training_noise(model.config, 4)
    for each in (plain, model):
        each.eval()
    condition = model.condition(images)
    assert plain.condition(images).feature_logits is None
    expected = condition.feature_prior @ model.feature_prior.classifier.weight.T + model.feature_prior.classifier.bias
    torch.testing.assert_close(condition.feature_logits, expected)
    losses = [each.training_loss(images, targets, drawn=drawn) for each in (plain, model)]
    torch.testing.assert_close(losses[1] - losses[0], 2 * torch.nn.functional.cross_entropy(expected, targets))
    losses[1].backward()
    assert model.feature_prior.classifier.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match=r"feature_loss_weight=2\.0 is for a diffusion; predictor='dcg'"):
        model.config.replace(predictor="dcg")
    with pytest.raises(ValueError, match="feature_loss_weight: shapes the weights"):
        model.config = model.config.replace(feature_loss_weight=0.0)
    model.config = model.config.replace(feature_loss_weight=1.0)
    with pytest.warns(UserWarning, match="feature_prior.classifier"):
        model.reset_classifier(5)
    assert model.condition(images).feature_logits.shape == (4, 5)


def test_the_classifier_on_the_features_is_a_member_of_the_pool() -> None:
    model = tiny_model(feature_loss_weight=1.0, temperature=0.5, prior_weight=(0.3, 0.1), feature_weight=0.7)
    model.trained = True
    pictures = torch.rand(3, 3, 64, 64)
    found = model.predict(pictures)
    condition = model.eval().condition(model.preprocess(pictures))
    torch.testing.assert_close(found.feature_logits, condition.feature_logits, atol=1e-4, rtol=1e-4)
    logits = score_logits(found.scores, model.config) / 0.5
    logits = logits + 0.3 * found.global_logits + 0.1 * found.local_logits + 0.7 * found.feature_logits
    torch.testing.assert_close(found.probs, logits.softmax(-1))
    assert found.to_dict()["images"][0]["feature_logits"].keys() == set(model.config.labels)
    half = model.bfloat16().predict(pictures).feature_logits
    torch.testing.assert_close(half, found.feature_logits, atol=0.1, rtol=0.1)
    # Fitted, each member gets its weight; a member that tells the classes gets one above 0.
    targets = torch.arange(600) % 2
    members = torch.randn(600, 3, 2, generator=torch.Generator().manual_seed(0))
    members[:, 2] += 2 * torch.eye(2)[targets]
    fields = fit_calibration(torch.rand(600, 2), members, targets, model.config)
    assert fields["feature_weight"] > 1 and max(fields["prior_weight"]) < 0.3
    assert model.config.replace(**fields).pool_weights == (*fields["prior_weight"], fields["feature_weight"])
    with pytest.raises(ValueError, match=r"feature_weight=0\.7 weighs a classifier on F"):
        model.config.replace(feature_loss_weight=0.0)
    assert model.config.uncalibrated().feature_weight == 0
