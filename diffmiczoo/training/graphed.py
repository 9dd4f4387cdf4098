"""`GraphedStep`: loss and gradients of a batch as one CUDA graph, for models that are smaller than their own launches.

Why: a training step of a small model is a thousand kernels of a few microseconds. Started from Python one by one they
leave the GPU idle for three quarters of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from diffmiczoo.diffusion.losses import TrainingNoise
from diffmiczoo.errors import warn
from diffmiczoo.runtime.cuda_graph import RECORDERS, graphs_allowed, recorded
from diffmiczoo.training.recipe import Recipe

#: What a step is given: images, labels, their weights, and the noise of the diffusion.
Batch = tuple[Tensor, Tensor, Tensor | None, TrainingNoise]


class GraphedStep:
    """Replays a step from a CUDA graph that is recorded when it is first called, and again for another kind of batch.

    Args:
        module: whose statistics of BatchNorm a recording must not change.
        compute: (size, *batch) → the loss, and with it gradients that were None before; it must not wait for the
            device. Called for recordings alone.
    """

    def __init__(self, module: nn.Module, compute: Callable[..., Tensor]) -> None:
        self.module, self.compute = module, compute
        self._replay: Callable[..., Tensor] | None = None
        self._key: Hashable = None
        self._failed = False

    def __call__(self, size: int | None, batch: Batch, seed: int) -> Tensor | None:
        """Returns the loss, with its gradients in place; None where this cannot be recorded.

        Args:
            size: pixels at which pictures are seen, None for the model's own.
            batch: of one shape, or it is recorded anew.
            seed: of what the step draws itself: dropout, stochastic depth.
        """
        key = (size, batch[0].shape, batch[2] is None)
        if not self._failed and key != self._key:
            self._record(key, size, batch)
            torch.manual_seed(seed)
        return None if self._replay is None else self._replay(*batch)

    def _record(self, key: Hashable, size: int | None, batch: Batch) -> None:
        # The gradients belong to the recording; one of another kind would write into others.
        self._replay, self._key = None, key
        try:
            with _kept_buffers(self.module):
                self._replay = recorded(partial(self.compute, size), batch)
        except RuntimeError as error:
            self._failed = True
            warn(f"this training cannot be recorded as a CUDA graph ({error}); it goes on without one")


@contextmanager
def _kept_buffers(module: nn.Module) -> Iterator[None]:
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            buffer.copy_(values)


def can_be_graphed(recipe: Recipe, device: torch.device, distributed: bool) -> bool:
    """Whether a recipe's steps can be recorded on a device, and may be (`graphs_allowed`)."""
    if device.type not in RECORDERS or distributed or not graphs_allowed():
        return False
    # What looks at values (the loss scale), adds up gradients, or compiles has a way of its own.
    return recipe.precision != "fp16" and recipe.accumulate == 1 and not recipe.compile
