"""BatchNorm whose statistics are those of the batches of all processes together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from diffmiczoo.errors import InvalidValueError

# Not torch.nn.SyncBatchNorm: it takes pictures on GPUs alone, and layers that became it are BatchNorm no more, so that
# encoders are not folded and timm's layers with an activation inside have to be rebuilt. These keep parameters, names
# and type, and evaluate as they did.


class SyncedBatchNorm1d(nn.BatchNorm1d):
    """BatchNorm over the batches of all processes while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C) or (B, C, L) to the same shape."""
        return synced_norm(self, x) if self.training else super().forward(x)


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm over the batches of all processes while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) to the same shape."""
        return synced_norm(self, x) if self.training else super().forward(x)


class SyncedBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNorm with its activation, over the batches of all processes while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) to the same shape."""
        found: Tensor = self.act(self.drop(synced_norm(self, x))) if self.training else super().forward(x)
        return found


#: Type of a layer → what it is while processes train together.
_SYNCED: dict[type[nn.Module], type[_BatchNorm]] = {
    nn.BatchNorm1d: SyncedBatchNorm1d,
    nn.BatchNorm2d: SyncedBatchNorm2d,
    BatchNormAct2d: SyncedBatchNormAct2d,
}


class _SumOfProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of all processes' gradients of it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum_of_processes(values: Tensor) -> Tensor:
    total: Tensor = _SumOfProcesses.apply(values)
    return total


def synced_norm(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Returns x (B, C, …) normalised by mean and variance over the batches of all processes, and updates `norm`'s own.

    Every process gives as many values. Gradients are those of the mean of all processes' losses once they are averaged,
    as `DistributedDataParallel` does.

    Source: Ioffe and Szegedy, *Batch Normalization* (ICML 2015), Algorithm 1, over the batch of all processes.
    """
    over = [0, *range(2, x.ndim)]
    shape = [1, -1] + [1] * (x.ndim - 2)
    values = x.float()
    processes = dist.get_world_size()
    mean = _sum_of_processes(values.mean(over)) / processes
    centred = values - mean.view(shape)
    # Of the centred values: the difference of two large means would lose what a small variance has of digits.
    variance = _sum_of_processes(centred.square().mean(over)) / processes
    count = processes * x.numel() / x.shape[1]
    _update_statistics(norm, mean.detach(), variance.detach() * (count / max(count - 1, 1)))
    found = centred * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        found = found * norm.weight.view(shape) + norm.bias.view(shape)
    return found.to(x.dtype)


@torch.no_grad()
def _update_statistics(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """Moves the running statistics as torch's BatchNorm does; its variance is the unbiased one."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked += 1
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_(variance.to(norm.running_var), momentum)


@contextmanager
def synced_norms(module: nn.Module, active: bool) -> Iterator[None]:
    """Lets every BatchNorm of a module take its statistics from all processes' batches; afterwards they are as before.

    Args:
        module: of the same structure in every process.
        active: False does nothing.

    Raises:
        ValueError: a BatchNorm is of a type that is not known here.
    """
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm)] if active else []
    before = [(norm, type(norm)) for norm in norms]
    unknown = next((kind for _, kind in before if kind not in _SYNCED), None)
    if unknown is not None:
        raise InvalidValueError(
            f"sync_batchnorm=True does not know layers of the type {unknown.__name__}; leave it out"
        )
    try:
        for norm, kind in before:
            norm.__class__ = _SYNCED[kind]
        yield
    finally:
        for norm, kind in before:
            norm.__class__ = kind
