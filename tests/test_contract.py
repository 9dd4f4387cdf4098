"""Every registered name keeps the contract of models."""

from __future__ import annotations

import pytest
from contract import ModelContract, changeable, images, model, scores, targets  # noqa: F401

import diffmiczoo


@pytest.mark.parametrize("name", diffmiczoo.list_models(), scope="module")
class TestRegisteredModels(ModelContract):
    pass
