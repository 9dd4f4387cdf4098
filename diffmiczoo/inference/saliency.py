"""Where a model looked for a class, on a scale that means the same in every picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from diffmiczoo.inference.prediction import Prediction


def class_saliency(prediction: Prediction, row: int, name: str) -> Tensor:
    """Returns a class's saliency at each place (h, w) in [0, 1], a scale that means the same in every picture.

    "multiclass": softmax over the classes of the saliency logits at the place, the class's share among all of them.
    "multilabel": their sigmoid.
    """
    logits = prediction.saliency[row]
    values = logits.softmax(0) if prediction.config.task == "multiclass" else logits.sigmoid()
    return values[prediction.class_names.index(name)]
