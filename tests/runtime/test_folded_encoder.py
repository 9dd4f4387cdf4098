"""Folded encoders have the features of the plain ones, follow their weights, and step aside where they must."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from factories import SMALL_ENCODERS, TINY
from torch import nn

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.images.items import as_items
from diffmiczoo.inference.predictor import PredictOptions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.encoders import create_encoder
from diffmiczoo.runtime.folded_encoder import inference_encoder
from diffmiczoo.runtime.packed import PackedConv, can_be_packed
from diffmiczoo.runtime.settings import FAST, PLAIN, training_runtime, using

CPU = torch.device("cpu")
BF16 = replace(FAST, precision="bf16")
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def trained_like(name: str) -> nn.Module:
    """An encoder whose BatchNorms have statistics as after training."""
    torch.manual_seed(0)
    encoder = create_encoder(name, 64)
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return encoder.eval()


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("tf_efficientnet_lite0", 48),
        ("resnet18", 20),
        ("densenet121", 59),
        ("regnetx_002", 40),
        ("test_vit", 0),
        ("efficientsam_ti", 0),
        ("mobilenetv3_small_050", 30),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_features_are_those_of_the_plain_encoder(name: str, folded: int, layout: torch.memory_format) -> None:
    if name == "test_vit":
        encoder = create_encoder(name, 160)
        images = torch.randn(2, 3, 160, 160)
        encoder.eval()
    else:
        encoder, images = trained_like(name), IMAGES
    encoder, images = encoder.to(memory_format=layout), images.to(memory_format=layout)
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    with torch.inference_mode(), using(FAST, CPU):
        plain = encoder(images)
        quick = inference_encoder(encoder, images)
        torch.testing.assert_close(quick(images), plain, rtol=1e-4, atol=1e-5 * float(plain.abs().max()))
    norms = [module for module in quick.modules() if isinstance(module, nn.BatchNorm2d) and "forward" in vars(module)]
    assert len(norms) >= folded
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18", "efficientsam_ti"])
def test_under_autocast_the_copy_is_as_near_as_autocast_is(name: str) -> None:
    encoder = trained_like(name)
    with torch.inference_mode():
        exact = encoder(IMAGES)
        with using(BF16, CPU):
            plain, quick = encoder(IMAGES).float(), inference_encoder(encoder, IMAGES)(IMAGES).float()
    assert (quick - exact).norm() < 1.5 * (plain - exact).norm() + 1e-3 * exact.norm()


@pytest.mark.parametrize(
    ("name", "exact"),
    [("tf_efficientnet_lite0", True), ("mobilenetv2_100", True), ("convnext_atto", False), ("resnet18", False)],
)
def test_encoders_for_small_devices_stay_in_full_precision_under_autocast(name: str, exact: bool) -> None:
    """On CPUs, while images are predicted; the frozen DCG of a training keeps autocast's precision."""
    encoder = trained_like(name)
    with torch.no_grad():
        with using(FAST, CPU):
            wanted = inference_encoder(encoder, IMAGES)(IMAGES)
        with using(BF16, CPU):
            found = inference_encoder(encoder, IMAGES)(IMAGES)
        with using(training_runtime("bf16"), CPU):
            trained = inference_encoder(encoder, IMAGES)(IMAGES)
    assert torch.equal(found.float(), wanted) == exact
    assert not torch.equal(trained.float(), wanted)


def test_full_precision_is_the_same_whichever_is_asked_for_first() -> None:
    """A kernel of 9 × 9 is not packed, autocast would compute it in half; the other layers lose their parameters."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 9), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 8, 1)
    encoder = nn.Sequential(*layers).eval().requires_grad_(False)
    with torch.inference_mode(), using(BF16, CPU):
        found = inference_encoder(encoder, IMAGES)(IMAGES)
    with torch.inference_mode(), using(FAST, CPU):
        copy = inference_encoder(encoder, IMAGES)
        assert torch.equal(found, copy(IMAGES))
    packed = sum(isinstance(module, PackedConv) for module in copy.modules())
    assert packed == (2 if can_be_packed(IMAGES.device, torch.float32) else 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientsam_ti"])
@pytest.mark.parametrize("packed", [True, False])
def test_encoders_of_another_type_are_folded_too(name: str, dtype: torch.dtype, packed: bool) -> None:
    encoder = trained_like(name)
    with torch.inference_mode():
        exact = encoder(IMAGES)
        with using(replace(BF16, pack=packed), CPU):
            found = inference_encoder(encoder.to(dtype), IMAGES.to(dtype))(IMAGES.to(dtype))
    assert (found.float() - exact).norm() < 0.2 * exact.norm()


def test_the_copy_is_cached_until_a_weight_changes() -> None:
    encoder = trained_like("resnet18")
    with torch.inference_mode(), using(FAST, CPU):
        first = inference_encoder(encoder, IMAGES)
        assert inference_encoder(encoder, IMAGES) is first
    with torch.no_grad():
        next(encoder.parameters()).mul_(2)
    with torch.inference_mode(), using(FAST, CPU):
        second = inference_encoder(encoder, IMAGES)
        assert second is not first
        torch.testing.assert_close(second(IMAGES), encoder(IMAGES), rtol=1e-4, atol=1e-4)
    norm = next(module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d))
    norm.running_mean.add_(1)
    with torch.inference_mode(), using(FAST, CPU):
        torch.testing.assert_close(inference_encoder(encoder, IMAGES)(IMAGES), encoder(IMAGES), rtol=1e-4, atol=1e-4)


def test_nothing_but_the_switch_decides() -> None:
    """Inference mode and autocast of whoever calls change nothing of what is computed with."""
    encoder = trained_like("resnet18")
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert inference_encoder(encoder, IMAGES) is encoder
            with torch.autocast("cpu", torch.bfloat16):
                assert inference_encoder(encoder, IMAGES) is encoder
            with using(FAST, CPU):
                assert inference_encoder(encoder, IMAGES) is not encoder


def test_it_steps_aside_for_training_gradients_hooks_and_own_forwards() -> None:
    encoder = trained_like("resnet18")
    with using(FAST, CPU):
        assert inference_encoder(encoder, IMAGES) is encoder  # gradients
        with torch.no_grad():
            assert inference_encoder(encoder.train(), IMAGES) is encoder
            encoder.eval()
            hook = next(encoder.modules()).register_forward_hook(lambda *_: None)
            assert inference_encoder(encoder, IMAGES) is encoder
            hook.remove()
            assert inference_encoder(encoder, IMAGES) is not encoder
            encoder.forward = encoder.forward
            assert inference_encoder(encoder, IMAGES) is encoder


class Odd(nn.Module):
    """Uses a convolution's output twice, so that the BatchNorm must not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.running_mean, 3)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


def test_what_cannot_be_folded_is_left_as_it_is() -> None:
    odd = Odd().eval()
    with torch.inference_mode(), using(FAST, CPU):
        torch.testing.assert_close(inference_encoder(odd, IMAGES)(IMAGES), odd(IMAGES))
    shared = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)] * 2).eval()
    with torch.inference_mode(), using(FAST, CPU):
        torch.testing.assert_close(inference_encoder(shared, IMAGES)(IMAGES), shared(IMAGES))


def test_predictions_are_those_without_folding() -> None:
    torch.manual_seed(0)
    model = DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS}))
    model.trained = True
    pictures = (torch.rand(4, 3, 80, 80) * 255).to(torch.uint8)
    quick = model.predict(pictures, progress=False)
    plain = model.predictor(PredictOptions(runtime=PLAIN, progress=False)).predict(as_items(pictures))
    torch.testing.assert_close(quick.probs, plain.probs, rtol=0, atol=1e-5)
    assert torch.equal(quick.rois, plain.rois)


def test_threads_share_a_model() -> None:
    torch.manual_seed(0)
    model = DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS}))
    model.trained = True
    pictures = (torch.rand(9, 3, 70, 70) * 255).to(torch.uint8)
    wanted = DiffMICv2.predict(model, pictures, progress=False).probs
    fresh = DiffMICv2(model.config)
    fresh.load_state_dict(model.state_dict())
    fresh.trained = True
    answers: list[torch.Tensor] = []
    threads = [
        threading.Thread(target=lambda: answers.append(fresh.eval().predict(pictures, progress=False).probs))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    for answer in answers:
        torch.testing.assert_close(answer, wanted, rtol=0, atol=1e-6)


def test_predict_leaves_the_memory_of_weights_as_it_was() -> None:
    """Another thread may be computing with it, and whoever trains on chose its layout."""
    for layout in (torch.contiguous_format, torch.channels_last):
        model = DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS})).eval().to(memory_format=layout)
        model.trained = True
        before = [(tensor.data_ptr(), tensor.stride()) for tensor in model.state_dict().values()]
        model.predict((torch.rand(2, 3, 70, 70) * 255).to(torch.uint8), progress=False)
        assert [(tensor.data_ptr(), tensor.stride()) for tensor in model.state_dict().values()] == before


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_callers_autocast_and_modes_change_no_prediction(precision: str) -> None:
    torch.manual_seed(0)
    model = DiffMICv2(DiffMICConfig(**{"num_classes": 3, **TINY, **SMALL_ENCODERS}))
    model.trained = True
    pictures = (torch.rand(3, 3, 70, 70) * 255).to(torch.uint8)
    wanted = model.predict(pictures, precision=precision, progress=False)
    for context in (
        torch.autocast("cpu", torch.bfloat16),
        torch.inference_mode(),
        torch.no_grad(),
        torch.enable_grad(),
        using(PLAIN, CPU),
    ):
        with context:
            found = model.predict(pictures, precision=precision, progress=False)
        assert torch.equal(found.probs, wanted.probs) and torch.equal(found.rois, wanted.rois)


def test_weights_that_are_normalised_are_so_in_full_precision() -> None:
    encoder = create_encoder("test_nfnet", 96).eval()
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = encoder(images)
        with using(BF16, CPU):
            plain, quick = encoder(images).float(), inference_encoder(encoder, images)(images).float()
    assert (quick - wanted).norm() <= 1.1 * (plain - wanted).norm()
