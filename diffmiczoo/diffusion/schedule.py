"""Noise schedule and heterologous forward process (eq. 7).

Notation: `alphas_cumprod` is ᾱ_t of all t, as in diffusers, here as numbers and on a device as a tensor; `alpha_bar_t`
is a single one; `noise` is ε, drawn or estimated; `y_0` are clean labels; `mean` is what y_t ends at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError


class NoiseSchedule:
    """β linear from `beta_start` to `beta_end` over T timesteps, and ᾱ_t = Π (1 - β_s)."""

    def __init__(self, config: DiffMICConfig) -> None:
        self.num_train_timesteps = config.num_train_timesteps
        self.clip_sample = config.clip_sample
        self.process_mean = config.process_mean
        with torch.device("cpu"):
            betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)
            alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        # The sampler reads ᾱ on the host, the forward process on the device. No module with a buffer: it follows from
        # the config and has to stay float32 when the model is cast.
        self.alphas_cumprod: list[float] = alphas_cumprod.tolist()
        self._on_device = {torch.device("cpu"): alphas_cumprod}

    def add_noise(self, y_0: Tensor, noise: Tensor, t: Tensor, mean: Tensor | float = 0.0) -> Tensor:
        """Forward process y_t = √ᾱ_t · y_0 + (1 - √ᾱ_t) · mean + √(1 - ᾱ_t) · ε, a timestep per noise point (eq. 7).

        Args:
            y_0: (B, C, Np, Np), clean labels.
            noise: ε, same shape.
            t: (B, Np, Np) int64 in 0..T-1.
            mean: what the process ends at, 0 (eq. 7) or the guidance map (DiffMIC v1).
        """
        alpha_bar_t = self.alphas_cumprod_on(y_0.device)[t][:, None].to(y_0.dtype)
        return mean + alpha_bar_t.sqrt() * (y_0 - mean) + (1 - alpha_bar_t).sqrt() * noise

    def mean(self, guidance_map: Tensor) -> Tensor | float:
        """Returns what y_t ends at: 0 (eq. 7), or the guidance map with `process_mean="prior"` (DiffMIC v1)."""
        return guidance_map if self.process_mean == "prior" else 0.0

    def alphas_cumprod_on(self, device: torch.device) -> Tensor:
        """Returns ᾱ_t of all timesteps, (T,) float32, on a device; copied there once."""
        if device not in self._on_device:
            self._on_device[device] = self._on_device[torch.device("cpu")].to(device)
        return self._on_device[device]

    def timesteps(self, steps: int) -> list[int]:
        """Returns `steps` timesteps, evenly spaced and descending to 0.

        Raises:
            ValueError: `steps` is not within 1..T.
        """
        if not 1 <= steps <= self.num_train_timesteps:
            raise InvalidValueError(f"steps={steps} must be within 1..{self.num_train_timesteps}")
        stride = self.num_train_timesteps // steps
        return [index * stride for index in reversed(range(steps))]

    def predict_original_sample(self, y_t: Tensor, noise: Tensor, t: int, mean: Tensor | float = 0.0) -> Tensor:
        """Returns x̂_0, the clean labels that y_t and its noise stand for; clipped to [-1, 1] with `clip_sample`."""
        alpha_bar_t = self.alphas_cumprod[t]
        y_0 = mean + (y_t - mean - (1 - alpha_bar_t) ** 0.5 * noise) / alpha_bar_t**0.5
        return y_0.clamp(-1, 1) if self.clip_sample else y_0
