"""Parameters and multiply-accumulates against hand counts."""

from __future__ import annotations

import pytest

from diffmiczoo.zoo.complexity import count_macs, count_parameters
from diffmiczoo.zoo.factory import get_config


def vit_macs(width: int, blocks: int = 12, patch: int = 16, image: int = 224) -> int:
    """Patch embedding, then per block qkv, both attention products, output projection and the MLP of width 4."""
    tokens = (image // patch) ** 2
    block = tokens * width * (3 + 1 + 4 + 4) * width + 2 * tokens**2 * width
    return tokens * width * 3 * patch**2 + blocks * block


def test_cost_of_the_paper_size_model_matches_hand_counts() -> None:
    config = get_config("diffmicv2_resnet18")
    macs, hidden, classes = count_macs(config), config.latent_dim, config.num_classes
    assert macs["unet"] == 36 * (2 * hidden**2 + 3 * classes * hidden)
    assert macs["raw_encoder"] == vit_macs(384) == pytest.approx(4.6e9, rel=0.01)
    resnet18_at_224 = 1_813_561_344  # torchvision's figure, 1,814,073,344, less its 512 × 1000 classifier
    assert macs["dcg"] == pytest.approx(resnet18_at_224 * (1 + 6 * (32 / 224) ** 2), rel=1e-3)
    assert macs["roi_encoder"] == pytest.approx(6 * resnet18_at_224 * (32 / 224) ** 2, rel=1e-3)
    projections = hidden * (384 + 6 * 512)
    assert macs["feature_prior"] == macs["raw_encoder"] + macs["roi_encoder"] + projections
    assert macs["condition"] == macs["dcg"] + macs["feature_prior"]
    assert macs["total"] == macs["condition"] + 10 * macs["unet"] == pytest.approx(34e9, rel=0.01)
    assert count_macs(config.replace(tta="flips"))["total"] == 4 * macs["total"]


def test_parameters_of_the_paper_size_model_match_hand_counts() -> None:
    config = get_config("diffmicv2_resnet18")
    counts, hidden, classes, resnet18 = count_parameters(config), config.latent_dim, config.num_classes, 11_176_512
    vit = 196 * 384 + 384 * 769 + 12 * (12 * 384**2 + 13 * 384)
    assert counts["dcg"] == 2 * resnet18 + 512 * classes + (2 * 512 + 1) * 128 + 512 * classes
    assert counts["feature_prior"] == vit + resnet18 + (385 + 513) * hidden + 4 * hidden + 7 * hidden
    convolutions = (2 * classes + 1) * hidden + 2 * (hidden + 1) * hidden + (hidden + 1) * classes
    assert counts["unet"] == convolutions + 3 * 1001 * hidden + 3 * 2 * hidden
    assert counts["total"] == pytest.approx(155e6, rel=0.01)


@pytest.mark.parametrize(("name", "roi_macs"), [("diffmicv2_resnet50", 4.09e9), ("diffmicv2_densenet169", 3.36e9)])
def test_cost_of_the_other_roi_encoders(name: str, roi_macs: float) -> None:
    """Published figures for one 224-pixel image, scaled to K crops; odd maps round down, 3 × 3 instead of 3.5 × 3.5."""
    config = get_config(name)
    share = config.num_rois * (config.roi_size / 224) ** 2
    assert count_macs(config)["roi_encoder"] == pytest.approx(share * roi_macs, rel=0.03)


@pytest.mark.parametrize(("name", "most"), [("diffmicv2_nano", 5_000_000), ("diffmicv2_small", 8_000_000)])
def test_small_models_are_small(name: str, most: int) -> None:
    assert count_parameters(get_config(name))["total"] <= most
