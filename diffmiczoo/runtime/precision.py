"""Half precision for matrix products and convolutions, on CPUs as well, and 8-bit integers for the largest of them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from diffmiczoo.runtime.quantized import can_quantize

#: Name → type of matrix products and convolutions; "int8" is for the two largest of the U-Net, the rest is in bf16.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns a context of autocast, one that does nothing for "fp32".

    In training it is for one pass, not an epoch: autocast keeps its half-precision copies of the weights until its
    context ends, so a context around several optimiser steps would compute with the weights of the first.

    Args:
        precision: one of `PRECISIONS`.
        device: of the model.
    """
    dtype = torch.bfloat16 if precision == "int8" else PRECISIONS[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context that switches autocast off, where a device has it and it is on; recorded programs tell."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses a precision that there is not, or not on this device.

    Raises:
        ValueError: the message tells what there is.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not one of {', '.join(map(repr, PRECISIONS))}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision='fp16' is for GPUs; CPUs are faster and more exact with 'bf16'")
    if precision == "int8" and (device.type != "cpu" or not can_quantize()):
        raise ValueError("precision='int8' is for CPUs, with a PyTorch that multiplies integers; use 'bf16' here")
