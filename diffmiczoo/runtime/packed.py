"""Matrix products and convolutions on CPUs whose weights are laid out once, not again in every call.

A product with few rows spends most of its time on laying out the weight: a 6144 × 6144 matrix and six rows take a sixth
of the time in float32 and half of it in bfloat16. Activations are applied as the result is written.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeGuard

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, pad_same
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn
from torch.nn.utils import skip_init

#: Activation → what oneDNN calls it, its numbers, its way to compute.
_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float], str]] = {
    nn.Identity: ("none", [], ""),
    nn.ReLU: ("relu", [], ""),
    nn.ReLU6: ("hardtanh", [0.0, 6.0], ""),
    nn.GELU: ("gelu", [], "none"),
}

# The layout that is best for this many rows serves few rows and thousands as well.
_ROWS = 192


def can_be_packed(device: torch.device, dtype: torch.dtype) -> bool:
    """Returns whether PyTorch takes packed weights of a type on this processor; False while tracing or compiling."""
    if device.type != "cpu" or torch.jit.is_tracing() or torch.compiler.is_compiling():
        return False
    return bool(torch.backends.mkldnn.enabled) and _works(dtype)


def matrix_product(weight: Tensor, packed: bool) -> Callable[[Tensor], Tensor]:
    """Returns x ↦ W x in the weight's type for W (out, in), of a packed one if that is asked for."""
    if packed:
        return PackedLinear(weight, None)
    return lambda x: F.linear(x.to(weight.dtype), weight)


def can_be_fused(activation: nn.Module) -> bool:
    """Returns whether `PackedLinear` and `PackedConv` apply an activation themselves."""
    return type(activation) in _ACTIVATIONS and getattr(activation, "approximate", "none") == "none"


@cache
def _works(dtype: torch.dtype) -> bool:
    """Tries packed weights; they are an internal of PyTorch, and some builds and processors lack them."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(8, 16, generator=generator).to(dtype)
    image = torch.rand(2, 16, 3, 3, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    # Weights of its own making: the global random state is the caller's.
    conv = skip_init(nn.Conv2d, 16, 8, 3, padding=1).requires_grad_(False).to(dtype)
    conv.weight.copy_(torch.rand(8, 16, 3, 3, generator=generator))
    conv.bias.copy_(torch.rand(8, generator=generator))
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            rows = image.permute(0, 2, 3, 1)
            product, wanted = PackedLinear(weight, None, nn.ReLU6())(rows), F.linear(rows, weight).clamp(0, 6)
            image_product, image_wanted = PackedConv(conv, nn.ReLU())(image), conv(image).relu()
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    pairs = ((product, wanted), (image_product, image_wanted))
    return all(torch.allclose(found, plain, rtol=tolerance, atol=tolerance) for found, plain in pairs)


class PackedLinear(nn.Module):
    """x ↦ activation(W x + b) for inference, (..., in) → (..., out) in the weight's type.

    Args:
        weight: W, (out, in), on the CPU; see `can_be_packed`.
        bias: b, (out,), or None.
        activation: see `can_be_fused`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.dtype = weight.dtype
        self.bias = None if bias is None else bias.detach()
        self.activation = _ACTIVATIONS[type(activation or nn.Identity())]
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), _ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., in), of any floating type, to (..., out)."""
        x = x if x.dtype == self.dtype else x.to(self.dtype)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.packed, self.bias, *self.activation)
        return y


class PackedConv(nn.Module):
    """x ↦ activation(conv(x)) for inference, (B, in, h, w) → (B, out, h', w') in the weight's type.

    Args:
        conv: see `is_plain_conv`; its weight on the CPU, see `can_be_packed`.
        activation: see `can_be_fused`.
    """

    def __init__(self, conv: nn.Conv2d, activation: nn.Module | None = None) -> None:
        super().__init__()
        activation = activation or nn.Identity()
        self.kernel, self.same = list(conv.kernel_size), isinstance(conv, Conv2dSame)
        self.padding = [0, 0] if self.same else list(conv.padding)
        self.stride, self.dilation, self.groups = list(conv.stride), list(conv.dilation), conv.groups
        self.dtype = conv.weight.dtype
        self.activation = _ACTIVATIONS[type(activation)]
        self.bias = None if conv.bias is None else conv.bias.detach()
        self.rows = _pointwise_as_linear(conv, activation)
        self.weight = conv.weight.detach() if self.rows is None else None
        # A convolution by groups has little to lay out, and the layout for one image is slow for others.
        if self.weight is not None and conv.groups == 1:
            self.weight = torch.ops.mkldnn._reorder_convolution_weight(
                self.weight, self.padding, self.stride, self.dilation, self.groups, []
            )
        is_depthwise = 1 < conv.groups == conv.in_channels and max(conv.dilation) == 1
        self.shifted_kernels = _asymmetric_pad_kernels(conv) if self.same and is_depthwise else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (B, in, h, w), of any floating type, to (B, out, h', w')."""
        y: Tensor
        if self.rows is not None:
            y = self.rows(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return y
        x = x if x.dtype == self.dtype else x.to(self.dtype)
        weight, padding = self.weight, self.padding
        if self.shifted_kernels is not None:
            left, right, top, bottom = pad_same_arg(list(x.shape[2:]), self.kernel, self.stride, self.dilation)
            weight, padding = self.shifted_kernels[bottom - top, right - left], [bottom, right]
        elif self.same:
            x = pad_same(x, self.kernel, self.stride, self.dilation)
        geometry = (padding, self.stride, self.dilation, self.groups)
        y = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *geometry, *self.activation)
        return y


def is_plain_conv(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Returns whether a module is a convolution that gains from a packed weight, without ways of its own."""
    if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, Conv2dSame):
        return False
    # oneDNN's layouts are slow for the large kernels that cut an image into patches.
    return module.padding_mode == "zeros" and not isinstance(module.padding, str) and max(module.kernel_size) <= 7


def _asymmetric_pad_kernels(conv: nn.Conv2d) -> dict[tuple[int, int], Tensor]:
    """Returns the kernel once for each (row, column) shift of TensorFlow's asymmetric "same" padding.

    "same" may pad one row or column more below and to the right than above and to the left; oneDNN pads evenly. Then
    the image is padded by the larger number on both sides, and the kernel grows by a row or column of zeros in front
    that falls on what is too much. That is less work than copying the image into a padded one:

        asked for   1 2 3 4 .      0 columns left, 1 right      kernel   a b c
        computed  . 1 2 3 4 .      1 column on both sides       kernel 0 a b c
    """
    shifts = [(row, column) for row in (0, 1) for column in (0, 1)]
    return {(row, column): F.pad(conv.weight.detach(), (column, 0, row, 0)) for row, column in shifts}


def _pointwise_as_linear(conv: nn.Conv2d, activation: nn.Module) -> PackedLinear | None:
    """Returns a 1 × 1 convolution as the matrix product that it is."""
    is_product = conv.kernel_size == (1, 1) and conv.stride == (1, 1) and conv.padding in ((0, 0), 0)
    if not is_product or conv.groups != 1:
        return None
    return PackedLinear(conv.weight.flatten(1), conv.bias, activation)
