"""Several processes train one model together, started by `torchrun` or `accelerate launch`; one is the plain case.

torch.distributed itself, not accelerate: a run needs one wrapper and four collectives, while devices, precision,
sampling, random numbers and checkpoints are its own.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.training.sampler import Rank


class Processes:
    """The processes of a run. A process group of the caller's is used as it is.

    Args:
        device: where the model is; with several processes on GPUs each computes on the one with its local rank.

    Attributes:
        rank: which process this is, of how many.
        device: what it computes on.
    """

    def __init__(self, device: torch.device) -> None:
        if not dist.is_available():
            self.rank, self.device = Rank(), device
            return
        if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            dist.init_process_group()
        self.rank = Rank(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Rank()
        if self.distributed and device.type == "cuda" and "LOCAL_RANK" in os.environ:
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        self.device = device

    @property
    def distributed(self) -> bool:
        """Whether there is more than this process."""
        return self.rank.world_size > 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank.rank == 0

    def prepare(self, module: nn.Module) -> nn.Module:
        """Returns a module whose gradients are averaged over all processes."""
        if not self.distributed:
            return module
        return DistributedDataParallel(module, device_ids=[self.device] if self.device.type == "cuda" else None)

    def no_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        """Returns a context in which the gradients of a prepared module stay in their process."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of a tensor over all processes, the same in each."""
        if not self.distributed:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total / self.rank.world_size

    def any(self, value: bool) -> bool:
        """Returns whether a value is true in one of the processes, the same in each."""
        return bool(self.mean(torch.tensor(float(value), device=self.device)) > 0) if self.distributed else value

    def shard(self, count: int) -> range:
        """Returns which of `count` validation images are this process's; shards are in order and do not overlap."""
        rank, world_size = self.rank.rank, self.rank.world_size
        return range(count * rank // world_size, count * (rank + 1) // world_size)

    def gather(self, rows: Tensor) -> Tensor:
        """Returns the rows of all processes, in order; no row is padded or counted twice."""
        if not self.distributed:
            return rows
        parts: list[Tensor] = [rows] * self.rank.world_size
        dist.all_gather_object(parts, rows.cpu())
        return torch.cat(parts)

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Gives all processes the buffers of rank 0: weights are equal in all, statistics of BatchNorm are not."""
        if self.distributed:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def check_same(self, what: str, value: str, advice: str) -> None:
        """Compares a value of all processes, before they learn from different things without a word.

        Args:
            what: it is, for the message.
            value: of this process.
            advice: what to do where they differ.

        Raises:
            ValueError: they differ, in every process.
        """
        if not self.distributed:
            return
        values: list[str] = [value] * self.rank.world_size
        dist.all_gather_object(values, value)
        other = next((rank for rank, each in enumerate(values) if each != values[0]), None)
        if other is not None:
            found = f"process 0 has {values[0][:24]}, process {other} has {values[other][:24]}"
            raise InvalidValueError(f"{what} differ between processes: {found}; {advice}")

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.distributed:
            dist.barrier()
