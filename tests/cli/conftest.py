"""Fixtures of the tests of the command line."""

from __future__ import annotations

import pytest
import torch
from factories import SMALL_ENCODERS, TINY

import diffmiczoo


@pytest.fixture
def weights(tmp_path) -> str:
    torch.manual_seed(0)
    model = diffmiczoo.create_model("diffmicv2_nano", class_names=["dark", "light"], **{**TINY, **SMALL_ENCODERS})
    model.trained = True
    model.save_pretrained(tmp_path / "weights")
    return f"local-dir:{tmp_path / 'weights'}"
