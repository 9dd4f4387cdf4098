"""The weights that ship answer as they did before; `reference_answers.py` compares to the last bit on one machine."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reference_answers import FILE, WEIGHTS, answers

STORED = json.loads(FILE.read_text())


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_answer_as_they_did(name: str) -> None:
    found = answers(name)
    assert found["rois"] == STORED[name]["rois"]
    for key in ("probs", "uncertainty"):
        np.testing.assert_allclose(found[key], STORED[name][key], rtol=0, atol=1e-6)
