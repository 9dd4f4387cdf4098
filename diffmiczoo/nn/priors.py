"""What the DCG says of images: both priors, the saliency map, its ROIs and their attention (eq. 1-3)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.dcg import DCG
from diffmiczoo.nn.roi import cells_to_pixels, crop_rois, roi_cells, roi_margin, select_roi_cells
from diffmiczoo.runtime.precision import full_precision

#: Windows whose saliency differs by less may change places with the batch; thirty times what was seen in float32.
TIE = 1e-4


def dcg_priors(dcg: DCG, config: DiffMICConfig, images: Tensor) -> dict[str, Tensor]:
    """Returns the fields of `Condition` that the DCG computes.

    Args:
        dcg: both streams, or the global one alone.
        config: the model's.
        images: (B, 3, S, S) float, as `preprocess` gives them.
    """
    return _with_rois(dcg, config, images, *dcg.global_stream(images))


def exact_priors(dcg: DCG, config: DiffMICConfig, images: Tensor) -> dict[str, Tensor]:
    """Does what `dcg_priors` does, in full precision also under autocast, with ROIs that do not depend on the batch.

    Labels start from the DCG's answers and probabilities add its logits: what is rounded there is averaged out nowhere.
    """
    with full_precision(images.device):
        return _with_rois(dcg, config, images, *_steady_global_stream(dcg, config, images))


def _steady_global_stream(dcg: DCG, config: DiffMICConfig, images: Tensor) -> tuple[Tensor, Tensor]:
    """Returns saliency and global prior such that the ROIs are those of each image alone.

    The order of sums in a convolution follows the batch's size. Where two windows are as salient as each other to
    within that, the choice would follow it too, so such images, about one in a hundred, are computed alone.
    """
    saliency, global_prior = dcg.global_stream(images)
    if len(images) == 1 or saliency.dtype != torch.float32:
        return saliency, global_prior
    close = roi_margin(saliency, config.num_rois, _window(config, saliency)) < TIE
    for row in close.nonzero().flatten().tolist():
        saliency[row : row + 1], global_prior[row : row + 1] = dcg.global_stream(images[row : row + 1])
    return saliency, global_prior


def _with_rois(
    dcg: DCG, config: DiffMICConfig, images: Tensor, saliency: Tensor, global_prior: Tensor
) -> dict[str, Tensor]:
    """Adds the ROIs that a saliency map (B, C, h, w) chooses, and what the local stream says of them."""
    cells = select_roi_cells(saliency.detach().float(), config.num_rois, _window(config, saliency))
    top_left = cells_to_pixels(cells, (saliency.shape[-2], saliency.shape[-1]), config.image_size)
    source = images if config.roi_channels == "rgb" else images[:, :1].expand(-1, 3, -1, -1)
    rois = crop_rois(source, top_left, config.roi_size)
    if config.predictor == "global":
        local_prior, attention = global_prior, torch.full_like(global_prior[:, :1], 1 / config.num_rois)
        attention = attention.expand(-1, config.num_rois)
    else:
        local_prior, attention = dcg.local_stream(rois)
    return {
        "global_prior": global_prior,
        "local_prior": local_prior,
        "saliency": saliency,
        "rois": rois,
        "roi_top_left": top_left,
        "roi_attention": attention,
    }


def _window(config: DiffMICConfig, saliency: Tensor) -> int:
    """Returns how many cells of a saliency map an ROI spans."""
    return roi_cells(config.roi_size, config.image_size, saliency.shape[-2])
