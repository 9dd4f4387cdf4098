"""Smaller pictures first: what the DCG sees whole is small in the first two thirds of its epochs.

Why by the config: ROIs are cut from a larger square than the global stream sees anyway (`roi_source_size`). With the
square as it always was and a smaller `image_size` only the global stream has less to do; ROIs have the same pixels at
the same places, and loading, augmentation and validation know nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.modes import frozen
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import Stage


def start_size(recipe: Recipe, stage: Stage, epoch: int) -> int | None:
    """Returns the recipe's size in the first two thirds of the epochs of what sees pictures whole, from 0; else None.

    The diffusion learns from what the DCG says at the size at which both are used.
    """
    return recipe.start_size if stage.name in ("dcg", "global") and 3 * (epoch + 1) <= 2 * stage.epochs else None


@contextmanager
def seen_small(model: DiffMICv2, size: int) -> Iterator[None]:
    """Within the context the model takes the same squares, and sees them whole at `size` pixels."""
    own = model.config
    # Past the setter: it would draw the start noise anew, at every step, to the same numbers.
    model._config = own.replace(image_size=size, roi_source_size=own.input_size)
    try:
        yield
    finally:
        model._config = own


def check_start_size(model: DiffMICv2, recipe: Recipe) -> None:
    """Raises where pictures cannot be smaller at first.

    Raises:
        ValueError: they would not be smaller, or the global encoder takes one size only.
    """
    size, config = recipe.start_size, model.config
    if size is None:
        return
    if size >= config.image_size:
        raise InvalidValueError(
            f"start_size={size} is to be smaller than the model's image_size={config.image_size}, at which it ends"
        )
    parameter = next(model.dcg.parameters())
    empty = torch.zeros(1, 3, config.input_size, config.input_size, device=parameter.device, dtype=parameter.dtype)
    try:
        with frozen(model.dcg), seen_small(model, size):
            model.dcg.training_priors(empty, model.config)
    except (AssertionError, RuntimeError) as error:
        raise InvalidValueError(
            f"start_size={size}: the encoder {config.dcg_encoder!r} does not take pictures of that size ({error}); "
            "convolutional ones take any, vision transformers one"
        ) from error
