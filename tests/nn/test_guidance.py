"""The guidance map against its formula (eq. 4-5)."""

from __future__ import annotations

import pytest
import torch

import diffmiczoo
from diffmiczoo.nn.guidance import band_index, interpolate_over_points


def test_guidance_map_is_the_formula() -> None:
    diagonal, corner, points = torch.randn(2, 3), torch.randn(2, 3), 4
    guidance = interpolate_over_points(diagonal, corner, points)
    for i in range(points):
        for j in range(points):
            d = abs(i - j) / (points - 1)
            torch.testing.assert_close(guidance[:, :, i, j], (1 - d) * diagonal + d * corner)
    torch.testing.assert_close(interpolate_over_points(diagonal, corner, 1)[:, :, 0, 0], diagonal)
    assert band_index(3).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]


@pytest.mark.parametrize("fields", [{"init": "guided"}, {"process_mean": "prior"}, {"mmd_weight": 0.5}])
def test_nothing_can_need_a_guidance_map_that_is_not_there(fields: dict) -> None:
    with pytest.raises(ValueError, match="needs a guidance map, but guidance is 'none'"):
        diffmiczoo.DiffMICConfig(guidance="none", **fields)
