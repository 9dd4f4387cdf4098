"""JPEG artefacts, noise and blur of whole batches are what Pillow and torchvision do to one picture."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from diffmiczoo.data.batch_augmentation import BatchAugmentation, uniform_numbers
from diffmiczoo.data.batch_degradation import blurred, degraded, jpeg, noisy

EXAMPLES = Path(__file__).parents[2] / "examples" / "ham10000"


def photographs(side: int) -> Tensor:
    """Three photographs, (3, 3, side, side) uint8."""
    found = []
    for path in sorted(EXAMPLES.glob("*.jpg"))[:3]:
        with Image.open(path) as picture:
            found.append(np.asarray(picture.convert("RGB").resize((side, side))))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()


def saved(picture: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [20, 40, 60, 90])
@pytest.mark.parametrize("side", [144, 100])
def test_jpeg_is_pillows(quality: int, side: int) -> None:
    """Most of what a file loses is lost in the same way; what is left are roundings inside of libjpeg."""
    pictures = photographs(side)
    ours = jpeg(pictures.float(), np.full(3, quality)).round()
    theirs = torch.stack([saved(picture, quality) for picture in pictures]).float()
    lost = float((theirs - pictures).abs().mean())
    assert float((ours - theirs).abs().mean()) < min(0.75, 0.45 * lost)
    assert float((ours - pictures).abs().mean()) == pytest.approx(lost, rel=0.05)


def test_each_picture_has_its_own_quality_and_blur() -> None:
    pictures = photographs(64).float()
    together = jpeg(pictures, np.array([20, 50, 90]))
    blurs = blurred(pictures, np.array([0.3, 0.9, 1.5]))
    for place, (quality, sigma) in enumerate(((20, 0.3), (50, 0.9), (90, 1.5))):
        alone = jpeg(pictures[place : place + 1], np.array([quality]))[0]
        assert (alone - together[place]).abs().mean() < 0.1
        theirs = TF.gaussian_blur(pictures[place], [7, 7], [sigma, sigma])
        torch.testing.assert_close(blurs[place], theirs, atol=1e-2, rtol=0)


def test_noise_has_its_strength_and_its_colours() -> None:
    grounds = torch.full((2, 3, 64, 64), 128.0)
    noise = noisy(grounds, np.array([5.0, 12.0]), np.array([False, True]), [3, 4]) - 128
    assert float(noise[0].std()) == pytest.approx(5, rel=0.05)
    assert float(noise[1].std()) == pytest.approx(12, rel=0.05)
    assert noise[0, 0].sub(noise[0, 1]).abs().mean() > 1
    assert torch.equal(noise[1, 0], noise[1, 2])


def test_as_many_pictures_are_changed_as_asked_and_each_way_a_third() -> None:
    seeds = list(range(600))
    pictures = photographs(32)[:1].expand(600, 3, 32, 32)
    nothing = {"hflip": 0.0, "vflip": 0.0, "rotation": 0.0}
    found = BatchAugmentation(**nothing, degrade=0.3)(pictures, seeds)
    changed = (found != pictures / 255).flatten(1).any(1).float().mean()
    assert 0.24 < changed < 0.36
    assert torch.equal((found * 255).round() / 255, found)
    numbers = uniform_numbers(seeds, 4)
    kinds = [degraded(pictures / 255, 1.0, np.where(numbers < 2, kind / 3 + 0.1, 0.0), seeds) for kind in range(3)]
    assert len({float(each.sum()) for each in kinds}) == 3


def test_the_same_seed_changes_a_picture_in_the_same_way_in_any_batch() -> None:
    change = BatchAugmentation(hflip=0.0, rotation=0.0, degrade=1.0)
    pictures = photographs(32)[:1].expand(12, 3, 32, 32)
    seeds = list(range(12))
    together = change(pictures, seeds)
    for place, seed in enumerate(seeds):
        assert (change(pictures[:1], [seed])[0] - together[place]).abs().mean() < 0.2 / 255


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_does_the_same() -> None:
    pictures = photographs(96).float()
    kept = jpeg(pictures.cuda(), np.array([20, 50, 90])).cpu()
    assert (kept - jpeg(pictures, np.array([20, 50, 90]))).abs().mean() < 0.1
    sigmas = np.array([0.3, 0.9, 1.5])
    torch.testing.assert_close(blurred(pictures.cuda(), sigmas).cpu(), blurred(pictures, sigmas), atol=1e-2, rtol=0)
    noise = noisy(torch.full((1, 3, 64, 64), 128.0).cuda(), np.array([9.0]), np.array([False]), [3]) - 128
    assert float(noise.std()) == pytest.approx(9, rel=0.05)
