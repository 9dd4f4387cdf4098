"""From probabilities to labels: the one place where that is decided."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffmiczoo.errors import InvalidValueError


def decide(
    probs: Tensor, task: str, thresholds: Sequence[float] | None = None, label_adjustment: Sequence[float] | None = None
) -> Tensor:
    """Returns which labels are given, (N, C) bool.

    Args:
        probs: (N, C) in [0, 1].
        task: "multilabel": all labels whose probability is at least their threshold; "multiclass": the one with the
            largest log p + adjustment, which is the most probable one without any. Of equal ones the first.
        thresholds: C probabilities, for "multilabel"; 0.5 each where there are none.
        label_adjustment: C offsets on log p, for "multiclass", see `metrics.decisions.fit_label_adjustment`.

    Raises:
        ValueError: there are not as many offsets as classes.
    """
    if task == "multilabel":
        return probs >= torch.tensor(thresholds or [0.5], dtype=probs.dtype)
    if label_adjustment and len(label_adjustment) != probs.shape[1]:
        raise InvalidValueError(f"label_adjustment has {len(label_adjustment)} values for {probs.shape[1]} classes")
    ranked = probs
    if label_adjustment:
        ranked = probs.double().log() + torch.tensor(label_adjustment, dtype=torch.float64)
    return torch.nn.functional.one_hot(ranked.argmax(1), probs.shape[1]).bool()
