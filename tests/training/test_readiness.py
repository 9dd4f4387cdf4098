"""`fit` in surroundings where gradients, types or parameters are not as an optimiser needs them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest
import torch
from factories import QUICK, pictures, small_model, tiny_model

import diffmiczoo
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.readiness import make_trainable

#: One step of each stage is enough to see whether anything is learned.
ONE = QUICK.replace(dcg_epochs=1, diffusion_epochs=1, batch_size=24, rotation=0, hflip=0)

SURROUNDINGS: dict[str, Callable[[], AbstractContextManager]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def test_the_caller_s_surroundings_have_no_say_in_training(common_manifest, tmp_path) -> None:
    plain = diffmiczoo.fit(tiny_model(), common_manifest, recipe=ONE, output=tmp_path / "a", progress=False)
    with ExitStack() as all_of_them:
        for enter in SURROUNDINGS.values():
            all_of_them.enter_context(enter())
        # The model too: tensors that are made in inference mode take no gradients.
        result = diffmiczoo.fit(tiny_model(), common_manifest, recipe=ONE, output=tmp_path / "b", progress=False)
        assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
    for key, tensor in plain.model.state_dict().items():
        assert torch.equal(result.model.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_caller_s_surroundings_have_no_say_in_predictions(name: str) -> None:
    model = small_model(trained=True)
    wanted = model.predict(pictures(2)).probs
    with SURROUNDINGS[name]():
        assert torch.equal(model.predict(pictures(2)).probs, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32_with_a_word(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    with pytest.warns(UserWarning, match=f"parameters were {str(dtype)[6:]} and are float32 now"):
        make_trainable(model, ONE)
    assert {tensor.dtype for tensor in model.state_dict().values() if tensor.is_floating_point()} == {torch.float32}
    assert model.default_noise.dtype == torch.float32


@pytest.mark.parametrize(
    ("part", "freeze", "said"),
    [("", "none", True), ("dcg", "none", True), ("unet", "backbones", True), ("encoders", "backbones", False)],
)
def test_requires_grad_is_not_dropped_without_a_word(part: str, freeze: str, said: bool) -> None:
    model = tiny_model()
    parts = model.encoders() if part == "encoders" else [model.get_submodule(part)]
    for module in parts:
        module.requires_grad_(False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainable(model, ONE.replace(freeze=freeze))
    assert [("requires_grad=False; they are trained all the same" in str(w.message)) for w in caught] == [True] * said


def test_an_ordinary_model_is_left_alone() -> None:
    model: DiffMICv2 = tiny_model()
    before = list(model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_trainable(model, ONE)
    assert all(one is other for one, other in zip(model.parameters(), before, strict=True))
