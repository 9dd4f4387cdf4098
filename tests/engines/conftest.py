"""Weights that the engines load by name."""

from __future__ import annotations

import pytest
from factories import small_model


@pytest.fixture(scope="package")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("weights")
    small_model().save_pretrained(directory)
    return f"local-dir:{directory}"
