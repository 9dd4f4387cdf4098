"""Depthwise convolutions in bf16 whose gradients take the fastest way that a CPU has for each shape."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn


class _DepthwiseConv(torch.autograd.Function):
    """Forward and the gradient of the input in bf16, the gradient of larger kernels in fp32.

    The library's own bf16 gradients are several times slower than the fp32 ones in two places: of the input for a
    stride over 1, which here is a convolution of the gradient with zeros between its values; and of the weight for
    kernels larger than 3 × 3.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        x16 = x.to(torch.bfloat16)
        ctx.save_for_backward(x16, weight)
        ctx.stride, ctx.padding, ctx.dtype = stride, padding, x.dtype
        return F.conv2d(x16, weight.to(torch.bfloat16), None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, x, weight.to(torch.bfloat16), ctx.stride, ctx.padding).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _input_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    if stride == (1, 1):
        return _native(gradient, x, weight, stride, padding, of_x=True)
    kernel = weight.shape[2:]
    size = [x.shape[2 + axis] + 2 * padding[axis] - kernel[axis] + 1 for axis in range(2)]
    spread = gradient.new_zeros(len(gradient), *size, gradient.shape[1]).permute(0, 3, 1, 2)
    spread[:, :, :: stride[0], :: stride[1]] = gradient
    around = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
    return F.conv2d(spread, weight.flip(2, 3), None, 1, around, 1, x.shape[1])


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    dtype = torch.bfloat16 if max(weight.shape[2:]) <= 3 else torch.float32
    found = _native(gradient.to(dtype), x.to(dtype), weight.to(dtype), stride, padding, of_x=False)
    return found.to(weight.dtype)


def _native(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], of_x: bool
) -> Tensor:
    mask = [of_x, not of_x, False]
    shape = [list(stride), list(padding), [1, 1], False, [0, 0], x.shape[1]]
    gradients = torch.ops.aten.convolution_backward(gradient, x, weight, None, *shape, mask)
    found: Tensor = gradients[0 if of_x else 1]
    return found


@contextmanager
def fast_depthwise(model: nn.Module) -> Iterator[None]:
    """Lets the depthwise convolutions of a model compute in bf16 with gradients that are fast on CPUs.

    For training in bf16 under autocast on a CPU, where a whole EfficientNet is otherwise slower than in fp32. Grouped
    convolutions that are not depthwise stay in fp32 for the same reason.
    """
    grouped = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    for conv in grouped:
        forward = partial(_depthwise, conv) if _is_plain(conv) else partial(_in_fp32, conv.forward)
        conv.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in grouped:
            del conv.forward


def _is_plain(conv: nn.Conv2d) -> bool:
    depthwise = conv.groups == conv.in_channels == conv.out_channels
    usual = type(conv) in (nn.Conv2d, Conv2dSame) and conv.padding_mode == "zeros"
    return depthwise and usual and conv.dilation == (1, 1) and not isinstance(conv.padding, str)


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    padding: Any = conv.padding
    if isinstance(conv, Conv2dSame):
        x, padding = pad_same(x, list(conv.kernel_size), list(conv.stride), list(conv.dilation)), (0, 0)
    y: Tensor = _DepthwiseConv.apply(x, conv.weight, conv.stride, padding)
    return y if conv.bias is None else y + conv.bias.to(y.dtype)[:, None, None]


def _in_fp32(forward: Any, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = forward(x.float())
    return y
