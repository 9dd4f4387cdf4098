"""`WeightAverage` against timm's own average."""

from __future__ import annotations

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from diffmiczoo.training.weight_average import WeightAverage


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4)])
def test_the_average_is_timms(norm: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.Conv2d(4, 2, 1))
    ours, theirs = WeightAverage(model, 0.9), ModelEmaV3(model, decay=0.9, use_warmup=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for step in range(1, 20):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        ours.update(model, step=step)
        theirs.update(model, step=step)
    found, wanted = ours.module.state_dict(), theirs.module.state_dict()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert int(found.get("1.num_batches_tracked", 19)) == 19
    assert not torch.equal(found["0.weight"], model[0].weight)
