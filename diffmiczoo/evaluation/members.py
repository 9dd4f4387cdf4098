"""What the members of a model's pool say of labelled images, each for itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.inference.prediction import Prediction
from diffmiczoo.inference.probabilities import logits_to_probs, scores_to_probs
from diffmiczoo.model import DiffMICv2


@dataclass(frozen=True)
class MemberLogits:
    """What a model's members say of N images.

    Attributes:
        scores: (N, C) of the model.
        members: (N, M, C) logits of what the pool adds, as `Prediction.members`.
        targets: (N,) class indices, or (N, C) of 0 and 1.
        features: (N, H) the image feature prior F of the images as they are, without `tta`; of a model without a second
            stage the global encoder's features where they were asked for, else (N, 0).
    """

    scores: Tensor
    members: Tensor
    targets: Tensor
    features: Tensor

    def probs(self, config: DiffMICConfig) -> Tensor:
        """Returns the model's probabilities (N, C)."""
        return scores_to_probs(self.scores, config, self.members)

    def dcg_probs(self, config: DiffMICConfig) -> Tensor:
        """Returns the probabilities (N, C) of the DCG alone, not calibrated."""
        return logits_to_probs(0.5 * (self.members[:, 0] + self.members[:, 1]), config.task)


def collect_members(
    model: DiffMICv2,
    manifest: Manifest,
    batch_size: int = 32,
    progress: bool | None = None,
    *,
    features: bool = False,
) -> MemberLogits:
    """Predicts the images of a manifest once and returns what each member says of them.

    Args:
        model: of any kind.
        manifest: the images.
        batch_size: images computed at once.
        progress: show a bar.
        features: without a second stage too, at the cost of a second pass; a model with a gate has them in any case.

    Raises:
        ImageError: an image cannot be read.
    """
    return predict_members(model, manifest, batch_size, progress, features=features)[1]


def predict_members(
    model: DiffMICv2,
    manifest: Manifest,
    batch_size: int = 32,
    progress: bool | None = None,
    *,
    features: bool = False,
) -> tuple[Prediction, MemberLogits]:
    """Does what `collect_members` does, and returns the prediction too."""
    gated = model.trust is not None and model.trust.gate is not None
    wanted = features or gated or model.config.predictor == "diffusion"
    rows: list[Tensor] = []
    items = [record.item() for record in manifest.records]
    hook = None
    several = model.config.tta != "none"  # views of a picture, and the feature prior sees each of them
    if model.config.predictor == "diffusion" and not several:
        hook = model.feature_prior.register_forward_hook(lambda *given: rows.append(given[-1].float().cpu()))
    try:
        found = model.predict(items, batch_size=batch_size, progress=progress)
    finally:
        if hook is not None:
            hook.remove()
    if wanted and not rows:
        rows = [model.embed(items, batch_size=batch_size, progress=progress)]
    nothing = torch.zeros(len(items), 0)
    members = MemberLogits(
        found.scores,
        found.members,
        torch.from_numpy(manifest.targets()),
        torch.cat(rows) if rows else nothing,
    )
    return found, members
