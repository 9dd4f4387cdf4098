"""The noise that all predictions of a model start from: part of its weights, so that no generator can change them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.diffusion import sampling
from diffmiczoo.diffusion.samplers import Sampler, create_sampler
from diffmiczoo.diffusion.schedule import NoiseSchedule
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.runtime.modes import seeded_generator

#: More numbers are not stored, only their digest; the paper's size has 252 for a run.
MOST_STORED = 65_536

_FIELDS = {"kind", "torch", "sha256", "shape", "step_shape", "numbers"}


@dataclass(frozen=True)
class StartNoise:
    """The fixed noise of a model, or its digest where it is too much to be stored.

    Attributes:
        kind: what it was drawn for, see `noise_kind`.
        torch: version of torch that drew it.
        sha256: of the numbers.
        noise: float32 on the CPU, B = 1; None where the digest alone is known.
    """

    kind: str
    torch: str
    sha256: str
    noise: sampling.SamplingNoise | None

    @classmethod
    def of(cls, config: DiffMICConfig, sampler: Sampler) -> StartNoise:
        """Draws the noise of a model that has none yet, with torch's generator."""
        noise = sampling.fixed_noise(config, sampler)
        return cls(noise_kind(config, sampler), torch.__version__, _digest(noise), noise)

    def to_text(self) -> str:
        """Returns the JSON text that `from_text` reads, with the numbers where they are at most `MOST_STORED`."""
        numbers = None if self.noise is None else _bytes(self.noise)
        if numbers is not None and len(numbers) > 4 * MOST_STORED:
            numbers = None
        step = None if self.noise is None else self.noise.step_noise
        values = {
            "kind": self.kind,
            "torch": self.torch,
            "sha256": self.sha256,
            "shape": None if self.noise is None else list(self.noise.initial.shape),
            "step_shape": None if step is None else list(step.shape),
            "numbers": None if numbers is None else base64.b64encode(numbers).decode("ascii"),
        }
        return json.dumps(values)

    @classmethod
    def from_text(cls, text: str) -> StartNoise:
        """Reads what `to_text` wrote.

        Raises:
            ValueError: it is something else, or the numbers are not those of the digest.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.keys() != _FIELDS:
                raise InvalidValueError(f"expected an object with the fields {sorted(_FIELDS)}")
            noise = None
            if values["numbers"] is not None:
                content = base64.b64decode(values["numbers"], validate=True)
                noise = _from_bytes(content, values["shape"], values["step_shape"])
        except (ValueError, TypeError, binascii.Error) as error:
            raise InvalidValueError(f"the start noise of the weights cannot be read: {error}") from error
        if noise is not None and _digest(noise) != values["sha256"]:
            raise InvalidValueError(
                f"the start noise of the weights has sha256 {_digest(noise)}, expected {values['sha256']}; the file "
                "was changed"
            )
        return cls(str(values["kind"]), str(values["torch"]), str(values["sha256"]), noise)

    def numbers(self, config: DiffMICConfig, sampler: Sampler) -> sampling.SamplingNoise:
        """Returns the numbers: those that are stored, or drawn anew and compared with the digest.

        Raises:
            ValueError: torch draws other numbers than it did.
        """
        if self.noise is not None:
            return self.noise
        drawn = sampling.fixed_noise(config, sampler)
        if (found := _digest(drawn)) != self.sha256:
            raise InvalidValueError(
                f"torch {torch.__version__} draws another start noise (sha256 {found[:12]}…) than the one that belongs "
                f"to these weights ({self.sha256[:12]}…, drawn by torch {self.torch}), so that they would predict "
                f"something else; load them with torch {self.torch}"
            )
        return drawn


def noise_kind(config: DiffMICConfig, sampler: Sampler) -> str:
    """Says what fixed noise is drawn for; noise of the same kind is the same."""
    how = "interpolated" if config.init == "interpolated" else "bands" if config.shared_noise else "points"
    steps = f", {config.sampling_steps} steps" if sampler.needs_noise else ""
    sizes = f"{config.num_samples} runs, {config.num_classes} classes, {config.num_points} x {config.num_points} points"
    return f"{how}: {sizes}{steps}"


def _bytes(noise: sampling.SamplingNoise) -> bytes:
    parts = [noise.initial] if noise.step_noise is None else [noise.initial, noise.step_noise]
    return b"".join(part.detach().float().cpu().contiguous().numpy().astype("<f4").tobytes() for part in parts)


def _digest(noise: sampling.SamplingNoise) -> str:
    return hashlib.sha256(_bytes(noise)).hexdigest()


def _from_bytes(content: bytes, shape: list[int], step_shape: list[int] | None) -> sampling.SamplingNoise:
    numbers = torch.from_numpy(np.frombuffer(content, dtype="<f4").astype(np.float32))
    first, step = int(np.prod(shape)), 0 if step_shape is None else int(np.prod(step_shape))
    if len(numbers) != first + step:
        raise InvalidValueError(f"{len(numbers)} numbers for the shapes {shape} and {step_shape}")
    initial, rest = numbers.split([first, step])
    return sampling.SamplingNoise(initial.reshape(shape), None if step_shape is None else rest.reshape(step_shape))


class FixedNoise(nn.Module):
    """A model whose predictions start from its own noise.

    Attributes:
        config: what it is.
        schedule: of the diffusion.
        start_noise: what came with its weights; None where they bring none, and torch's generator draws it.
        default_noise: (n, C, Np, Np), where all runs start, on the model's device.
        default_step_noise: (S - 1, n, 1, C, Np, Np), what a sampler that needs noise adds; None for others.
    """

    config: DiffMICConfig
    schedule: NoiseSchedule
    start_noise: StartNoise | None = None
    default_noise: Tensor
    default_step_noise: Tensor | None

    @property
    def sampler(self) -> Sampler:
        """The config's sampler over the model's schedule."""
        return create_sampler(self.config.sampler, self.schedule)

    def own_noise(self) -> StartNoise:
        """Returns the noise that belongs to the weights as the config uses them, to be stored with them."""
        config, sampler = self.config, self.sampler
        if self.start_noise is not None and self.start_noise.kind == noise_kind(config, sampler):
            return self.start_noise
        return StartNoise.of(config, sampler)

    def _fix_noise(self, device: torch.device, dtype: torch.dtype) -> None:
        numbers = self.own_noise().numbers(self.config, self.sampler)
        noise = numbers.to(torch.empty((), device=device, dtype=dtype))
        self.default_noise, self.default_step_noise = noise.initial[:, 0], noise.step_noise

    def sampling_noise(
        self, steps: int, num_samples: int, batch: int = 1, *, generator: torch.Generator | None = None
    ) -> sampling.SamplingNoise:
        """Draws the random numbers of a prediction.

        Args:
            steps: of the sampler, 1..T.
            num_samples: runs, ≥ 1.
            batch: images that get their own; only with a generator.
            generator: without it these are the model's own fixed numbers, one set for all images. Those of other steps
                or runs than the config's are drawn with torch's generator, from seed 0.

        Raises:
            ValueError: `steps` or `num_samples` is out of range.
        """
        self.sampler.timesteps(steps)
        if num_samples < 1:
            raise InvalidValueError(f"num_samples={num_samples} must be at least 1")
        if generator is not None:
            return sampling.draw_sampling_noise(self.config, self.sampler, steps, num_samples, batch, generator)
        known = self.default_step_noise is not None and steps == self.config.sampling_steps
        if num_samples == len(self.default_noise) and (known or not self.sampler.needs_noise):
            return sampling.SamplingNoise(self.default_noise[:, None], self.default_step_noise)
        fixed = sampling.draw_sampling_noise(self.config, self.sampler, steps, num_samples, 1, seeded_generator(0))
        return fixed.to(self.default_noise)
