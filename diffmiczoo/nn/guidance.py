"""Guidance map M: the priors of the DCG spread over a grid of noise points (eq. 4-5)."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from diffmiczoo.config import DiffMICConfig


def interpolation_weight(num_points: int, *, device: torch.device | None = None) -> Tensor:
    """Returns d_ij = |i - j| / (Np - 1), the weight of the second vector at every noise point (eq. 4).

    Shape: (Np, Np), values 0 on the diagonal to 1 in the far corners; all 0 for Np = 1.
    """
    return band_index(num_points, device=device).float() / max(num_points - 1, 1)


def band_index(num_points: int, *, device: torch.device | None = None) -> Tensor:
    """Returns |i - j| for every noise point, (Np, Np) int64: points of equal index share the same guidance."""
    points = torch.arange(num_points, device=device)
    return (points[:, None] - points[None, :]).abs()


def interpolate_over_points(diagonal: Tensor, corner: Tensor, num_points: int) -> Tensor:
    """Spreads two vectors over the noise points: (1 - d_ij) · diagonal + d_ij · corner (eq. 5).

    Args:
        diagonal: (..., C), the value on the diagonal: the global prior for the guidance map.
        corner: (..., C), the value in the two far corners: the local prior for the guidance map.
        num_points: Np.

    Returns:
        (..., C, Np, Np)
    """
    weight = interpolation_weight(num_points, device=diagonal.device).to(diagonal.dtype)
    diagonal, corner = (rearrange(vector, "... c -> ... c 1 1") for vector in (diagonal, corner))
    return (1 - weight) * diagonal + weight * corner


def build_guidance_map(global_prior: Tensor, local_prior: Tensor, config: DiffMICConfig) -> Tensor:
    """Builds M from both priors as `config.guidance` says: eq. 5 for "dense"; zeros for "none".

    Args:
        global_prior: ŷ_g, (B, C) logits.
        local_prior: ŷ_l, (B, C) logits.
        config: reads `guidance`, `prior_activation`, `task` and `num_points`.

    Returns:
        (B, C, Np, Np)
    """
    diagonal, corner = {
        "dense": (global_prior, local_prior),
        "fused": (0.5 * (global_prior + local_prior),) * 2,
        "global": (global_prior, global_prior),
        "local": (local_prior, local_prior),
        "none": (torch.zeros_like(global_prior),) * 2,
    }[config.guidance]
    if config.guidance != "none":
        diagonal, corner = _activate(diagonal, config), _activate(corner, config)
    return interpolate_over_points(diagonal, corner, config.num_points)


def _activate(prior: Tensor, config: DiffMICConfig) -> Tensor:
    activation = config.prior_activation
    if activation == "probs":
        activation = "softmax" if config.task == "multiclass" else "sigmoid"
    if activation == "softmax":
        return prior.softmax(-1)
    return prior.sigmoid() if activation == "sigmoid" else prior
