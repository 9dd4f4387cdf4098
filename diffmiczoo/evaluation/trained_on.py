"""Which of the images that a model is measured on it was trained on."""

from __future__ import annotations

from diffmiczoo.data.known_pictures import count_known
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import warn
from diffmiczoo.model import DiffMICv2


def count_trained_on(model: DiffMICv2, manifest: Manifest, progress: bool | None = None) -> int | None:
    """Returns how many images of a manifest the model was trained on, and warns where there are any.

    The images are read once more for it, only where the weights know their training images. They are compared as the
    model sees them, by 32 bits of a hash of their square: a copy with other pixels is not found.

    Args:
        model: its `training_pictures` say what it was trained on.
        manifest: the images.
        progress: show a bar; by default where the standard error is a terminal.

    Returns:
        Their number; None where it is not known what the model was trained on.

    Warns:
        UserWarning: some of the images were trained on.
    """
    if model.training_pictures is None:
        return None
    count = count_known(model.training_pictures, manifest, model.config, progress)
    if count:
        warn(
            f"{count:,} of {len(manifest):,} images were used to train these weights: they measure better than new "
            "images would; measure on images that no training has seen"
        )
    return count
