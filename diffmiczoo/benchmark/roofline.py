"""What a machine can do at most, measured: large matrix products and copies of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from diffmiczoo.benchmark.timing import now
from diffmiczoo.runtime.packed import can_be_packed, matrix_product
from diffmiczoo.runtime.precision import PRECISIONS

#: Side of the matrices; large enough that nothing but multiplying counts.
_SIDE = {"cpu": 2048, "cuda": 8192}
_BYTES = {"cpu": 2**28, "cuda": 2**31}


@dataclass(frozen=True)
class Roofline:
    """The most that a machine did in this run.

    Attributes:
        flops: precision → floating-point operations per second of a product of two large matrices.
        bandwidth: bytes per second, read and written, of a copy that no cache holds.
    """

    flops: dict[str, float]
    bandwidth: float

    def fraction(self, gmac: float, images_per_second: float, precision: str) -> float:
        """Returns which part of the limit a rate is: 10⁹ multiply-accumulates for each image, images per second."""
        return 2e9 * gmac * images_per_second / self.flops[precision]

    def __str__(self) -> str:
        """Names products and memory in units of 10⁹."""
        products = ", ".join(f"{name} products {rate / 1e9:.0f} GFLOP/s" for name, rate in self.flops.items())
        return f"{products}, memory {self.bandwidth / 1e9:.0f} GB/s"


def measure_roofline(device: torch.device, precisions: tuple[str, ...], repeats: int = 5) -> Roofline:
    """Measures the roofline of a device; takes a few seconds on a CPU.

    Args:
        device: "cpu" or "cuda".
        precisions: of the matrix products, of `PRECISIONS`.
        repeats: the best of so many counts, after one to warm up.
    """
    side = _SIDE.get(device.type, _SIDE["cpu"])
    flops = {}
    for name in precisions:
        matrix = torch.full((side, side), 0.5, device=device, dtype=PRECISIONS[name])
        # PyTorch has two libraries for products on CPUs, and neither is the faster one on all of them.
        ways: list[Callable[[], object]] = [partial(torch.mm, matrix, matrix)]
        if can_be_packed(device, matrix.dtype):
            ways.append(partial(matrix_product(matrix, packed=True), matrix))
        flops[name] = 2 * side**3 / min(_best(way, device, repeats) for way in ways)
    source = torch.ones(_BYTES.get(device.type, _BYTES["cpu"]), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return Roofline(flops, 2 * source.numel() / _best(partial(target.copy_, source), device, repeats))


def _best(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    seconds = []
    for _ in range(repeats + 1):
        started = now(device)
        run()
        seconds.append(now(device) - started)
    return min(seconds[1:])
