"""What a run sees in all: runs of several models are a fair comparison only where that is equal."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.sampler import Rank, batches_per_epoch
from diffmiczoo.training.stages import create_stages


@dataclass(frozen=True)
class Budget:
    """How much a run trains, if no stage ends early.

    Attributes:
        epochs: stage → its epochs.
        pictures: training images drawn in all stages together, each draw counted.
        steps: changes of the weights, of all stages together.
        image_size: S, pixels.
        start_size: pixels at which the DCG sees pictures whole in the first two thirds of its epochs; None for S.
    """

    epochs: dict[str, int]
    pictures: int
    steps: int
    image_size: int
    start_size: int | None = None

    @property
    def sentence(self) -> str:
        """Says it in one line."""
        parts = " + ".join(f"{count:,} {stage}" for stage, count in self.epochs.items())
        total, size = sum(self.epochs.values()), f"{self.image_size} × {self.image_size}"
        several = f" ({parts})" if len(self.epochs) > 1 else ""
        text = f"budget: {total:,} epochs{several}, {self.pictures:,} pictures of {size} in {self.steps:,} steps"
        if self.start_size is None:
            return text
        smaller = f"{self.start_size} × {self.start_size}"
        return f"{text}; seen whole at {smaller} in the first two thirds of the first stage"


def budget_of(recipe: Recipe, config: DiffMICConfig, images: int, world_size: int = 1) -> Budget:
    """Returns what a run sees in all.

    Args:
        recipe: its settings.
        config: the model's.
        images: number of training images.
        world_size: processes that train together.
    """
    batches = batches_per_epoch(images, recipe.batch_size, Rank(0, world_size))
    epochs = {stage.name: stage.epochs for stage in create_stages(recipe, config)}
    total = sum(epochs.values())
    pictures = total * batches * recipe.batch_size * world_size
    return Budget(
        epochs, pictures, total * math.ceil(batches / recipe.accumulate), config.image_size, recipe.start_size
    )
