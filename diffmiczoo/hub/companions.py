"""What travels inside a weights file beside its tensors and its description, so that the file's hash covers it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.diffusion.start_noise import StartNoise
from diffmiczoo.metrics.recalibration import Recalibration
from diffmiczoo.trust.stored import Trust

_PICTURES = "diffmiczoo.training_pictures"
_NOISE = "diffmiczoo.start_noise"
_TRUST = "diffmiczoo.trust"
_RECALIBRATION = "diffmiczoo.recalibration"


class StorableModel(nn.Module):
    """What a module needs besides its tensors to be stored and loaded.

    Attributes:
        config: what it is; what builds it needs nothing else.
        trained: whether its weights come from training.
        weights_name: of the registered weights that it holds.
        loaded_from: the directory that its weights were loaded from.
        training_pictures: what the weights were trained on; None where that is not known. It travels with the weights.
        start_noise: what its predictions start from, as it came with the weights; None where torch draws it.
        trust: what the weights know about their limits; None where nothing was fitted.
        recalibration: how they were recalibrated, with what was there before; None where they were not.
    """

    config: DiffMICConfig
    trained: bool = False
    weights_name: str | None = None
    loaded_from: Path | None = None
    training_pictures: PictureSet | None = None
    start_noise: StartNoise | None = None
    trust: Trust | None = None
    recalibration: Recalibration | None = None

    def own_noise(self) -> StartNoise | None:
        """Returns the noise that is stored with the weights; None for a model that starts from none."""
        return None

    def finish_loading(self, device: torch.device, dtype: torch.dtype) -> None:
        """Computes what no weights file holds, after the tensors of one were assigned to a model without memory."""
        self.to(device, dtype)


def companions_of(model: StorableModel) -> dict[str, str]:
    """Returns the texts that are stored with a model's tensors."""
    texts = {}
    if model.training_pictures is not None:
        texts[_PICTURES] = model.training_pictures.to_text()
    noise = model.own_noise() if model.config.predictor == "diffusion" else None
    if noise is not None:
        texts[_NOISE] = noise.to_text()
    if model.trust is not None:
        texts[_TRUST] = model.trust.to_text()
    if model.recalibration is not None:
        texts[_RECALIBRATION] = model.recalibration.to_text()
    return texts


def take_companions(model: StorableModel, texts: Mapping[str, str]) -> None:
    """Gives a model what `companions_of` stored; what a file lacks stays None.

    Raises:
        ValueError: a text is broken.
    """
    pictures, noise, trust = texts.get(_PICTURES), texts.get(_NOISE), texts.get(_TRUST)
    model.training_pictures = None if pictures is None else PictureSet.from_text(pictures)
    model.start_noise = None if noise is None else StartNoise.from_text(noise)
    model.trust = None if trust is None else Trust.from_text(trust)
    recalibration = texts.get(_RECALIBRATION)
    model.recalibration = None if recalibration is None else Recalibration.from_text(recalibration)


def weights_digest(model: StorableModel) -> str:
    """Returns the sha256 of a model's tensors with names, types and shapes, of its start noise and of its limits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    if (noise := model.own_noise()) is not None:
        digest.update(noise.sha256.encode())
    if model.trust is not None:
        digest.update(model.trust.to_text().encode())
    return digest.hexdigest()
