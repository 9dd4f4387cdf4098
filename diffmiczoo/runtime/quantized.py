"""Matrix products in 8-bit integers on CPUs: a quarter of float32's bytes, where reading weights is the work.

Why our own scales and not torch.ao's: its dynamic quantization takes one range for all rows of a batch, so that the
prediction for an image would depend on its neighbours. Here each row has its own step and offset.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuantizedLinear(nn.Module):
    """x ↦ W x with W in int8, scaled per output, and x in uint8, scaled per row: no result depends on other rows.

    With u = round((x - low) / step) of a row, W x is nearly step · W u + low · W 1; W u is summed up exactly.

    Args:
        weight: W, (out, in), any floating type, on the CPU; see `can_quantize`.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        weight = weight.detach().float()
        self.steps = weight.abs().amax(1).clamp_min(torch.finfo(weight.dtype).tiny) / 127
        quantized = (weight / self.steps[:, None]).round().to(torch.int8)
        self.sums = quantized.sum(1) * self.steps
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.packed = torch.ops.onednn.qlinear_prepack(quantized, None)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x (..., in), of any floating type, to float32 (..., out)."""
        x = x.float()
        low, high = x.aminmax(dim=-1, keepdim=True)
        step = ((high - low) / 255).clamp_min(torch.finfo(x.dtype).tiny)
        rows = ((x - low) / step).round_().to(torch.uint8)
        product = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, self.packed, self.steps, self.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return torch.addcmul(low * self.sums, product, step)


@cache
def can_quantize() -> bool:
    """Tries a product in integers; they are an internal of PyTorch, and some builds and processors lack them."""
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(8, 64, generator=generator), torch.randn(2, 3, 64, generator=generator)
    try:
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            found = QuantizedLinear(weight)(x)
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
    return bool((found - F.linear(x, weight)).abs().max() < 0.5)
