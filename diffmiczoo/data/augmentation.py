"""Random changes of training images, from torchvision's transforms."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

#: The largest magnitude of RandAugment, and what it stands for: degrees; shear; share of the side; factor - 1.
MAGNITUDES = 30.0
_DEGREES, _SHEAR, _SHIFT, _COLOR = 30.0, 0.3, 150 / 331, 0.9


def create_augmentation(
    image_size: int,
    *,
    hflip: float = 0.5,
    vflip: float = 0.0,
    rotation: float = 30.0,
    min_scale: float = 1.0,
    fill: str = "black",
    color_jitter: float = 0.0,
    rand_augment: float = 0.0,
    degrade: float = 0.0,
) -> v2.Transform | None:
    """Builds a transform of uint8 squares (3, S, S) to the same shape, or None where nothing is asked for.

    Args:
        image_size: S.
        hflip: probability of a left-right flip, 0..1.
        vflip: probability of an upside-down flip, 0..1.
        rotation: degrees either way, 0..180.
        min_scale: smallest share of the square's area that a random crop keeps, 1 for no crop.
        fill: what `rotation` shows beyond the edges, "black", or "reflect" for the picture mirrored there.
        color_jitter: largest relative change of brightness, contrast and saturation, 0 for none.
        rand_augment: magnitude of two random changes, see `random_change`, 0..30; 0 for none.
        degrade: probability of what other cameras and files do to a picture, see `degradation`, 0..1.

    Source: section IV-A (random flip and rotation; the released program rotates by up to 30°).
    """
    steps: list[v2.Transform] = []
    if min_scale < 1:
        steps.append(v2.RandomResizedCrop(image_size, scale=(min_scale, 1.0), ratio=(0.9, 1 / 0.9), antialias=True))
    if hflip:
        steps.append(v2.RandomHorizontalFlip(hflip))
    if vflip:
        steps.append(v2.RandomVerticalFlip(vflip))
    if rotation and fill == "reflect":
        steps.append(ReflectedAffine(degrees=rotation))
    elif rotation:
        steps.append(v2.RandomRotation([-rotation, rotation], interpolation=v2.InterpolationMode.BILINEAR))
    if rand_augment:
        steps += [random_change(rand_augment), random_change(rand_augment)]
    if color_jitter:
        steps.append(v2.ColorJitter(brightness=color_jitter, contrast=color_jitter, saturation=color_jitter))
    if degrade:
        steps.append(v2.RandomApply([degradation()], p=degrade))
    return v2.Compose(steps) if steps else None


def degradation() -> v2.Transform:
    """Returns a transform that does one of three things to a uint8 picture: JPEG artefacts, noise or blur.

    JPEG of quality 20 to 90; noise with a standard deviation of up to 20 of 255 grey levels, in grey or per colour; a
    Gaussian blur with σ of 0.3 to 1.5 pixels.
    """
    return v2.RandomChoice([Jpeg(20, 90), Noise(20.0), v2.GaussianBlur(7, (0.3, 1.5))])


class Jpeg(v2.Transform):
    """Saves a uint8 picture (3, S, S) as JPEG and reads it again, through Pillow: torchvision is giving its codecs up.

    Args:
        worst: the lowest quality that is drawn, 1..95.
        best: the highest one.
    """

    def __init__(self, worst: int, best: int) -> None:
        super().__init__()
        self.worst, self.best = worst, best

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the quality."""
        return {"quality": int(torch.randint(self.worst, self.best + 1, (1,)))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Maps a picture to what is left of it."""
        file = io.BytesIO()
        Image.fromarray(inpt.permute(1, 2, 0).contiguous().numpy()).save(file, "JPEG", quality=params["quality"])
        pixels = np.array(Image.open(file).convert("RGB"))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


class Noise(v2.Transform):
    """Adds normal noise to a uint8 picture (3, S, S), half of the time the same in all colours.

    Args:
        most: largest standard deviation in grey levels; it is drawn evenly between 0 and this.
    """

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the standard deviation, and whether all colours have the same noise."""
        amount, grey = torch.rand(2).tolist()
        return {"sigma": amount * self.most, "grey": grey < 0.5}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Maps a picture to the noisy one."""
        noise = torch.randn(inpt[:1].shape if params["grey"] else inpt.shape)
        return (inpt + params["sigma"] * noise).round().clamp(0, 255).to(inpt.dtype)


def random_change(magnitude: float) -> v2.Transform:
    """Returns a transform that does one of ten things: nothing, a change of geometry, or one of colour.

    RandAugment's own without those that make another picture of a medical one: posterise, solarise, equalise,
    auto-contrast. Rotation, shear and shift show the mirrored picture beyond its edges instead of black, which would
    give away what was done. The strength is drawn between 0 and the magnitude.

    Args:
        magnitude: 0..30, the largest one; at 30 up to 30°, a shear of 0.3, a shift of 45 %, colours ± 90 %.

    Source: Cubuk et al., *RandAugment*, NeurIPS 2020.
    """
    share = magnitude / MAGNITUDES
    color, shear, shift = _COLOR * share, _SHEAR * share, _SHIFT * share
    return v2.RandomChoice(
        [
            v2.Identity(),
            ReflectedAffine(degrees=_DEGREES * share),
            ReflectedAffine(shear_x=shear),
            ReflectedAffine(shear_y=shear),
            ReflectedAffine(shift_x=shift),
            ReflectedAffine(shift_y=shift),
            v2.ColorJitter(brightness=color),
            v2.ColorJitter(contrast=color),
            v2.ColorJitter(saturation=color),
            v2.RandomChoice([v2.RandomAdjustSharpness(1 + sign * color, p=1.0) for sign in (-1, 1)]),
        ]
    )


class ReflectedAffine(v2.Transform):
    """Rotates, shears and shifts a square by random amounts; beyond its edges the picture is mirrored.

    Torchvision's own fills with one colour. Each amount is drawn evenly between its negative and itself.

    Args:
        degrees: of the rotation about the centre, ≥ 0.
        shear_x: of rows against each other, in columns per row.
        shear_y: of columns against each other, in rows per column.
        shift_x: to the side, as a share of the side.
        shift_y: up or down, as a share of the side.
    """

    def __init__(
        self,
        *,
        degrees: float = 0.0,
        shear_x: float = 0.0,
        shear_y: float = 0.0,
        shift_x: float = 0.0,
        shift_y: float = 0.0,
    ) -> None:
        super().__init__()
        self.most = (math.radians(degrees), shear_x, shear_y, shift_x, shift_y)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draws the matrix, (2, 3), from places in the new picture to places in the old one, in -1..1."""
        amounts = (torch.rand(len(self.most)) * 2 - 1) * torch.tensor(self.most)
        angle, shear_x, shear_y, shift_x, shift_y = amounts.tolist()
        cos, sin = math.cos(angle), math.sin(angle)
        rows = [[cos, -sin + shear_x, 2 * shift_x], [sin + shear_y, cos, 2 * shift_y]]
        return {"matrix": torch.tensor(rows)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Maps a picture (C, S, S), uint8 or float, to the changed one."""
        grid = F.affine_grid(params["matrix"][None], [1, *inpt.shape], align_corners=False)
        pixels = inpt[None].float()
        moved: Tensor = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
        return moved.to(inpt.dtype) if inpt.is_floating_point() else moved.round().to(inpt.dtype)


def create_mixing(mixup: float, cutmix: float) -> v2.Transform | None:
    """Builds a transform of a batch (B, 3, S, S) and its labels (B, C), or None where nothing is asked for.

    Args:
        mixup: α of the Beta distribution of the share of every pixel that another image of the batch gets; 0 for none.
        cutmix: α of the share of the area that a rectangle of another image gets; 0 for none. Where both are on, each
            batch has one of them.

    Source: Zhang et al., *mixup*, ICLR 2018; Yun et al., *CutMix*, ICCV 2019.
    """
    ways = [v2.MixUp(alpha=mixup)] if mixup else []
    ways += [v2.CutMix(alpha=cutmix)] if cutmix else []
    return v2.RandomChoice(ways) if len(ways) > 1 else next(iter(ways), None)
