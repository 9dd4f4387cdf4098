"""Evaluation mode for as long as a prediction takes."""

from __future__ import annotations

import pytest
from factories import small_model

from diffmiczoo.runtime.modes import eval_mode


def test_a_model_in_training_mode_stays_in_eval_mode_until_the_last_thread_is_done() -> None:
    model = small_model().train()
    model.dcg.eval()
    first, second = eval_mode(model), eval_mode(model)
    with first:
        second.__enter__()
    assert not any(module.training for module in model.modules())
    second.__exit__(None, None, None)
    assert model.training and model.unet.training and not model.dcg.training
    with eval_mode(model):
        model.train()
        with eval_mode(model):
            assert not any(module.training for module in model.modules())
    assert model.training and not model.dcg.training
    with pytest.raises(ZeroDivisionError), eval_mode(model):
        1 / 0  # noqa: B018
    assert model.training and not model.dcg.training
