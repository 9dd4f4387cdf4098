"""Groups of images as numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffmiczoo.data.groups import group_numbers


@pytest.mark.parametrize(
    "groups", [["b", "a", "b", "c"], [7, 3, 7, 1], np.array([7, 3, 7, 1]), torch.tensor([7, 3, 7, 1])]
)
def test_groups_are_numbered_in_order_of_appearance(groups: object) -> None:
    numbers, count = group_numbers(groups)
    assert numbers.tolist() == [0, 1, 0, 2] and count == 3


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_an_image_without_a_group_is_refused(missing: float | None) -> None:
    with pytest.raises(ValueError, match="None or NaN"):
        group_numbers(["a", missing])


def test_no_images_have_no_groups() -> None:
    numbers, count = group_numbers([])
    assert numbers.shape == (0,) and count == 0
