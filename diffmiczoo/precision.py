"""Half precision for matrix products and convolutions, on CPUs as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

#: Name → type of matrix products and convolutions.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns a context of autocast, one that does nothing for "fp32".

    In training it is for one pass, not an epoch: autocast keeps its half-precision copies of the weights until its
    context ends, so a context around several optimiser steps would compute with the weights of the first.

    Args:
        precision: one of `PRECISIONS`.
        device: of the model.
    """
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses a precision that there is not, or not on this device.

    Raises:
        ValueError: the message tells what there is.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not one of {', '.join(map(repr, PRECISIONS))}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision='fp16' is for GPUs; CPUs are faster and more exact with 'bf16'")


@contextmanager
def grouped_convolutions_in_fp32(model: nn.Module) -> Iterator[None]:
    """Keeps the grouped convolutions of a model in fp32 under autocast.

    For CPUs: the bf16 gradient of a depthwise convolution takes several times as long as the fp32 one there, which
    makes a whole EfficientNet slower in bf16 than in fp32.
    """
    grouped = [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
    for conv in grouped:
        conv.forward = partial(_in_fp32, conv.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for conv in grouped:
            del conv.forward


def _in_fp32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(x.float())
