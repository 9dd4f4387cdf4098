"""bfloat16 autocast that is fast on CPUs as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns the context of one forward pass: bf16 autocast, or none for "fp32".

    One pass, not an epoch: autocast keeps its bf16 copies of the weights until its context ends, so a context around
    several optimiser steps would compute with the weights of the first.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


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
