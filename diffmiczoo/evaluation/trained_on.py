"""Which of the images that a model is measured on it was trained on."""

from __future__ import annotations

from diffmiczoo.data.duplicates import content_hash
from diffmiczoo.data.image_cache import as_bytes
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.errors import warn
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_squares
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.progress import progress_bar


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
    squares = read_squares([record.item() for record in manifest.records], model.config)
    contents = []
    with progress_bar(len(manifest), "compare", "img", progress, leave=False) as bar:
        for square in squares:
            if not isinstance(square, ImageError):
                contents.append(content_hash(as_bytes(square).numpy()))
            bar.update()
    count = int(model.training_pictures.contains(contents).sum())
    if count:
        warn(
            f"{count:,} of {len(manifest):,} images were used to train these weights: they measure better than new "
            "images would; measure on images that no training has seen"
        )
    return count
