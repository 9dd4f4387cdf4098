"""Regions of interest: where the saliency map is strongest, cut out of the image (section III-A, after GMIC)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from diffmiczoo.config import DiffMICConfig


def whole_view(images: Tensor, config: DiffMICConfig) -> Tensor:
    """Returns what the streams that see the whole image are given: the squares at `image_size`, antialiased.

    Args:
        images: (B, c, R, R), R = `config.input_size`.
        config: reads `image_size` and `roi_source_size`.
    """
    if images.shape[-1] == config.image_size:
        return images
    size = (config.image_size, config.image_size)
    # In full precision also under autocast: the pixels are what everything follows from.
    small = F.interpolate(images.float(), size, mode="bilinear", align_corners=False, antialias=True)
    return small.to(images.dtype)


def roi_evidence(saliency: Tensor, global_prior: Tensor, config: DiffMICConfig) -> Tensor:
    """Adds the classes' saliency maps up to one map of where ROIs are to lie.

    "sum" is the published rule, made for classes that do not exclude each other: every map min-max normalised, then
    summed. Under a softmax the maps compete: where one class has its evidence the others have their minimum, and the
    sum hardly differs from place to place. "probability" weighs the normalised maps by the probabilities of the global
    prior, "top" takes that of the most probable class, and "spread" is the standard deviation over the classes of the
    logits themselves, min-max normalised.

    Args:
        saliency: (B, C, h, w) logits.
        global_prior: (B, C) logits.
        config: reads `roi_saliency` and `task`.

    Returns:
        (B, h, w) ≥ 0.
    """
    rule = config.roi_saliency
    if rule == "spread":
        return _normalised(saliency.std(1, correction=0, keepdim=True))[:, 0]
    maps = _normalised(saliency)
    if rule == "sum":
        return maps.sum(1)
    if rule == "top":
        # Rows by their numbers would fix the batch size of an exported program.
        chosen = global_prior.argmax(1)[:, None, None, None]
        return maps.gather(1, chosen.expand(-1, -1, *maps.shape[2:]))[:, 0]
    probs = global_prior.float().softmax(1) if config.task == "multiclass" else global_prior.float().sigmoid()
    return (probs[:, :, None, None] * maps).sum(1)


def _normalised(maps: Tensor) -> Tensor:
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def roi_cells(roi_size: int, image_size: int, grid_size: int) -> int:
    """Returns how many saliency cells a crop of `roi_size` pixels spans: round-half-even, at least 1, at most all."""
    # int: under tracing a tensor's shape is a tensor.
    return min(max(round(roi_size * int(grid_size) / image_size), 1), int(grid_size))


def select_roi_cells(evidence: Tensor, num_rois: int, cells: int) -> Tensor:
    """Finds the K windows with the highest mean evidence, each without what those before cover (section III-A).

    Args:
        evidence: (B, h, w) ≥ 0, as `roi_evidence` gives it.
        num_rois: K.
        cells: side of the window in saliency cells.

    Returns:
        (B, K, 2) int64: row and column of each window's top-left cell, strongest first.
    """
    return _strongest_windows(evidence, num_rois, cells)[0]


def roi_margin(evidence: Tensor, num_rois: int, cells: int) -> Tensor:
    """Returns by how much the chosen windows beat the next best, the least over the K choices, (B,) ≥ 0.

    In units of the evidence. Where it is below the float's noise, another order of sums may choose another window.
    Choices among windows that hold nothing any more are certain and count as 1.

    Args:
        evidence: (B, h, w) ≥ 0.
        num_rois: K.
        cells: side of the window in saliency cells.
    """
    _, means = _strongest_windows(evidence, num_rois, cells)
    return torch.stack([_lead(each) for each in means], dim=1).amin(1)


def _strongest_windows(evidence: Tensor, num_rois: int, cells: int) -> tuple[Tensor, list[Tensor]]:
    """Returns the K windows as `select_roi_cells` does, and the mean evidence of all that each was chosen from."""
    height, width = evidence.shape[-2:]
    total = evidence
    rows = torch.arange(height, device=evidence.device)[None, :, None]
    columns = torch.arange(width, device=evidence.device)[None, None, :]
    found, means = [], []
    # Each window depends on those before it, so this recurrence is the one loop; it stays on the device.
    for _ in range(num_rois):
        pooled = F.avg_pool2d(total[:, None], cells, stride=1)[:, 0]
        means.append(pooled.flatten(1))
        best = means[-1].argmax(1)
        row, column = best // pooled.shape[-1], best % pooled.shape[-1]
        below, right = rows - row[:, None, None], columns - column[:, None, None]
        inside = (below >= 0) & (below < cells) & (right >= 0) & (right < cells)
        total = total.masked_fill(inside, 0)
        found.append(torch.stack([row, column], dim=-1))
    return torch.stack(found, dim=1), means


def _lead(values: Tensor) -> Tensor:
    """Returns the largest value less the largest of the others, (B,); 1 where all are 0 or there is one."""
    best = values.argmax(1)[:, None]
    top = values.gather(1, best)[:, 0]
    others = values.scatter(1, best, -1).amax(1)
    return torch.where((top > 0) & (others >= 0), top - others, 1.0)


def cells_to_pixels(cells: Tensor, grid_size: tuple[int, int], image_size: int) -> Tensor:
    """Turns (..., 2) cell positions into pixels of a square, round(cell / grid · size), halves to even (section III-A).

    Integer arithmetic: the result is exact and needs no value from the host.
    """
    pixels = []
    for axis, grid in enumerate(grid_size):
        scaled = cells[..., axis] * image_size
        whole, rest = scaled // grid, scaled % grid * 2
        round_up = (rest > grid) | ((rest == grid) & (whole % 2 == 1))
        pixels.append(whole + round_up.to(whole.dtype))
    return torch.stack(pixels, dim=-1)


def crop_rois(images: Tensor, top_left: Tensor, roi_size: int) -> Tensor:
    """Cuts K squares out of every image (section III-A).

    A crop that would leave the image keeps its size: its picture part is moved to the bottom/right, and what is
    missing at the top/left is filled with the minimum of that image's channel.

    Args:
        images: (B, c, S, S).
        top_left: (B, K, 2) int64, row and column in pixels, each 0..S-1.
        roi_size: r, side of the square in pixels.

    Returns:
        (B, K, c, r, r)
    """
    rows, inside_rows = _source_index(top_left[..., 0], roi_size, images.shape[-2])
    columns, inside_columns = _source_index(top_left[..., 1], roi_size, images.shape[-1])
    batch = torch.arange(images.shape[0], device=images.device)
    crops = rearrange(images, "b c h w -> b h w c")[
        batch[:, None, None, None], rows[:, :, :, None], columns[:, :, None, :]
    ]
    inside = inside_rows[:, :, :, None] & inside_columns[:, :, None, :]
    fill = rearrange(_channel_minimum(images), "b c -> b 1 1 1 c")
    return rearrange(torch.where(inside[..., None], crops, fill), "b k h w c -> b k c h w")


def _channel_minimum(images: Tensor) -> Tensor:
    """Returns the smallest value of each channel, (B, c)."""
    if not images.is_contiguous(memory_format=torch.channels_last):
        return images.amin((2, 3))
    # Through memory in its order: on CPUs a thirtieth of the time.
    lines = rearrange(images, "b c h w -> b h (w c)").amin(1)
    return rearrange(lines, "b (w c) -> b w c", c=images.shape[1]).amin(1)


def _source_index(start: Tensor, roi_size: int, image_size: int) -> tuple[Tensor, Tensor]:
    """Returns which image row (or column) each crop row shows, (B, K, r), and whether it shows one at all."""
    offset = torch.arange(roi_size, device=start.device)
    overhang = (start + roi_size - image_size).clamp_min(0)
    index = (start - overhang)[..., None] + offset
    inside = offset >= overhang[..., None]
    return index.clamp(0, image_size - 1), inside
