"""Full precision that means on a GPU what it means on a CPU: TF32 switched off while the package computes in it.

Why: PyTorch lets convolutions on GPUs of Ampere and later round their factors to 10 bits (TF32) unless it is told not
to. Saliency then differs in the third digit, which is enough to choose other ROIs, and folded encoders look as if they
computed something else. Who prefers the speed sets `Runtime.tf32`, which leaves PyTorch's settings alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

_lock = threading.Lock()
_users = 0
_found: list[Any] = []


def without_tf32(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context whose products and convolutions are in full precision; it ends with the caller's settings.

    They are the whole process's, so that the first thread that enters stores them, and the last one that leaves
    restores them.
    """
    return _switched_off() if device.type == "cuda" else nullcontext()


@contextmanager
def _switched_off() -> Iterator[None]:
    _change(+1)
    try:
        yield
    finally:
        _change(-1)


def _change(by: int) -> None:
    global _users, _found
    with _lock:
        before, _users = _users, _users + by
        if before == 0:
            _found = [getattr(owner, name) for owner, name, _ in _settings()]
            for owner, name, off in _settings():
                setattr(owner, name, off)
        elif _users == 0:
            for (owner, name, _), value in zip(_settings(), _found, strict=True):
                setattr(owner, name, value)


def _settings() -> list[tuple[Any, str, Any]]:
    """Returns where the settings lie, what they are called, and their value for no TF32."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    # From 2.9 on, where reading the older names fails once somebody has used the newer ones.
    if hasattr(cudnn, "conv"):
        return [(owner, "fp32_precision", "ieee") for owner in (cudnn.conv, cudnn.rnn, matmul)]
    return [(cudnn, "allow_tf32", False), (matmul, "allow_tf32", False)]
