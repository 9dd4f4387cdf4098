"""Stochastic depth of encoders while they are trained: blocks are skipped at random, more often the deeper they are.

Why by attribute: timm builds `DropPath` modules for a rate above 0 only, and a model's file says what it is, not how it
was trained. Every timm block calls what it has under these names, `Identity` or None where nothing is dropped, on
what it adds to its input. `DropPath` has no parameters and passes everything on in eval mode.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers import DropPath
from torch import nn

from diffmiczoo.errors import InvalidValueError

_NAMES = ("drop_path", "drop_path1", "drop_path2", "drop_path3")


def check_drop_path(encoders: Sequence[nn.Module], rate: float) -> None:
    """Raises where there is nothing in an encoder that could be dropped.

    Raises:
        ValueError: an encoder's blocks have no such place.
    """
    for encoder in encoders if rate else ():
        if not _blocks(encoder):
            inner = getattr(encoder, "model", encoder)
            name = type(getattr(inner, "model", inner)).__name__
            raise InvalidValueError(
                f"drop_path={rate} needs encoders whose blocks add to their input, and timm's {name} has none that can "
                "be skipped; set drop_path=0"
            )


@contextmanager
def dropped_paths(encoders: Sequence[nn.Module], rate: float) -> Iterator[None]:
    """Lets encoders in training mode skip blocks within the context, as timm's `drop_path_rate` does.

    Args:
        encoders: each gets rates that rise from 0 at the first block to `rate` at the last.
        rate: probability, 0..1; with 0 none is skipped.

    Source: Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016.
    """
    found: list[tuple[nn.Module, str, nn.Module | None]] = []
    for encoder in encoders:
        # At 0 too: timm builds some models, such as Swin, with a rate of their own.
        blocks = _blocks(encoder) if rate else _dropping(encoder)
        for (block, names), own in zip(blocks, torch.linspace(0, rate, len(blocks)).tolist(), strict=True):
            found += [(block, name, getattr(block, name)) for name in names]
            for name in names:
                setattr(block, name, DropPath(own).train(block.training))
    try:
        yield
    finally:
        for block, name, before in found:
            setattr(block, name, before)


def _dropping(encoder: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """Returns those of `_blocks` that are skipped as timm built them."""
    found = [
        (block, [name for name in names if isinstance(getattr(block, name), DropPath)])
        for block, names in _blocks(encoder)
    ]
    return [(block, names) for block, names in found if names]


def _blocks(encoder: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """Returns the blocks of an encoder that can be skipped, in order, and the names of what decides it."""
    blocks = []
    for module in encoder.modules():
        named = [(name, getattr(module, name)) for name in _NAMES if hasattr(module, name)]
        names = [name for name, held in named if held is None or isinstance(held, nn.Identity | DropPath)]
        if names:
            blocks.append((module, names))
    return blocks
