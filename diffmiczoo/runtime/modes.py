"""Contexts that leave a model and the random state as they found them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from diffmiczoo.runtime.module_walk import modules_of

Modes = list[tuple[nn.Module, bool]]

_changing = threading.Lock()

#: Model → how many contexts hold it in eval mode now, and what its modules were in before.
_inside: dict[nn.Module, tuple[int, Modes]] = {}


def seeded_generator(seed: int) -> torch.Generator:
    """Returns a generator on the CPU, where equal seeds give equal numbers on every machine."""
    return torch.Generator("cpu").manual_seed(seed)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts a model in eval mode, and every one of its modules back as found when the last thread is done with it."""
    with _changing:
        found = _modes(model)
        count, modes = _inside.get(model) or (0, found)
        _inside[model] = (count + 1, modes)
        # To set a mode takes long; mostly they all are in it.
        if any(mode for _, mode in found):
            model.eval()
    try:
        yield
    finally:
        with _changing:
            count, modes = _inside.pop(model)
            if count > 1:
                _inside[model] = (count - 1, modes)
            else:
                _restore(modes)


@contextmanager
def preserve_modes(model: nn.Module) -> Iterator[None]:
    """Puts every module of a model back into the mode, training or eval, that it was found in.

    By name: a module that took another's place (the schedule of a new config) takes its mode too.
    """
    modes = {name: module.training for name, module in model.named_modules()}
    try:
        yield
    finally:
        _restore([(module, modes.get(name, module.training)) for name, module in model.named_modules()])


def _modes(model: nn.Module) -> Modes:
    return [(module, module.training) for module in modules_of(model)]


def _restore(modes: Modes) -> None:
    for module, mode in modes:
        if module.training != mode:
            module.training = mode


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Runs a model in eval mode without gradients."""
    with eval_mode(model), torch.no_grad():
        yield
