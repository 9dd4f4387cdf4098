"""The denoising U-Net as it is sampled from: γ(t), bias and BatchNorm folded into one scale and shift per step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffmiczoo.errors import InvalidTypeError
from diffmiczoo.nn.unet import DenoisingUNet, TimestepConv
from diffmiczoo.runtime.packed import can_be_packed, matrix_product
from diffmiczoo.runtime.precision import PRECISIONS
from diffmiczoo.runtime.quantized import QuantizedLinear
from diffmiczoo.runtime.settings import current
from diffmiczoo.runtime.weight_cache import WeightCache


@dataclass(frozen=True)
class FoldedBlock:
    """One block: x ↦ softplus(scale_s · (W x) + shift_s) for step s; `product` is W (out, in), the rest S × (out,)."""

    product: Callable[[Tensor], Tensor]
    scale: tuple[Tensor, ...]
    shift: tuple[Tensor, ...]

    def __call__(self, x: Tensor, step: int) -> Tensor:
        """Maps x (..., in) to (..., out)."""
        shift, scale, y = self.shift[step], self.scale[step], self.product(x)
        # In the product's own memory where it has the right type: writing elsewhere takes longer than computing.
        return softplus_(torch.addcmul(shift, y, scale, out=y if y.dtype == shift.dtype else None))


def softplus_(x: Tensor) -> Tensor:
    """Returns ln(1 + eˣ) of any shape, to within 1e-6 in float32; may overwrite x.

    On CPUs without `log1p`, which PyTorch's own uses: depending on which kernels ran before, some processors (AMD
    Zen 5) take ten times as long for it as for `log`.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return F.softplus(x)
    below = x.abs().sigmoid_().log_()
    return x.relu_().sub_(below)


class FoldedUNet:
    """`DenoisingUNet` in eval mode with 1×1 kernels, for timesteps that all points share.

    With t fixed, a block's γ(t) · (W x + b), then BatchNorm, is one scale and one shift of W x; both are computed once
    per step instead of in every call. Points never see each other through 1×1 kernels, so they are rows of matrices,
    and only as many as differ have to be given.

    Args:
        unet: in eval mode, `kernel_size` 1.
        timesteps: of the sampler's S steps.
        dtype: of the matrix products; scales, shifts and what is added up stay in the U-Net's own type. With int8 it is
            that of those between hidden layers, and the others' is bfloat16.
        packed: lay out the weights once.
    """

    def __init__(self, unet: DenoisingUNet, timesteps: list[int], dtype: torch.dtype, packed: bool = False) -> None:
        t = torch.tensor(timesteps, device=unet.out_conv.weight.device)
        self.step_of = {timestep: step for step, timestep in enumerate(timesteps)}
        self.guided, self.skip = unet.guided, unet.skip
        self.blocks = [_folded(block, t, dtype, packed) for block in (unet.block1, unet.block2, unet.block3)]
        self.out_product, self.out_bias = _product(unet.out_conv, dtype, packed), _bias(unet.out_conv)

    def __call__(self, y_t: Tensor, t: int, guidance_map: Tensor, feature_prior: Tensor) -> Tensor:
        """Returns ε_θ(y_t, M, F, t), (B, C, h, w), as `DenoisingUNet` does (eq. 8).

        Args:
            y_t: (B, C, h, w), the noisy labels at any grid of noise points; channels last, rows of points are a view.
            t: one of the timesteps.
            guidance_map: M at these points, (B, C, h, w).
            feature_prior: F, (B, H).
        """
        step = self.step_of[t]
        rows = _rows(y_t)
        first = self.blocks[0](torch.cat([_rows(guidance_map), rows], dim=-1) if self.guided else rows, step)
        hidden = self.blocks[1](first * feature_prior[:, None], step)
        hidden = self.blocks[2](hidden, step)
        hidden = hidden + first if self.skip else hidden
        noise: Tensor = self.out_product(hidden).to(y_t.dtype) + self.out_bias
        return noise.transpose(1, 2).unflatten(2, y_t.shape[2:])


def _rows(grid: Tensor) -> Tensor:
    """Returns noise points (B, C, h, w) as rows of matrices, (B, h · w, C)."""
    return grid.flatten(2).transpose(1, 2)


def folded_unet(unet: DenoisingUNet, timesteps: list[int]) -> FoldedUNet:
    """Returns a `FoldedUNet` as the current `Runtime` asks; a U-Net's last one is cached while no weight changes."""
    runtime = current()
    dtype = unet.out_conv.weight.dtype if runtime.half is None else PRECISIONS[runtime.precision]
    packed = runtime.pack and can_be_packed(unet.out_conv.weight.device, runtime.half or dtype)
    key = (tuple(timesteps), dtype, packed)
    return _cache.get(unet, key, lambda: FoldedUNet(unet, timesteps, dtype, packed), only=True)


_cache: WeightCache[FoldedUNet] = WeightCache()


def can_be_folded(unet: DenoisingUNet) -> bool:
    """Returns whether a U-Net is in eval mode with 1×1 kernels, and no gradient is asked for."""
    return not unet.training and unet.out_conv.kernel_size == (1, 1) and not torch.is_grad_enabled()


def _bias(conv: torch.nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise InvalidTypeError("a convolution without bias cannot be folded")
    return conv.bias.detach()


def _product(conv: torch.nn.Conv2d, dtype: torch.dtype, packed: bool) -> Callable[[Tensor], Tensor]:
    weight = conv.weight.detach().flatten(1)
    if dtype != torch.int8:
        return matrix_product(weight.to(dtype), packed)
    # Labels and noise go in and come out of the others, which are small.
    is_hidden = conv.in_channels == conv.out_channels
    return QuantizedLinear(weight) if is_hidden else matrix_product(weight.bfloat16(), packed)


def _folded(block: TimestepConv, t: Tensor, dtype: torch.dtype, packed: bool) -> FoldedBlock:
    norm, gamma = block.norm, block.gamma(t).detach()
    if norm.running_var is None or norm.running_mean is None:
        raise InvalidTypeError("a block without running statistics cannot be folded")
    per_channel = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
    scale = gamma * per_channel
    shift = scale * _bias(block.conv) + norm.bias.detach() - norm.running_mean * per_channel
    return FoldedBlock(_product(block.conv, dtype, packed), scale.unbind(), shift.unbind())
