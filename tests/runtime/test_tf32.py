"""TF32 is off while the package computes on a GPU, and the caller's settings come back."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from diffmiczoo.runtime.settings import FAST, training_runtime
from diffmiczoo.runtime.tf32 import _settings, without_tf32

GPU = torch.device("cuda")


def found() -> list[object]:
    return [getattr(owner, name) for owner, name, _ in _settings()]


def off() -> list[object]:
    return [value for _, _, value in _settings()]


def test_settings_are_off_within_and_restored_after() -> None:
    before = found()
    assert before != off(), "PyTorch lets convolutions use TF32 by default"
    with pytest.raises(ZeroDivisionError), without_tf32(GPU):
        assert found() == off()
        raise ZeroDivisionError
    assert found() == before


def test_the_last_that_leaves_restores() -> None:
    before = found()
    with ExitStack() as outer:
        outer.enter_context(without_tf32(GPU))
        with without_tf32(GPU):
            outer.close()
            assert found() == off(), "another thread still computes"
    assert found() == before


def test_processors_have_no_tf32() -> None:
    before = found()
    with without_tf32(torch.device("cpu")):
        assert found() == before
    assert not FAST.tf32 and training_runtime("fp32").tf32
