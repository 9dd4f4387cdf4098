"""Depthwise convolutions in bf16 have the values and gradients of the fp32 ones."""

from __future__ import annotations

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn

from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.runtime.depthwise import fast_depthwise
from diffmiczoo.runtime.precision import autocast


def test_bf16_steps_use_the_weights_of_their_own_step() -> None:
    """Autocast caches bf16 copies of the weights for as long as its context lasts."""
    encoder = create_encoder("test_efficientnet", 64)
    images = torch.randn(4, 3, 64, 64)
    outputs = []
    with fast_depthwise(encoder):
        for _ in range(2):
            with autocast("bf16", torch.device("cpu")):
                outputs.append(encoder(images).float())
            with torch.no_grad():
                for parameter in encoder.parameters():
                    parameter.mul_(1.5)
    assert not torch.allclose(outputs[0], outputs[1], rtol=0.1)


CPU = torch.device("cpu")


def passes(model: nn.Module, images: Tensor, precision: str) -> list[Tensor]:
    """Returns output, gradient of the input and gradients of the weights."""
    images = images.clone().requires_grad_()
    with autocast(precision, CPU):
        output = model(images)
    (output.float() * torch.linspace(-1, 1, output.numel()).view(output.shape)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    return [output.detach().float(), images.grad, *gradients]


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel", [3, 5, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("kind", ["padded", "unpadded", "same"])
def test_values_and_gradients(kind: str, stride, kernel, size: int) -> None:
    torch.manual_seed(0)
    if kind == "same":
        conv: nn.Module = Conv2dSame(6, 6, kernel, stride, groups=6, bias=False)
    else:
        sides = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        padding = tuple(side // 2 for side in sides) if kind == "padded" else 0
        conv = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=True)
    images = torch.randn(2, 6, size, size + 1).to(memory_format=torch.channels_last)
    wanted = passes(conv, images, "fp32")
    with fast_depthwise(conv):
        found = passes(conv, images, "bf16")
    assert "forward" not in vars(conv)
    for mine, other in zip(found, wanted, strict=True):
        assert mine.shape == other.shape and mine.dtype == torch.float32
        torch.testing.assert_close(mine, other, rtol=0.02, atol=0.02 * float(other.abs().max()))


def test_other_grouped_convolutions_stay_in_fp32() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8, dilation=2), nn.Conv2d(8, 4, 1))
    seen = {}
    for index, layer in enumerate(model):
        layer.register_forward_hook(lambda _m, _i, output, index=index: seen.update({index: output.dtype}))
    with fast_depthwise(model), autocast("bf16", CPU):
        model(torch.randn(1, 4, 16, 16))
    assert seen == {0: torch.float32, 1: torch.float32, 2: torch.bfloat16}
    assert not any("forward" in vars(layer) for layer in model)


def test_a_whole_encoder_is_as_near_to_fp32_as_plain_bf16_is() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("tf_efficientnet_lite0", 64).eval()
    images = torch.randn(4, 3, 64, 64)
    wanted, plain = passes(encoder, images, "fp32"), passes(encoder, images, "bf16")
    with fast_depthwise(encoder):
        ours = passes(encoder, images, "bf16")

    def nearness(found: list[Tensor]) -> float:
        mine, other = (torch.cat([tensor.flatten() for tensor in each[2:]]) for each in (found, wanted))
        return float(torch.nn.functional.cosine_similarity(mine, other, dim=0))

    assert nearness(ours) > nearness(plain) - 0.02 > 0.85
