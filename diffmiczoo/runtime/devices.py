"""Which device is meant by "auto", or by nothing."""

from __future__ import annotations

import torch


def as_device(device: str | torch.device | None) -> torch.device:
    """Returns a device by its name; "auto" is a GPU of CUDA where there is one, else the CPU, and None is the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device or "cpu")
