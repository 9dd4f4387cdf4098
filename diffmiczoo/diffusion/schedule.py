"""Noise schedule, heterologous forward process and deterministic DDIM steps (eq. 7, 10; Algorithms 1-2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig


class NoiseSchedule(nn.Module):
    """β linear from `beta_start` to `beta_end` over T timesteps, and ᾱ_t = Π (1 - β_s)."""

    def __init__(self, config: DiffMICConfig) -> None:
        super().__init__()
        self.num_train_timesteps = config.num_train_timesteps
        self.clip_sample = config.clip_sample
        with torch.device("cpu"):
            betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)
            alphas_cumprod = torch.cumprod(1 - betas, dim=0)
        # The sampler reads ᾱ on the host, the forward process on the device. No buffer: it follows from the config and
        # has to stay float32 when the model is cast.
        self.alpha_table: list[float] = alphas_cumprod.tolist()
        self._on_device = {torch.device("cpu"): alphas_cumprod}

    def add_noise(self, y_0: Tensor, noise: Tensor, t: Tensor, mean: Tensor | float = 0.0) -> Tensor:
        """Forward process y_t = √ᾱ_t · y_0 + (1 - √ᾱ_t) · mean + √(1 - ᾱ_t) · ε, a timestep per noise point (eq. 7).

        Args:
            y_0: (B, C, Np, Np), clean labels.
            noise: ε, same shape.
            t: (B, Np, Np) int64 in 0..T-1.
            mean: what the process ends at, 0 (eq. 7) or the guidance map (DiffMIC v1).
        """
        alpha = self.alphas_cumprod(y_0.device)[t][:, None].to(y_0.dtype)
        return mean + alpha.sqrt() * (y_0 - mean) + (1 - alpha).sqrt() * noise

    def alphas_cumprod(self, device: torch.device) -> Tensor:
        """Returns ᾱ_t of all timesteps, (T,) float32, on a device; copied there once."""
        if device not in self._on_device:
            self._on_device[device] = self._on_device[torch.device("cpu")].to(device)
        return self._on_device[device]

    def timesteps(self, steps: int) -> list[int]:
        """Returns the `steps` timesteps of the DDIM sampler, evenly spaced and descending to 0.

        Raises:
            ValueError: `steps` is not within 1..T.
        """
        if not 1 <= steps <= self.num_train_timesteps:
            raise ValueError(f"steps={steps} must be within 1..{self.num_train_timesteps}")
        stride = self.num_train_timesteps // steps
        return [index * stride for index in reversed(range(steps))]

    def predict_labels(self, y_t: Tensor, noise: Tensor, t: int, mean: Tensor | float = 0.0) -> Tensor:
        """Returns x̂_0, the clean labels that y_t and its noise stand for; clipped to [-1, 1] with `clip_sample`."""
        alpha = self.alpha_table[t]
        y_0 = mean + (y_t - mean - (1 - alpha) ** 0.5 * noise) / alpha**0.5
        return y_0.clamp(-1, 1) if self.clip_sample else y_0

    def ddim_step(
        self, y_t: Tensor, noise: Tensor, t: int, previous_t: int | None, mean: Tensor | float = 0.0
    ) -> Tensor:
        """One deterministic DDIM step (η = 0) from timestep `t` to `previous_t`; None means to the clean labels.

        The direction keeps the network's own noise, also where x̂_0 is clipped.

        Args:
            y_t: (B, C, Np, Np).
            noise: ε_θ, same shape.
            t: 0..T-1.
            previous_t: below t, or None.
            mean: what the process ends at, 0 or the guidance map.
        """
        alpha = 1.0 if previous_t is None else self.alpha_table[previous_t]
        y_0 = self.predict_labels(y_t, noise, t, mean)
        return mean + alpha**0.5 * (y_0 - mean) + (1 - alpha) ** 0.5 * noise

    def ancestral_step(
        self, y_t: Tensor, noise: Tensor, t: int, previous_t: int, fresh: Tensor, mean: Tensor | float = 0.0
    ) -> Tensor:
        """One draw from the posterior q(y_s | y_t, x̂_0), s = `previous_t`.

        With `mean` 0 it is DDPM's; with a mean f it is that of y - f, shifted back by f, which equals the posterior of
        CARD that DiffMIC (v1) takes over. Where timesteps are left out, α_t is ᾱ_t / ᾱ_s.

        Args:
            y_t: (B, C, Np, Np).
            noise: ε_θ, same shape.
            t: 1..T-1.
            previous_t: s, below t.
            fresh: standard normal draw, same shape.
            mean: what the process ends at, 0 or the guidance map.

        Source: Ho et al., *Denoising Diffusion Probabilistic Models*, 2020, eq. 6-7; Han et al., *CARD*, 2022, eq. 4-6.
        """
        alpha, previous_alpha = self.alpha_table[t], self.alpha_table[previous_t]
        ratio = alpha / previous_alpha
        to_clean = previous_alpha**0.5 * (1 - ratio) / (1 - alpha)
        to_noisy = ratio**0.5 * (1 - previous_alpha) / (1 - alpha)
        variance = (1 - ratio) * (1 - previous_alpha) / (1 - alpha)
        y_0 = self.predict_labels(y_t, noise, t, mean)
        return mean + to_clean * (y_0 - mean) + to_noisy * (y_t - mean) + variance**0.5 * fresh
