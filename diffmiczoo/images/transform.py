"""`ModelTransform`: a model's pre-processing as a torchvision transform."""

from __future__ import annotations

from typing import Any

from torchvision.transforms import v2

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.images.preprocessing import preprocess


class ModelTransform(v2.Transform):
    """One picture → the normalised tensor (3, S, S) that the model takes, for torchvision's datasets and `Compose`.

    Args:
        config: the model's.
    """

    def __init__(self, config: DiffMICConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, image: Any, *others: Any) -> Any:
        """Returns the tensor; with further arguments, such as a label, the tensor and these as they are.

        Args:
            image: one picture in any form that `predict` takes.
            others: passed on.

        Raises:
            ImageError: the image cannot be read or has a wrong range.
            ValueError: there are several images.
        """
        batch = preprocess(image, self.config)
        if len(batch) != 1:
            raise InvalidValueError(f"found {len(batch)} images; a transform takes one, model.preprocess takes many")
        return (batch[0], *others) if others else batch[0]

    def extra_repr(self) -> str:
        """Names what is done."""
        config = self.config
        return f"{config.input_size}, crop_mode={config.crop_mode!r}, interpolation={config.interpolation!r}"
