"""Depthwise convolutions in bf16 whose gradients take the fastest way that a CPU has for each shape.

Why: under autocast on CPUs an EfficientNet is otherwise slower than in fp32. Measured per layer, the library's bf16
gradient of the weight of a 5 × 5 depthwise kernel takes 14.7 ms where fp32 takes 3.4 and nine 3 × 3 tiles 1.1; the
gradient of the input is ten to a hundred times slower than the forward pass as soon as the stride is over 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same_arg
from torch import Tensor, nn

from diffmiczoo.runtime.settings import full_precision

#: Largest kernel whose weight gradient the library computes fast in bf16.
_TILE = 3


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution in bf16, forward and backward, with zeros around its input: left, right, top, bottom.

    The library's own bf16 gradients are ten to a hundred times slower than its forward pass in two places: of the input
    for a stride over 1, which here is a convolution of the gradient with zeros between its values; and of the weight
    for kernels larger than 3 × 3, which here is computed in tiles of that size.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int], around: tuple[int, int, int, int]
    ) -> Tensor:
        x16, padding = x.to(torch.bfloat16), (around[2], around[0])
        if not _is_even(around):
            x16, padding = _padded(x16, around), (0, 0)
        ctx.save_for_backward(x16, weight)
        ctx.stride, ctx.padding, ctx.around = stride, padding, around
        ctx.size, ctx.dtype = x.shape[2:], x.dtype
        return F.conv2d(x16, weight.to(torch.bfloat16), None, stride, padding, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        gradient = gradient.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _input_gradient(gradient, weight.to(torch.bfloat16), ctx.size, ctx.stride, ctx.around)
            of_x = of_x.to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(gradient, x, weight, ctx.stride, ctx.padding)
        return of_x, of_weight, None, None


def _is_even(around: tuple[int, int, int, int]) -> bool:
    return around[0] == around[1] and around[2] == around[3]


def _padded(x: Tensor, around: tuple[int, int, int, int]) -> Tensor:
    return F.pad(x, around).contiguous(memory_format=torch.channels_last)


def _input_gradient(
    gradient: Tensor,
    weight: Tensor,
    size: tuple[int, int],
    stride: tuple[int, int],
    around: tuple[int, int, int, int],
) -> Tensor:
    """Returns the gradient of an input of a size, as a convolution of the outputs' gradient with the mirrored kernel.

    With a stride, zeros go between the values, so that each lies where its window began:

        stride 2, kernel 3, padding 1    gradient a b c    spread 0 a 0 b 0 c 0 0    convolved: 6 values
    """
    before = (weight.shape[2] - 1 - around[2], weight.shape[3] - 1 - around[0])
    padding = before
    if stride != (1, 1) or not _is_even(around):
        rows, columns = (size[axis] + weight.shape[2 + axis] - 1 for axis in range(2))
        spread = gradient.new_zeros(len(gradient), rows, columns, gradient.shape[1]).permute(0, 3, 1, 2)
        height, width = gradient.shape[2] * stride[0], gradient.shape[3] * stride[1]
        places = spread[:, :, before[0] : before[0] + height : stride[0], before[1] : before[1] + width : stride[1]]
        places.copy_(gradient)
        gradient, padding = spread, (0, 0)
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, padding, 1, gradient.shape[1])


def _weight_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Returns the gradient of the kernel, computed in tiles of at most 3 × 3, the sizes for which the library is fast.

    A tile's gradient is that of a small kernel over the part of the input that the tile slides over:

        5 × 5 kernel    columns  0 1 2 3 4    tiles  [0 1 2] and [2 3 4], the same for rows; column 2 is written twice
    """
    kernel = tuple(weight.shape[2:])
    if max(kernel) <= _TILE:
        return _tile_gradient(gradient, x, kernel, stride, padding).to(weight.dtype)
    x = _padded(x, (padding[1], padding[1], padding[0], padding[0]))
    found = torch.empty_like(weight)
    tile = (min(_TILE, kernel[0]), min(_TILE, kernel[1]))
    seen = [stride[axis] * (gradient.shape[2 + axis] - 1) + tile[axis] for axis in range(2)]
    for row, column in product(*(_tile_starts(kernel[axis], tile[axis]) for axis in range(2))):
        part = x[:, :, row : row + seen[0], column : column + seen[1]].contiguous(memory_format=torch.channels_last)
        values = _tile_gradient(gradient, part, tile, stride, (0, 0))
        found[:, :, row : row + tile[0], column : column + tile[1]] = values
    return found


def _tile_starts(kernel: int, tile: int) -> list[int]:
    """Returns where tiles begin that cover a kernel; the last ends with it, over what another has covered."""
    return sorted({min(start, kernel - tile) for start in range(0, kernel, tile)})


def _tile_gradient(
    gradient: Tensor, x: Tensor, kernel: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    # Only its shape and type are looked at.
    weight = x.new_empty(x.shape[1], 1, *kernel)
    shape = [list(stride), list(padding), [1, 1], False, [0, 0], x.shape[1]]
    found: Tensor = torch.ops.aten.convolution_backward(gradient, x, weight, None, *shape, [False, True, False])[1]
    return found


@contextmanager
def fast_depthwise(model: nn.Module) -> Iterator[None]:
    """Lets the depthwise convolutions of a model compute in bf16 with gradients that are fast on CPUs.

    For training in bf16 under autocast on a CPU. Grouped convolutions that are not depthwise stay in fp32, whose
    gradients are the faster ones there. `forward` is replaced on the layers themselves because they are timm's: there
    is no place of ours where they are called.
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
    usual = type(conv) in (nn.Conv2d, Conv2dSame) and conv.padding_mode == "zeros" and conv.dilation == (1, 1)
    if not depthwise or not usual or isinstance(conv.padding, str):
        return False
    return all(zeros < size for zeros, size in zip(conv.padding, conv.kernel_size, strict=True))


def _depthwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    y: Tensor = _DepthwiseConv.apply(x, conv.weight, conv.stride, _zeros_around(conv, x))
    return y if conv.bias is None else y + conv.bias.to(y.dtype)[:, None, None]


def _zeros_around(conv: nn.Conv2d, x: Tensor) -> tuple[int, int, int, int]:
    if isinstance(conv, Conv2dSame):
        left, right, top, bottom = pad_same_arg(list(x.shape[2:]), list(conv.kernel_size), list(conv.stride))
        return left, right, top, bottom
    rows, columns = (int(zeros) for zeros in conv.padding)
    return columns, columns, rows, rows


def _in_fp32(forward: Any, x: Tensor) -> Tensor:
    with full_precision(x.device):
        y: Tensor = forward(x.float())
    return y
