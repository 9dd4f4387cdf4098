"""Half precision for matrix products and convolutions, on CPUs as well, and 8-bit integers for the largest of them."""

from __future__ import annotations

import torch

from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.runtime.quantized import can_quantize

#: Name → type of matrix products and convolutions; "int8" is for the two largest of the U-Net, the rest is in bf16.
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Returns a context of autocast; for "fp32" one that disables it.

    In training it is for one pass, not an epoch: autocast keeps its half-precision copies of the weights until its
    context ends, so a context around several optimiser steps would compute with the weights of the first.

    Args:
        precision: one of `PRECISIONS`.
        device: of the model.
    """
    dtype = torch.bfloat16 if precision == "int8" else PRECISIONS[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def is_slow(precision: str, device: torch.device) -> bool:
    """Whether a GPU has no units for bf16: they came with compute capability 8.0 (Ampere)."""
    return precision == "bf16" and device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuses a precision that does not exist, or not on this device.

    Raises:
        ValueError: the message names those that do.

    Warns:
        UserWarning: the device has it, and slowly.
    """
    if precision not in PRECISIONS:
        raise InvalidValueError(f"precision={precision!r} is not one of {', '.join(map(repr, PRECISIONS))}")
    if precision == "fp16" and device.type == "cpu":
        raise InvalidValueError("precision='fp16' is for GPUs; CPUs are faster and more exact with 'bf16'")
    if is_slow(precision, device):
        warn("precision='bf16' is slow on this GPU, which has no units for it; 'fp16' is fast there")
    if precision == "int8" and (device.type != "cpu" or not can_quantize()):
        raise InvalidValueError(
            "precision='int8' is for CPUs, with a PyTorch that multiplies integers; use 'bf16' here"
        )
