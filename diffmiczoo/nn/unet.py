"""Denoising U-Net ε_θ(y_t, M, F, t) over the grid of noise points (eq. 8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.runtime.settings import current


class TimestepConv(nn.Module):
    """Convolution, scaled per channel by the timestep embedding γ(t) of each noise point, BatchNorm, softplus.

    Shape: (B, in, Np, Np) → (B, out, Np, Np).
    """

    def __init__(self, in_channels: int, out_channels: int, config: DiffMICConfig) -> None:
        super().__init__()
        kernel = config.kernel_size
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.gamma = nn.Embedding(config.num_train_timesteps + 1, out_channels)
        nn.init.uniform_(self.gamma.weight)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Maps x (B, in, Np, Np) to (B, out, Np, Np); t is (B or 1, Np or 1, Np or 1) int64, 0..T."""
        scale = rearrange(self.gamma(t), "b i j h -> b h i j")
        return F.softplus(self.norm(scale * convolve(self.conv, x)))


def convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Returns `conv(x)`; with `Runtime.pointwise_as_linear` a 1 × 1 kernel is a matrix product."""
    if not current().pointwise_as_linear or conv.kernel_size != (1, 1):
        y: Tensor = conv(x)
        return y
    rows = F.linear(rearrange(x, "b c i j -> b i j c"), conv.weight.flatten(1), conv.bias)
    return rearrange(rows, "b i j c -> b c i j")


class DenoisingUNet(nn.Module):
    """Predicts the noise in y_t at every noise point.

    [M, y_t] → first block → times F → two blocks → last convolution. With `skip` the first block's activation is
    added to the third's; without guidance the first block sees y_t alone.
    """

    def __init__(self, config: DiffMICConfig) -> None:
        super().__init__()
        hidden, kernel = config.latent_dim, config.kernel_size
        self.skip = config.skip
        self.guided = config.guidance != "none"
        inputs = (2 if self.guided else 1) * config.num_classes
        self.block1 = TimestepConv(inputs, hidden, config)
        self.block2 = TimestepConv(hidden, hidden, config)
        self.block3 = TimestepConv(hidden, hidden, config)
        self.out_conv = nn.Conv2d(hidden, config.num_classes, kernel, padding=kernel // 2)

    def forward(self, y_t: Tensor, t: int | Tensor, guidance_map: Tensor, feature_prior: Tensor) -> Tensor:
        """Returns ε_θ(y_t, M, F, t), (B, C, Np, Np) (eq. 8).

        Args:
            y_t: (B, C, Np, Np), the noisy labels.
            t: 0..T-1: (B or 1, Np or 1, Np or 1) int64, the timestep of every noise point, or one for all of them. γ
                has a row more, T, as released checkpoints do; nothing uses it.
            guidance_map: M, (B, C, Np, Np).
            feature_prior: F, (B, H).
        """
        if isinstance(t, int):
            t = torch.full((1, 1, 1), t, device=y_t.device)
        first = self.block1(torch.cat([guidance_map, y_t], dim=1) if self.guided else y_t, t)
        hidden = self.block2(first * feature_prior[:, :, None, None], t)
        hidden = self.block3(hidden, t)
        return convolve(self.out_conv, hidden + first if self.skip else hidden)
