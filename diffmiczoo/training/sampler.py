"""Which images are in which batch: the same on every machine, for any number of processes, from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler


def seed_of(*numbers: int) -> int:
    """Returns a seed for torch, 0..2⁶³-1, that depends on all numbers (≥ 0) and their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(frozen=True)
class Rank:
    """Which of several processes this is: `rank` 0..`world_size` - 1."""

    rank: int = 0
    world_size: int = 1

    def slice(self, batch: int) -> tuple[int, int]:
        """Returns where this process's `batch` images start and end in the batch of all processes."""
        return self.rank * batch, (self.rank + 1) * batch


class BatchSampler(Sampler[list[tuple[int, int]]]):
    """The batches of one epoch, as lists of (index, seed of its augmentation).

    An epoch is drawn for all processes together and then divided among them, so that two processes see in a step what
    one would see with the doubled batch. The order depends on the seeds alone: a run can resume at any batch.

    Args:
        targets: (N,) class numbers, or (N, C) of 0 and 1.
        batch_size: images of one process.
        sampling: "shuffle" takes every image once and drops an incomplete last batch; "balanced" draws with
            replacement, all classes equally often.
        seeds: what the epoch's order depends on.
        start: batches of the epoch that are done already.
        rank: of this process.
    """

    def __init__(
        self,
        targets: Tensor,
        batch_size: int,
        sampling: str,
        seeds: tuple[int, ...],
        start: int = 0,
        rank: Rank | None = None,
    ) -> None:
        self.targets, self.batch_size, self.sampling, self.seeds = targets, batch_size, sampling, seeds
        self.start, self.rank = start, rank or Rank()

    def __len__(self) -> int:
        return batches_per_epoch(len(self.targets), self.batch_size, self.rank) - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, size = self._order(), self.batch_size * self.rank.world_size
        start, stop = self.rank.slice(self.batch_size)
        for batch in range(self.start, self.start + len(self)):
            places = range(batch * size + start, batch * size + stop)
            yield [(order[place], seed_of(*self.seeds, place)) for place in places]

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(*self.seeds))
        count = len(self.targets)
        if self.sampling == "shuffle":
            order = torch.randperm(count, generator=generator)
        else:
            order = torch.multinomial(_sampling_weights(self.targets), count, replacement=True, generator=generator)
        return order.tolist()


def batches_per_epoch(images: int, batch_size: int, rank: Rank) -> int:
    """Returns how many whole batches all processes together take from a number of images."""
    return images // (batch_size * rank.world_size)


def _sampling_weights(targets: Tensor) -> Tensor:
    """Returns how often an image is drawn, (N,): 1 / images of its class, or of the rarest of its labels."""
    if targets.ndim == 1:
        return 1 / torch.bincount(targets).double()[targets]
    frequency = targets.sum(0).double().clamp(min=1)
    without = (targets.sum(1) == 0).double()
    rarest = (targets / frequency).amax(1)
    return rarest + without / without.sum().clamp(min=1)
