"""The feature prior against its formula (eq. 6)."""

from __future__ import annotations

import pytest
import torch

from diffmiczoo.config import DiffMICConfig
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
