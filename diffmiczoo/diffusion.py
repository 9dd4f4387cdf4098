"""Noise schedule, heterologous forward process and deterministic DDIM steps (eq. 7, 10; Algorithms 1-2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig


class NoiseSchedule(nn.Module):
    """β linear from `beta_start` to `beta_end` over T timesteps, and ᾱ_t = Π (1 - β_s)."""

    alphas_cumprod: Tensor

    def __init__(self, config: DiffMICConfig) -> None:
        super().__init__()
        self.num_train_timesteps = config.num_train_timesteps
        self.clip_sample = config.clip_sample
        with torch.device("cpu"):
            betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)
            alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        # The sampler reads ᾱ on the host, the forward process on the device; it follows from the config.
        self.alpha_table: list[float] = alphas_cumprod.tolist()
        self.register_buffer("alphas_cumprod", alphas_cumprod.to(torch.get_default_device()), persistent=False)

    def add_noise(self, y_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Forward process y_t = √ᾱ_t · y_0 + √(1 - ᾱ_t) · ε with a timestep per noise point (eq. 7).

        Args:
            y_0: (B, C, Np, Np), clean labels.
            noise: ε, same shape.
            t: (B, Np, Np) int64 in 0..T-1.
        """
        alpha = self.alphas_cumprod[t][:, None].to(y_0.dtype)
        return alpha.sqrt() * y_0 + (1 - alpha).sqrt() * noise

    def timesteps(self, steps: int) -> list[int]:
        """Returns the `steps` timesteps of the DDIM sampler, evenly spaced and descending to 0.

        Raises:
            ValueError: `steps` is not within 1..T.
        """
        if not 1 <= steps <= self.num_train_timesteps:
            raise ValueError(f"steps={steps} must be within 1..{self.num_train_timesteps}")
        stride = self.num_train_timesteps // steps
        return [index * stride for index in reversed(range(steps))]

    def ddim_step(self, y_t: Tensor, noise: Tensor, t: int, previous_t: int | None) -> Tensor:
        """One deterministic DDIM step (η = 0) from timestep `t` to `previous_t`; None means to the clean labels.

        x̂_0 is clipped to [-1, 1] where `clip_sample` is set; the direction keeps the network's own noise.
        """
        alpha = self.alpha_table[t]
        previous_alpha = 1.0 if previous_t is None else self.alpha_table[previous_t]
        y_0 = (y_t - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        if self.clip_sample:
            y_0 = y_0.clamp(-1, 1)
        return previous_alpha**0.5 * y_0 + (1 - previous_alpha) ** 0.5 * noise
