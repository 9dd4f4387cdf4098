"""Modules that run through torch.compile for a while; nobody else notices, and nothing of it is saved or copied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class Compiled:
    """What torch.compile makes of some modules, each for itself.

    Args:
        modules: whose `forward` is compiled, the first time that it is called with inputs of a kind.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._forwards = [(module, torch.compile(module.forward)) for module in modules]

    @contextmanager
    def used(self) -> Iterator[None]:
        """Lets the modules compute through what was compiled, and leaves them as they were found."""
        found = [vars(module).get("forward") for module, _ in self._forwards]
        for module, forward in self._forwards:
            module.forward = forward
        try:
            yield
        finally:
            for (module, _), before in zip(self._forwards, found, strict=True):
                if before is None:
                    del module.forward
                else:
                    module.forward = before
