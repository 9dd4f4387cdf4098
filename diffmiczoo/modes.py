"""Contexts that leave a model and the random state as they found them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from diffmiczoo.nn.walk import modules_of

_changing = threading.Lock()

#: Model → how many contexts hold it in eval mode now, and which of its modules trained before.
_inside: dict[nn.Module, tuple[int, list[nn.Module]]] = {}


def seeded_generator(seed: int) -> torch.Generator:
    """Returns a generator on the CPU, where equal seeds give equal numbers on every machine."""
    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode, and every one of its modules back as found when the last thread is done with it."""
    with _changing:
        count, training = _inside.get(model) or (0, [module for module in modules_of(model) if module.training])
        _inside[model] = (count + 1, training)
        if training:
            model.eval()
    try:
        yield
    finally:
        with _changing:
            count, training = _inside.pop(model)
            if count > 1:
                _inside[model] = (count - 1, training)
            else:
                _restore([(module, True) for module in training])


@contextmanager
def kept_modes(model: nn.Module) -> Iterator[None]:
    """Puts every module of a model back into the mode, training or eval, that it was found in."""
    modes = [(module, module.training) for module in modules_of(model)]
    try:
        yield
    finally:
        _restore(modes)


def _restore(modes: list[tuple[nn.Module, bool]]) -> None:
    for module, mode in modes:
        module.training = mode


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Runs a model in eval mode without gradients."""
    with evaluation_mode(model), torch.no_grad():
        yield
