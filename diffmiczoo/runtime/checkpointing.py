"""Gradient checkpointing: an encoder's activations are computed again in the backward pass instead of being stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, images: Tensor, compute: Callable[[Tensor], Any] | None = None) -> Any:
    """Returns `compute(images)`, whose activations are computed again when gradients are taken.

    Gradients and running statistics are those of the usual forward pass: the second one does not count for BatchNorm.

    Args:
        module: holds the layers.
        images: what they are given.
        compute: what runs them; `module` itself by default.
    """
    return checkpoint(compute or module, images, use_reentrant=False, context_fn=partial(_contexts, module))


def set_checkpointing(model: nn.Module, enable: bool) -> bool:
    """Switches timm's own checkpointing, block by block, of a model that keeps no running statistics.

    timm's lets BatchNorm count each batch twice, so a model that has any is left to `checkpointed`.

    Returns:
        Whether the model does it itself.
    """
    switch: Callable[[bool], None] | None = getattr(model, "set_grad_checkpointing", None)
    if switch is None or any(isinstance(module, _BatchNorm) for module in model.modules()):
        return False
    switch(enable)
    return True


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_left_alone(module)


@contextmanager
def _statistics_left_alone(module: nn.Module) -> Iterator[None]:
    # Copying old values back would be an in-place change of what autograd has saved; a momentum of 0 is none.
    norms = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    momenta = [layer.momentum for layer in norms]
    counts = [None if layer.num_batches_tracked is None else layer.num_batches_tracked.clone() for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, momentum, count in zip(norms, momenta, counts, strict=True):
            layer.momentum = momentum
            if layer.num_batches_tracked is not None and count is not None:
                layer.num_batches_tracked.copy_(count)
