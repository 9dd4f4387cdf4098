"""`WeightAverage`: timm's moving average of a model's weights, that looks up once which tensors it is of.

Why: timm asks both models for their state dicts in every step, which for a small model on a GPU takes a fifth of it.
"""

from __future__ import annotations

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn


class WeightAverage(ModelEmaV3):
    """Exponential moving average of a model, with timm's warm-up: the same numbers as `ModelEmaV3`.

    Args:
        model: averaged while its tensors stay where they are; one that is given other tensors needs a new average.
        decay: 0..1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, decay=decay, use_warmup=True)
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._learned = _lists([pair for pair in pairs if pair[0].is_floating_point()])
        self._counted = _lists([pair for pair in pairs if not pair[0].is_floating_point()])

    def apply_update_(self, model: nn.Module, decay: float) -> None:
        """Moves the average by 1 - decay towards the model that it was made of."""
        del model
        torch._foreach_lerp_(*self._learned, weight=1 - decay)
        if self._counted[0]:
            torch._foreach_copy_(*self._counted)


def _lists(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]
