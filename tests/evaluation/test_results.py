"""Tables of predictions, written and read."""

from __future__ import annotations

import torch
from factories import random_predictions

from diffmiczoo.evaluation.results import LabelledPredictions


def test_predictions_come_back_from_their_table(tmp_path) -> None:
    predictions = random_predictions(count=10)
    grouped = LabelledPredictions(**{**predictions.__dict__, "groups": tuple("aabbccddee")})
    grouped.save(tmp_path / "a.csv")
    loaded = LabelledPredictions.load(tmp_path / "a.csv")
    torch.testing.assert_close(loaded.probs, grouped.probs, rtol=1e-5, atol=1e-7)
    assert {**loaded.__dict__, "probs": 0} == {**grouped.__dict__, "probs": 0}
    several = LabelledPredictions(
        ("x", "y"), (("a", "b"), ()), None, torch.tensor([[0.9, 0.8], [0.1, 0.3]]), ("a", "b"), "multilabel"
    )
    several.save(tmp_path / "b.csv")
    assert LabelledPredictions.load(tmp_path / "b.csv").labels == several.labels
    assert LabelledPredictions.load(tmp_path / "b.csv").task == "multilabel"
