"""Which images make a batch."""

from __future__ import annotations

import torch

from diffmiczoo.training.sampler import BatchSampler, Rank, seed_of


def test_balanced_drawing_takes_all_classes_equally_often() -> None:
    targets = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    drawn = [index for batch in BatchSampler(targets, 10, "balanced", (3,)) for index, _ in batch]
    counts = torch.bincount(targets[drawn], minlength=3)
    assert len(drawn) == 1000 and (counts - 333).abs().max() < 60
    several = torch.tensor([[1.0, 0]] * 90 + [[0.0, 1]] * 9 + [[0.0, 0]])
    drawn = [index for batch in BatchSampler(several, 10, "balanced", (3,)) for index, _ in batch]
    rare = sum(90 <= index < 99 for index in drawn) / 100
    assert 0.2 < rare < 0.5


def test_seeds_depend_on_every_number_and_their_order() -> None:
    seeds = {seed_of(a, b, c) for a in range(4) for b in range(4) for c in range(4)}
    assert len(seeds) == 64 and all(0 <= seed < 2**63 for seed in seeds)


def test_batches_are_dealt_out_without_overlap() -> None:
    targets = torch.arange(20) % 3
    alone = list(BatchSampler(targets, 8, "shuffle", (0, 1)))
    parts = [list(BatchSampler(targets, 4, "shuffle", (0, 1), rank=Rank(rank, 2))) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == alone
    assert alone[1:] == list(BatchSampler(targets, 8, "shuffle", (0, 1), start=1))
    assert len({index for batch in alone for index, _ in batch}) == 16
