"""The denoising U-Net as it is sampled from: γ(t), bias and BatchNorm folded into one scale and shift per step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmiczoo.nn.kept import KeptByWeights
from diffmiczoo.nn.unet import DenoisingUNet, TimestepConv


@dataclass(frozen=True)
class FoldedBlock:
    """One block: x ↦ softplus(scale_s · (W x) + shift_s) for step s; W (out, in), `scale` and `shift` (S, out)."""

    weight: Tensor
    scale: Tensor
    shift: Tensor

    def __call__(self, x: Tensor, step: int) -> Tensor:
        """Maps x (..., in) to (..., out)."""
        product = F.linear(x.to(self.weight.dtype), self.weight)
        return F.softplus(torch.addcmul(self.shift[step], product, self.scale[step]))


class FoldedUNet:
    """`DenoisingUNet` in eval mode with 1×1 kernels, for timesteps that all points share.

    Points never see each other through 1×1 kernels, so they are rows of matrices; only as many as differ have to be
    given.

    Args:
        unet: in eval mode, `kernel_size` 1.
        timesteps: of the sampler's S steps.
        dtype: of the matrix products; scales, shifts and what is added up stay in the U-Net's own type.
    """

    def __init__(self, unet: DenoisingUNet, timesteps: list[int], dtype: torch.dtype) -> None:
        t = torch.tensor(timesteps, device=unet.out_conv.weight.device)
        self.guided, self.skip, self.dtype = unet.guided, unet.skip, dtype
        self.blocks = [_folded(block, t, dtype) for block in (unet.block1, unet.block2, unet.block3)]
        self.out_weight, self.out_bias = _matrix(unet.out_conv, dtype), _bias(unet.out_conv)

    def __call__(self, y_t: Tensor, step: int, guidance: Tensor, feature_prior: Tensor) -> Tensor:
        """Returns ε_θ for P points, (N, P, C).

        Args:
            y_t: (N, P, C), the noisy labels.
            step: 0..S-1.
            guidance: M at these points, (N, P, C).
            feature_prior: F, (N, H).
        """
        first = self.blocks[0](torch.cat([guidance, y_t], dim=-1) if self.guided else y_t, step)
        hidden = self.blocks[1](first * feature_prior[:, None], step)
        hidden = self.blocks[2](hidden, step)
        hidden = hidden + first if self.skip else hidden
        return F.linear(hidden.to(self.dtype), self.out_weight).to(y_t.dtype) + self.out_bias


def folded_unet(unet: DenoisingUNet, timesteps: list[int], dtype: torch.dtype) -> FoldedUNet:
    """Returns `FoldedUNet(unet, timesteps, dtype)`; the last one of a U-Net is kept and used while nothing changes."""
    return _kept.get(unet, (tuple(timesteps), dtype), lambda: FoldedUNet(unet, timesteps, dtype), only=True)


_kept: KeptByWeights[FoldedUNet] = KeptByWeights()


def can_be_folded(unet: DenoisingUNet) -> bool:
    """Returns whether a U-Net is in eval mode with 1×1 kernels, and no gradient is asked for."""
    return not unet.training and unet.out_conv.kernel_size == (1, 1) and not torch.is_grad_enabled()


def _bias(conv: torch.nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise TypeError("a convolution without bias cannot be folded")
    return conv.bias.detach()


def _matrix(conv: torch.nn.Conv2d, dtype: torch.dtype) -> Tensor:
    return conv.weight.detach().flatten(1).to(dtype)


def _folded(block: TimestepConv, t: Tensor, dtype: torch.dtype) -> FoldedBlock:
    norm, gamma = block.norm, block.gamma(t).detach()
    if norm.running_var is None or norm.running_mean is None:
        raise TypeError("a block without running statistics cannot be folded")
    per_channel = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    scale = gamma * per_channel
    shift = scale * _bias(block.conv) + norm.bias.detach() - norm.running_mean * per_channel
    return FoldedBlock(_matrix(block.conv, dtype), scale, shift)
