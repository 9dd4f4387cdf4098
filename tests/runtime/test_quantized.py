"""Products in integers are as near as their steps allow."""

from __future__ import annotations

import pytest
import torch
from factories import SMALL_ENCODERS, TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.runtime.precision import check_precision
from diffmiczoo.runtime.quantized import QuantizedLinear, can_quantize

needs_integers = pytest.mark.skipif(not can_quantize(), reason="this PyTorch multiplies no integers")


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@needs_integers
@torch.inference_mode()
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 5),
    low=st.floats(-100, 100),
    spread=st.floats(1e-3, 100),
    seed=st.integers(0, 1000),
)
def test_integers_are_as_near_as_their_steps(rows: int, low: float, spread: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(32, 64, generator=generator)
    x = low + spread * torch.rand(rows, 64, generator=generator)
    found, wanted = QuantizedLinear(weight)(x), x.double() @ weight.double().T
    weight_step, x_step = weight.abs().amax(1) / 127, (x.amax(1) - x.amin(1)) / 255
    bound = 0.5 * (weight_step * x.abs().sum(1, keepdim=True) + x_step[:, None] * weight.abs().sum(1) * 1.02)
    assert bool(((found - wanted).abs() <= bound + 1e-4 * (1 + abs(low) + spread)).all())


@needs_integers
@torch.inference_mode()
def test_no_row_depends_on_another() -> None:
    product, x = QuantizedLinear(drawn(32, 64)), drawn(6, 64) * torch.tensor([1e-3, 1, 10, 100, 0, 1])[:, None]
    together = product(x)
    for row in range(6):
        assert torch.equal(product(x[row : row + 1])[0], together[row])
    assert torch.equal(together[4], torch.zeros(32))
    assert product(x.view(2, 3, 64)).shape == (2, 3, 32)


@needs_integers
@pytest.mark.filterwarnings("ignore:this model is not trained")
def test_predict_in_integers() -> None:
    # float32 products beside integers would be as near; these must differ, or nothing was quantised.
    torch.manual_seed(0)
    model = DiffMICv2(DiffMICConfig(num_classes=3, **TINY, **SMALL_ENCODERS)).eval()
    images = [(128 + 40 * drawn(64, 64, 3) * (i + 1)).clamp(0, 255).byte() for i in range(3)]
    exact, half, whole = (model.predict(images, precision=name) for name in ("fp32", "bf16", "int8"))
    assert torch.equal(whole.rois, exact.rois)
    assert not torch.equal(whole.probs, half.probs)
    torch.testing.assert_close(whole.probs, exact.probs, rtol=0, atol=0.03)
    alone = model.predict(images[1], precision="int8")
    torch.testing.assert_close(alone.probs[0], whole.probs[1], rtol=0, atol=5e-3)


def test_integers_are_for_cpus() -> None:
    with pytest.raises(ValueError, match="precision='int8' is for CPUs"):
        check_precision("int8", torch.device("cuda"))
