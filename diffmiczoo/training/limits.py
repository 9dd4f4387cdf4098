"""What the weights of a run know about their limits, fitted to the squares that training has decoded already."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from diffmiczoo.errors import InvalidValueError, warn
from diffmiczoo.evaluation.trust import MOST_TRAINING, Known, fit_trust
from diffmiczoo.images.preprocessing import normalize
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import eval_mode
from diffmiczoo.runtime.progress import progress_bar
from diffmiczoo.runtime.settings import FAST, using
from diffmiczoo.training.trainer import Trainer
from diffmiczoo.trust.stored import Trust


def limits_of_run(trainer: Trainer, probs: Tensor, targets: Tensor) -> Trust | None:
    """Does what `evaluation.trust.fit_limits` does, for a trained and calibrated model.

    Args:
        trainer: of the run.
        probs: (N, C) of the validation images.
        targets: of these.

    Returns:
        None where nothing can be fitted.

    Warns:
        UserWarning: says why; the weights are worth keeping without it.
    """
    model, validation, squares = trainer.model, trainer.data.val, trainer.data.train.squares
    chosen = random.Random(0).sample(range(len(squares)), min(MOST_TRAINING, len(squares)))
    training = _features(model, squares, chosen, trainer)
    features = _features(model, validation.squares, list(range(len(validation))), trainer)
    try:
        known = Known.of_images(probs, targets, features, validation.manifest, model.config)
        return fit_trust(model.config, training, known)
    except InvalidValueError as error:
        warn(f"{trainer.settings.output}: what the weights know about their limits could not be fitted: {error}")
        return None


@torch.inference_mode()
def _features(model: DiffMICv2, squares: Tensor, rows: list[int], trainer: Trainer) -> Tensor:
    """Returns the features (N, H) that the gate compares, of some squares."""
    like, size, found = model.default_noise, trainer.recipe.batch_size, []
    bar = progress_bar(len(rows), "limits", "img", trainer.progress, leave=False)
    with eval_mode(model), using(FAST, like.device), bar:
        for start in range(0, len(rows), size):
            images = normalize(squares[rows[start : start + size]].to(like.device), model.config).to(like)
            found.append(model.forward_features(images)[:, 0].float().cpu())
            bar.update(len(images))
    return torch.cat(found)
