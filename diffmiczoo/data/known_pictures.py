"""Which images of a manifest belong to a set of pictures that weights remember."""

from __future__ import annotations

import numpy as np

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.duplicates import content_hash
from diffmiczoo.data.image_cache import as_bytes
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.images.items import ImageError
from diffmiczoo.images.loading import read_squares
from diffmiczoo.runtime.progress import progress_bar


def known_pictures(
    pictures: PictureSet, manifest: Manifest, config: DiffMICConfig, progress: bool | None = None
) -> np.ndarray:
    """Returns which images of a manifest are in a set, (N,) bool; they are read for it, as a model sees them.

    Args:
        pictures: the set.
        manifest: the images; those that cannot be read are not in it.
        config: the model's, for size and crop of the squares.
        progress: show a bar; by default where the standard error is a terminal.
    """
    known = np.zeros(len(manifest), dtype=bool)
    places, contents = [], []
    with progress_bar(len(manifest), "compare", "img", progress, leave=False) as bar:
        for place, square in enumerate(read_squares([record.item() for record in manifest.records], config)):
            if not isinstance(square, ImageError):
                places.append(place)
                contents.append(content_hash(as_bytes(square).numpy()))
            bar.update()
    known[places] = pictures.contains(contents)
    return known


def count_known(pictures: PictureSet, manifest: Manifest, config: DiffMICConfig, progress: bool | None = None) -> int:
    """Returns how many images of a manifest are in a set; see `known_pictures`."""
    return int(known_pictures(pictures, manifest, config, progress).sum())
