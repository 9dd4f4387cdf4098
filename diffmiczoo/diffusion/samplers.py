"""Samplers: which timesteps are visited, and one step from y_t to y_s (Algorithm 2).

A new sampler is one class in this file, with `@register_sampler("its name")`; `DiffMICConfig.sampler` takes the name.
Notation: s = `prev_t` is the timestep after t in sampling order, None for the clean labels; ᾱ is
`schedule.alphas_cumprod`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor

from diffmiczoo.diffusion.schedule import NoiseSchedule
from diffmiczoo.errors import InvalidValueError


class Sampler(ABC):
    """What the sampling loop asks of a sampler.

    Args:
        schedule: of the forward process that it turns round.

    Attributes:
        needs_noise: whether `step` adds fresh noise in every step but the last.
    """

    needs_noise: ClassVar[bool] = False

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule

    def timesteps(self, steps: int) -> list[int]:
        """Returns the timesteps to visit, descending to 0; evenly spaced unless a sampler says otherwise.

        Raises:
            ValueError: `steps` is not within 1..T.
        """
        return self.schedule.timesteps(steps)

    @abstractmethod
    def step(
        self,
        y_t: Tensor,
        noise: Tensor,
        t: int,
        prev_t: int | None,
        mean: Tensor | float = 0.0,
        variance_noise: Tensor | None = None,
    ) -> Tensor:
        """Returns y_s.

        Args:
            y_t: (B, C, Np, Np).
            noise: ε_θ, same shape.
            t: 0..T-1.
            prev_t: s, below t; None for the clean labels.
            mean: what the forward process ends at, 0 or the guidance map.
            variance_noise: standard normal, same shape, where the sampler `needs_noise` and s is a timestep.
        """


_SAMPLERS: dict[str, type[Sampler]] = {}


def register_sampler(name: str) -> Callable[[type[Sampler]], type[Sampler]]:
    """Registers a sampler under a name.

    Raises:
        ValueError: the name is taken.
    """

    def register(sampler: type[Sampler]) -> type[Sampler]:
        if name in _SAMPLERS:
            raise InvalidValueError(f"a sampler called {name!r} is registered already")
        _SAMPLERS[name] = sampler
        return sampler

    return register


def create_sampler(name: str, schedule: NoiseSchedule) -> Sampler:
    """Builds a registered sampler.

    Raises:
        ValueError: there is no such sampler.
    """
    if name not in _SAMPLERS:
        near = difflib.get_close_matches(name, _SAMPLERS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(f"sampler={name!r} is not one of {', '.join(map(repr, _SAMPLERS))}{hint}")
    return _SAMPLERS[name](schedule)


@register_sampler("ddim")
class DDIM(Sampler):
    """Deterministic DDIM, η = 0: the same numbers from the same start (Algorithm 2).

    The direction keeps the network's own noise, also where x̂_0 is clipped.

    Source: Song et al., *Denoising Diffusion Implicit Models*, 2021, equation 12 there.
    """

    def step(
        self,
        y_t: Tensor,
        noise: Tensor,
        t: int,
        prev_t: int | None,
        mean: Tensor | float = 0.0,
        variance_noise: Tensor | None = None,
    ) -> Tensor:
        """Returns y_s = mean + √ᾱ_s · (x̂_0 - mean) + √(1 - ᾱ_s) · ε_θ."""
        alpha_bar_s = 1.0 if prev_t is None else self.schedule.alphas_cumprod[prev_t]
        y_0 = self.schedule.predict_original_sample(y_t, noise, t, mean)
        return mean + alpha_bar_s**0.5 * (y_0 - mean) + (1 - alpha_bar_s) ** 0.5 * noise


@register_sampler("ancestral")
class Ancestral(DDIM):
    """Draws from the posterior q(y_s | y_t, x̂_0) as DDPM does; the last step is DDIM's.

    With `mean` 0 it is DDPM's; with a mean f it is that of y - f, shifted back by f, which equals the posterior of CARD
    that DiffMIC (v1) takes over. Where timesteps are left out, α_t is ᾱ_t / ᾱ_s.

    Source: Ho et al., *Denoising Diffusion Probabilistic Models*, 2020, equations 6-7 there; Han et al.,
    *CARD*, 2022, equations 4-6 there.
    """

    needs_noise = True

    def step(
        self,
        y_t: Tensor,
        noise: Tensor,
        t: int,
        prev_t: int | None,
        mean: Tensor | float = 0.0,
        variance_noise: Tensor | None = None,
    ) -> Tensor:
        """Returns one draw of y_s."""
        if prev_t is None or variance_noise is None:
            return super().step(y_t, noise, t, prev_t, mean)
        alpha_bar_t, alpha_bar_s = self.schedule.alphas_cumprod[t], self.schedule.alphas_cumprod[prev_t]
        alpha_t = alpha_bar_t / alpha_bar_s
        to_clean = alpha_bar_s**0.5 * (1 - alpha_t) / (1 - alpha_bar_t)
        to_noisy = alpha_t**0.5 * (1 - alpha_bar_s) / (1 - alpha_bar_t)
        variance = (1 - alpha_t) * (1 - alpha_bar_s) / (1 - alpha_bar_t)
        y_0 = self.schedule.predict_original_sample(y_t, noise, t, mean)
        return mean + to_clean * (y_0 - mean) + to_noisy * (y_t - mean) + variance**0.5 * variance_noise
