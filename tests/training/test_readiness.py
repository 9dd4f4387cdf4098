"""`fit` in surroundings where gradients, types or parameters are not as an optimiser needs them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest
import torch
from factories import QUICK, pictures, small_model, tiny_model

import diffmiczoo
import diffmiczoo.training.fit as fit_module
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


def gradients(model: DiffMICv2) -> list[torch.Tensor]:
    """What a first step of training computes."""
    model.eval().to(memory_format=torch.channels_last).zero_grad()
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    model.training_loss(images, torch.tensor([0, 1]), torch.Generator().manual_seed(0)).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("learn", [diffmiczoo.fit, diffmiczoo.finetune])
def test_the_caller_s_surroundings_have_no_say_in_training(common_manifest, tmp_path, monkeypatch, learn) -> None:
    """Where the steps are made, the same ones are made as in no surroundings at all."""
    found: list[list[torch.Tensor]] = []
    monkeypatch.setattr(fit_module, "_train", lambda trainer, *_: found.append(gradients(trainer.model)))
    monkeypatch.setattr(fit_module, "write_artifacts", lambda *_: None)
    classes = {"class_names": ("dark", "light")}  # those of the pictures, so that no layer begins anew
    wanted = gradients(tiny_model(**classes))
    with ExitStack() as all_of_them:
        for enter in SURROUNDINGS.values():
            all_of_them.enter_context(enter())
        # The model too: tensors that are made in inference mode take no gradients.
        learn(tiny_model(**classes), common_manifest, recipe=ONE, output=tmp_path / "run", progress=False)
        assert not torch.is_grad_enabled() and torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
    assert len(wanted) > 50 and len(found[0]) == len(wanted)
    assert all(torch.equal(one, other) for one, other in zip(found[0], wanted, strict=True))


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
