"""Windows of the saliency map against a plain loop (section III-A)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import tiny_model

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.roi import (
    cells_to_pixels,
    crop_rois,
    roi_cells,
    roi_evidence,
    roi_margin,
    select_roi_cells,
    whole_view,
)

SUM = DiffMICConfig()
NO_PRIOR = torch.empty(0)


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
    found = select_roi_cells(roi_evidence(saliency, NO_PRIOR, SUM), num_rois, cells)
    expected = np.stack([windows_by_loop(image.numpy(), num_rois, cells) for image in saliency])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_constant_saliency_gives_valid_windows() -> None:
    found = select_roi_cells(torch.zeros(2, 4, 4), 6, 2)
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
    evidence = torch.tensor([[1.0, 0.9, 0.4, 0.0], [1.0, 0.5, 0.49, 0.0], [1.0, 0.0, 0.0, 0.0]]).reshape(3, 2, 2)
    assert select_roi_cells(evidence, 2, 1)[:2].tolist() == [[[0, 0], [0, 1]]] * 2
    torch.testing.assert_close(roi_margin(evidence, 1, 1), torch.tensor([0.1, 0.5, 1.0]))
    # With two windows the second choice counts as well; where nothing salient is left, the first window is certain.
    torch.testing.assert_close(roi_margin(evidence, 2, 1), torch.tensor([0.1, 0.01, 1.0]))


def planted_sign(
    rng: np.random.Generator, strength: float = 25.0
) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    """Returns saliency and prior of a softmax classifier that sees one of four classes in one place: maps compete."""
    grid, sign = 10, 3
    logits = rng.normal(0, 0.05, (4, grid, grid))
    # Outside the sign every class is as likely as before; inside, the others lose what the one wins.
    row, column = rng.integers(0, grid - sign + 1, 2)
    seen = rng.integers(4)
    logits[:, row : row + sign, column : column + sign] -= strength / 5
    logits[seen, row : row + sign, column : column + sign] += strength + strength / 5
    saliency = torch.from_numpy(logits)[None]
    return saliency, saliency.mean((2, 3)), (int(row), int(column))


@pytest.mark.parametrize("rule", ["probability", "top", "spread"])
def test_rois_cover_a_planted_sign(rule: str) -> None:
    config = DiffMICConfig(roi_saliency=rule)
    for seed in range(20):
        saliency, prior, place = planted_sign(np.random.default_rng(seed))
        (found,) = select_roi_cells(roi_evidence(saliency, prior, config), 1, 3)[0].tolist()
        assert tuple(found) == place


@pytest.mark.parametrize(("rule", "found"), [("probability", False), ("top", True), ("spread", True)])
def test_a_sign_of_which_the_prior_is_not_sure(rule: str, found: bool) -> None:
    config, hits = DiffMICConfig(roi_saliency=rule), 0
    for seed in range(20):
        saliency, prior, place = planted_sign(np.random.default_rng(seed), strength=8.0)
        assert prior.softmax(1).max() < 0.55
        hits += tuple(select_roi_cells(roi_evidence(saliency, prior, config), 1, 3)[0, 0].tolist()) == place
    assert hits == 20 if found else hits <= 10


def test_the_published_rule_misses_a_sign_for_which_classes_compete() -> None:
    signs = [planted_sign(np.random.default_rng(seed)) for seed in range(20)]
    found = [select_roi_cells(roi_evidence(saliency, prior, SUM), 1, 3)[0, 0].tolist() for saliency, prior, _ in signs]
    assert sum(tuple(each) == place for each, (_, _, place) in zip(found, signs, strict=True)) <= 2


def test_evidence_of_each_rule() -> None:
    saliency = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]], [[8.0, 0.0], [4.0, 2.0]]]])
    prior = torch.tensor([[0.0, np.log(3.0)]])  # probabilities 1/4 and 3/4; sigmoids 1/2 and 3/4
    first, second = torch.tensor([[0, 0.25], [0.5, 1]]), torch.tensor([[1, 0], [0.5, 0.25]])
    expected = {
        ("sum", "multiclass"): first + second,
        ("probability", "multiclass"): first / 4 + second * 3 / 4,
        ("probability", "multilabel"): first / 2 + second * 3 / 4,
        ("top", "multiclass"): second,
        ("spread", "multiclass"): torch.tensor([[1.0, 0.0], [1 / 7, 1 / 7]]),  # of 4, .5, 1, 1
    }
    for (rule, task), evidence in expected.items():
        found = roi_evidence(saliency, prior, DiffMICConfig(roi_saliency=rule, task=task, num_classes=2))
        torch.testing.assert_close(found[0], evidence, msg=f"{rule} {task}")


def test_rois_are_cut_from_the_source_where_the_small_view_is_salient() -> None:
    model = tiny_model(roi_source_size=128, roi_size=32)
    config = model.config
    assert (config.image_size, config.input_size) == (64, 128)
    images = torch.rand(2, 3, 128, 128)
    priors = model.priors(images)
    assert priors.rois.shape == (2, config.num_rois, 3, 32, 32)
    whole = whole_view(images, config)
    assert whole.shape == (2, 3, 64, 64)
    torch.testing.assert_close(model.dcg.global_stream(whole)[1], priors.global_prior)
    torch.testing.assert_close(crop_rois(images, priors.roi_top_left, 32), priors.rois, rtol=0, atol=0)
    # The same picture without detail: the small view and so the places are those of the small model, times two.
    blown_up = torch.nn.functional.interpolate(whole, scale_factor=2, mode="nearest")
    small = tiny_model(roi_size=16)
    small.load_state_dict(dict(model.state_dict()))
    places = model.priors(blown_up).roi_top_left
    assert torch.equal(places, small.priors(whole_view(blown_up, config)).roi_top_left * 2)
    model.trained = True
    assert model.predict(torch.rand(2, 3, 200, 200)).rois.amax() <= 128


@pytest.mark.parametrize("rule", ["sum", "probability", "top", "spread"])
def test_an_exported_rule_takes_batches_of_any_size(rule: str) -> None:
    """With as many images as classes: a rule that counts rows would be taken for one that counts classes."""

    class Evidence(torch.nn.Module):
        def forward(self, saliency: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
            return roi_evidence(saliency, prior, DiffMICConfig(num_classes=3, roi_saliency=rule))

    generator = torch.Generator().manual_seed(0)
    saliency, prior = (torch.randn(shape, generator=generator) for shape in ((3, 3, 4, 4), (3, 3)))
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = {"saliency": {0: batch}, "prior": {0: batch}}
    program = torch.export.export(Evidence(), (saliency, prior), dynamic_shapes=shapes, strict=False).module()
    for rows in (slice(0, 1), slice(0, 2), slice(0, 3)):
        expected = Evidence()(saliency[rows], prior[rows])
        torch.testing.assert_close(program(saliency[rows], prior[rows]), expected, rtol=0, atol=0)
