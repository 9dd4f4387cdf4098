"""Packed weights compute what the plain layers do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.runtime.folded_encoder import inference_encoder
from diffmiczoo.runtime.packed import (
    PackedConv,
    PackedLinear,
    _works,
    can_be_fused,
    can_be_packed,
    is_plain_conv,
    matrix_product,
)
from diffmiczoo.runtime.settings import FAST, using

CPU = torch.device("cpu")


TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


needs_packing = pytest.mark.skipif(not can_be_packed(CPU, torch.float32), reason="this PyTorch packs no weights")


def near(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    scale = float(wanted.abs().max())
    torch.testing.assert_close(found.float(), wanted.float(), rtol=0, atol=TOLERANCE[dtype] * scale)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@needs_packing
@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [nn.Identity(), nn.ReLU(), nn.ReLU6(), nn.GELU()])
@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (2, 3, 40), (2, 5, 6, 40), (0, 40)])
def test_linear(shape: tuple[int, ...], activation: nn.Module, dtype: torch.dtype) -> None:
    weight, bias, x = drawn(24, 40).to(dtype), drawn(24).to(dtype), drawn(*shape)
    found = PackedLinear(weight, bias, activation)(x)
    assert found.dtype == dtype and found.shape == (*shape[:-1], 24)
    if x.numel():
        near(found, activation(F.linear(x.to(dtype).float(), weight.float(), bias.float())), dtype)


@needs_packing
@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("conv", "activation"),
    [
        (nn.Conv2d(16, 24, 1), nn.ReLU6()),
        (nn.Conv2d(16, 24, 1, bias=False), nn.Identity()),
        (nn.Conv2d(16, 24, 1, stride=2), nn.ReLU()),
        (nn.Conv2d(16, 24, 1, padding=1), nn.ReLU()),
        (nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU()),
        (nn.Conv2d(16, 24, 3, padding=2, dilation=2), nn.GELU()),
        (nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.ReLU6()),
        (nn.Conv2d(16, 24, 3, padding=(0, 1), groups=4), nn.Identity()),
        (Conv2dSame(16, 24, 3, stride=2), nn.ReLU6()),
        (Conv2dSame(16, 16, 5, stride=2, groups=16), nn.ReLU6()),
        (Conv2dSame(16, 32, 4, stride=(2, 3), groups=16), nn.ReLU()),
        (Conv2dSame(16, 16, 3, stride=2, dilation=2, groups=16), nn.Identity()),
    ],
)
def test_convolution(conv: nn.Conv2d, activation: nn.Module, layout: torch.memory_format, dtype: torch.dtype) -> None:
    with torch.inference_mode(False), torch.no_grad():
        conv = conv.requires_grad_(False).float().to(dtype=dtype, memory_format=layout)
    assert is_plain_conv(conv)
    for images in (drawn(1, 16, 9, 11), drawn(3, 16, 9, 11), drawn(2, 16, 8, 12), drawn(2, 16, 10, 7)):
        found = PackedConv(conv, activation)(images.to(memory_format=layout))
        assert found.dtype == dtype
        near(found, activation(conv.float()(images.to(dtype).float())), dtype)
        conv.to(dtype)


def test_what_is_not_plain_is_left_alone() -> None:
    class Standardized(nn.Conv2d):
        pass

    assert not is_plain_conv(Standardized(3, 4, 3))
    assert not is_plain_conv(nn.Conv2d(3, 4, 3, padding="same"))
    assert not is_plain_conv(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))
    assert not is_plain_conv(nn.Conv2d(3, 4, 16, stride=16))
    assert not can_be_fused(nn.GELU(approximate="tanh"))
    assert not can_be_fused(nn.SiLU())


@needs_packing
@torch.inference_mode()
def test_a_transformer_has_its_features_and_few_plain_layers() -> None:
    torch.manual_seed(0)
    encoder, images = create_encoder("efficientsam_ti", 64).eval(), drawn(2, 3, 64, 64)
    plain = encoder(images)
    with using(FAST, CPU):
        quick = inference_encoder(encoder, images)
    assert not any(isinstance(module, nn.Linear) for module in quick.modules())
    assert sum(isinstance(module, PackedLinear) for module in quick.modules()) == 48
    near(quick(images), plain, torch.float32)
    assert sum(isinstance(module, nn.Linear) for module in encoder.modules()) == 48


@needs_packing
@torch.inference_mode()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_encoder_that_takes_its_layers_weights_itself_is_not_packed(precision: str) -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return F.conv2d(images, self.conv.weight, self.conv.bias)

    encoder, images = Direct().eval(), drawn(1, 3, 8, 8)
    with using(replace(FAST, precision=precision), CPU):
        quick = inference_encoder(encoder, images)
        assert not any(isinstance(module, PackedConv) for module in quick.modules())
        near(quick(images), encoder(images), torch.bfloat16)


@needs_packing
def test_trying_what_can_be_packed_draws_no_random_number() -> None:
    _works.cache_clear()
    torch.manual_seed(0)
    wanted = torch.random.get_rng_state()
    assert can_be_packed(CPU, torch.float32)
    assert torch.equal(torch.random.get_rng_state(), wanted)


@torch.inference_mode()
@pytest.mark.filterwarnings("ignore:TF32 acceleration")
def test_without_onednn_products_are_plain() -> None:
    encoder, images = create_encoder("resnet18", 32).eval(), drawn(1, 3, 32, 32)
    with using(FAST, CPU):
        wanted = inference_encoder(encoder, images)(images)
    with torch.backends.mkldnn.flags(enabled=False), using(FAST, CPU):
        assert not can_be_packed(CPU, torch.float32)
        quick = inference_encoder(encoder, images)
        assert not any(isinstance(module, PackedConv) for module in quick.modules())
        near(quick(images), wanted, torch.float32)


def test_other_devices_and_types_are_not_packed() -> None:
    assert not can_be_packed(torch.device("meta"), torch.float32)
    assert not can_be_packed(CPU, torch.float64)
    weight, x = drawn(3, 4).double(), drawn(2, 4)
    torch.testing.assert_close(matrix_product(weight, packed=False)(x), x.double() @ weight.T)
