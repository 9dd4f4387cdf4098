"""The denoising network against its formula (eq. 8)."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.unet import DenoisingUNet


@pytest.mark.parametrize("skip", [False, True])
def test_unet_is_the_formula(skip: bool) -> None:
    config = DiffMICConfig(
        num_classes=2, latent_dim=5, num_points=3, num_train_timesteps=10, sampling_steps=5, skip=skip
    )
    unet = DenoisingUNet(config).eval()
    y, guidance, feature = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.randn(4, 5)
    t = torch.randint(10, (4, 3, 3))
    out = unet(y, t, guidance, feature)
    for b, i, j in [(0, 0, 0), (2, 1, 2), (3, 2, 1)]:
        x, first = torch.cat([guidance[b, :, i, j], y[b, :, i, j]]), None
        for block in (unet.block1, unet.block2, unet.block3):
            x = block.gamma.weight[t[b, i, j]] * (block.conv.weight[:, :, 0, 0] @ x + block.conv.bias)
            norm = block.norm
            x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            x = F.softplus(x)
            if first is None:
                first, x = x, x * feature[b]
        x = x + first if skip else x
        expected = unet.out_conv.weight[:, :, 0, 0] @ x + unet.out_conv.bias
        torch.testing.assert_close(out[b, :, i, j], expected, rtol=1e-4, atol=1e-5)


def test_kernel_3_lets_points_exchange_information_and_kernel_1_does_not() -> None:
    for kernel, changes in ((1, False), (3, True)):
        config = DiffMICConfig(num_classes=2, latent_dim=5, num_points=4, kernel_size=kernel)
        unet = DenoisingUNet(config).eval()
        y, guidance, feature = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4), torch.randn(1, 5)
        t, other = torch.zeros(1, 4, 4, dtype=torch.long), y.clone()
        other[..., 0, 0] += 1
        difference = (unet(y, t, guidance, feature) - unet(other, t, guidance, feature))[..., 1:, 1:].abs().max()
        assert bool(difference > 0) is changes
