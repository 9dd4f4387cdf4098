"""Windows of the saliency map against a plain loop (section III-A)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffmiczoo.nn.roi import cells_to_pixels, crop_rois, roi_cells, roi_margin, select_roi_cells


def windows_by_loop(saliency: np.ndarray, num_rois: int, cells: int) -> np.ndarray:
    """Greedy windows of one image, (K, 2), as the text describes them."""
    low, high = saliency.min((1, 2), keepdims=True), saliency.max((1, 2), keepdims=True)
    total = ((saliency - low) / (high - low)).sum(0)
    height, width = total.shape
    found = []
    for _ in range(num_rois):
        means = {
            (row, column): total[row : row + cells, column : column + cells].mean()
            for row in range(height - cells + 1)
            for column in range(width - cells + 1)
        }
        row, column = max(means, key=lambda cell: means[cell])
        total[row : row + cells, column : column + cells] = 0
        found.append((row, column))
    return np.array(found)


@pytest.mark.parametrize(("grid", "cells", "num_rois"), [(7, 1, 6), (7, 4, 4), (10, 3, 5), (3, 3, 1)])
def test_windows_are_those_of_the_plain_loop(grid: int, cells: int, num_rois: int) -> None:
    saliency = torch.from_numpy(np.random.default_rng(grid).normal(size=(4, 5, grid, grid)))
    found = select_roi_cells(saliency, num_rois, cells)
    expected = np.stack([windows_by_loop(image.numpy(), num_rois, cells) for image in saliency])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_constant_saliency_gives_valid_windows() -> None:
    found = select_roi_cells(torch.zeros(2, 3, 4, 4), 6, 2)
    assert found.min() >= 0 and found.max() <= 2


@pytest.mark.parametrize(
    ("roi", "image", "grid", "cells"), [(32, 224, 7, 1), (112, 224, 7, 4), (4, 224, 7, 1), (64, 64, 2, 2)]
)
def test_cells_of_a_crop(roi: int, image: int, grid: int, cells: int) -> None:
    assert roi_cells(roi, image, grid) == cells


@pytest.mark.parametrize(("grid", "image"), [(7, 224), (9, 144), (5, 150), (7, 100), (3, 64)])
def test_pixels_of_cells_are_rounded_like_numpy(grid: int, image: int) -> None:
    cells = torch.stack([torch.arange(grid), torch.arange(grid).flip(0)], dim=-1)
    expected = np.stack([np.round(np.arange(grid) * image / grid), np.round(np.arange(grid)[::-1] * image / grid)], -1)
    np.testing.assert_array_equal(cells_to_pixels(cells, (grid, grid), image).numpy(), expected)


@pytest.mark.parametrize("top_left", [(0, 0), (3, 5), (6, 2), (9, 9)])
def test_crops_shift_and_fill_what_lies_outside(top_left: tuple[int, int]) -> None:
    images = torch.randn(2, 3, 10, 10)
    size = 4
    crops = crop_rois(images, torch.tensor([[top_left]] * 2), size)
    row, column = top_left
    for image, crop in zip(images, crops[:, 0], strict=True):
        expected = image.amin((1, 2))[:, None, None].expand(3, size, size).clone()
        part = image[:, row : row + size, column : column + size]
        expected[:, size - part.shape[1] :, size - part.shape[2] :] = part
        torch.testing.assert_close(crop, expected, rtol=0, atol=0)


def test_margin_is_the_narrowest_of_the_choices() -> None:
    saliency = torch.tensor([[1.0, 0.9, 0.4, 0.0], [1.0, 0.5, 0.49, 0.0], [1.0, 0.0, 0.0, 0.0]]).reshape(3, 1, 2, 2)
    assert select_roi_cells(saliency, 2, 1)[:2].tolist() == [[[0, 0], [0, 1]]] * 2
    torch.testing.assert_close(roi_margin(saliency, 1, 1), torch.tensor([0.1, 0.5, 1.0]))
    # With two windows the second choice counts as well; where nothing salient is left, the first window is certain.
    torch.testing.assert_close(roi_margin(saliency, 2, 1), torch.tensor([0.1, 0.01, 1.0]))
