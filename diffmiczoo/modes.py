"""Contexts that leave a model and the random state as they found them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def seeded_generator(seed: int) -> torch.Generator:
    """Returns a generator on the CPU, where equal seeds give equal numbers on every machine."""
    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode and every one of its modules back as found."""
    with kept_modes(model):
        model.eval()
        yield


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Puts every module of a model back into the mode, training or eval, that it was found in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Runs a model in eval mode without gradients."""
    with evaluation_mode(model), torch.no_grad():
        yield
