"""Tables of predictions, written and read."""

from __future__ import annotations

import torch
from factories import random_answers

from diffmiczoo.evaluation.results import Answers


def test_answers_come_back_from_their_table(tmp_path) -> None:
    answers = random_answers(count=10)
    grouped = Answers(**{**answers.__dict__, "groups": tuple("aabbccddee")})
    grouped.save(tmp_path / "a.csv")
    loaded = Answers.load(tmp_path / "a.csv")
    torch.testing.assert_close(loaded.probs, grouped.probs, rtol=1e-5, atol=1e-7)
    assert {**loaded.__dict__, "probs": 0} == {**grouped.__dict__, "probs": 0}
    several = Answers(
        ("x", "y"), (("a", "b"), ()), None, torch.tensor([[0.9, 0.8], [0.1, 0.3]]), ("a", "b"), "multilabel"
    )
    several.save(tmp_path / "b.csv")
    assert Answers.load(tmp_path / "b.csv").labels == several.labels
    assert Answers.load(tmp_path / "b.csv").task == "multilabel"
