"""The sampling loop: starts, steps and options."""

from __future__ import annotations

import pytest
import torch
from factories import pictures, small_model

from diffmiczoo.model import DiffMICv2
from diffmiczoo.nn.unet_folded import FoldedUNet


def test_the_encoders_run_once_whatever_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls, unet_calls = small_model(), [], []
    for part in ("dcg.global_encoder", "dcg.local_encoder", "feature_prior.raw_encoder", "feature_prior.roi_encoder"):
        model.get_submodule(part).register_forward_hook(lambda *_, part=part: calls.append(part))
    call = FoldedUNet.__call__
    monkeypatch.setattr(FoldedUNet, "__call__", lambda *args: (unet_calls.append(1), call(*args))[1])
    model.trained = True
    model.predict(pictures(1), steps=7)
    assert len(calls) == 4 and len(unet_calls) == 7


def test_sampling_options() -> None:
    model = small_model()
    with torch.no_grad():
        condition = model.condition(torch.randn(2, 3, 64, 64))
        noise = torch.randn(2, 3, 3, 3)
        single = model.sample(condition, 4, y_T=noise)
        torch.testing.assert_close(model.sample(condition, 4, y_T=noise[None]), single)
        both = model.sample(condition, 4, y_T=torch.stack([noise, -noise]))
        torch.testing.assert_close(both, (single + model.sample(condition, 4, y_T=-noise)) / 2)
        drawn = [model.sample(condition, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
        assert torch.equal(*drawn) and not torch.equal(drawn[0], model.sample(condition))
        assert torch.equal(model.sample(condition), model.sample(condition))
        for wrong in ({"steps": 0}, {"num_samples": 0}):
            with pytest.raises(ValueError, match=next(iter(wrong))):
                model.sample(condition, **wrong)


@torch.no_grad()
def test_fields_that_do_not_shape_the_weights_take_effect_when_changed() -> None:
    model, images = small_model(), torch.randn(2, 3, 64, 64)
    for fields in ({"clip_sample": False}, {"num_samples": 3}, {"shared_noise": True}, {"init": "interpolated"}):
        fresh = DiffMICv2(model.config.replace(**fields)).eval()
        fresh.load_state_dict(model.state_dict())
        before = model(images)
        model.config = model.config.replace(**fields)
        assert torch.equal(model(images), fresh(images)) and not torch.equal(model(images), before), fields
