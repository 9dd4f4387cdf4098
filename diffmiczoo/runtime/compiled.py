"""Temporarily replaces `forward` by its torch.compile version; state dict and copies are unaffected.

Why not `torch.compile(module)`: that wraps the module, which renames the keys of its state dict and is copied with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


class CompiledModules:
    """The compiled versions of some modules, each for itself.

    Args:
        modules: whose `forward` is compiled, the first time that it is called with inputs of a kind.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._forwards = [(module, torch.compile(module.forward)) for module in modules]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Lets the modules compute through what was compiled within this context."""
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
