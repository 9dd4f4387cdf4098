"""Fixtures of the tests of `evaluation`."""

from __future__ import annotations

import pytest
from factories import QUICK, tiny_model

import diffmiczoo


@pytest.fixture
def weights(manifest_csv, tmp_path):
    recipe = QUICK.replace(dcg_epochs=2, diffusion_epochs=2)
    return diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False).output
