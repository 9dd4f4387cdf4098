"""Random changes of training images, from torchvision's transforms."""

from __future__ import annotations

from torchvision.transforms import v2


def create_augmentation(
    image_size: int,
    *,
    hflip: float = 0.5,
    vflip: float = 0.0,
    rotation: float = 30.0,
    min_scale: float = 1.0,
    color_jitter: float = 0.0,
) -> v2.Transform | None:
    """Builds a transform of uint8 squares (3, S, S) to the same shape, or None where nothing is asked for.

    Args:
        image_size: S.
        hflip: probability of a left-right flip, 0..1.
        vflip: probability of an upside-down flip, 0..1.
        rotation: degrees either way, 0..180.
        min_scale: smallest share of the area that a random crop keeps, 1 for no crop.
        color_jitter: largest relative change of brightness, contrast and saturation, 0 for none.

    Source: section IV-A (random flip and rotation; the released program rotates by up to 30°).
    """
    steps: list[v2.Transform] = []
    if min_scale < 1:
        steps.append(v2.RandomResizedCrop(image_size, scale=(min_scale, 1.0), ratio=(0.9, 1 / 0.9), antialias=True))
    if hflip:
        steps.append(v2.RandomHorizontalFlip(hflip))
    if vflip:
        steps.append(v2.RandomVerticalFlip(vflip))
    if rotation:
        steps.append(v2.RandomRotation([-rotation, rotation], interpolation=v2.InterpolationMode.BILINEAR))
    if color_jitter:
        steps.append(v2.ColorJitter(brightness=color_jitter, contrast=color_jitter, saturation=color_jitter))
    return v2.Compose(steps) if steps else None
