"""A model on pictures that went wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from factories import small_model, tiny_model

import diffmiczoo
from diffmiczoo.evaluation.robustness import robustness
from diffmiczoo.inference.limits import settings_of
from diffmiczoo.metrics.robustness import Robustness, RobustnessRow
from diffmiczoo.trust.conformal import SetRule, SetRules
from diffmiczoo.trust.gate import fit_gate
from diffmiczoo.trust.stored import Trust


@pytest.fixture(scope="module")
def pictures() -> list[torch.Tensor]:
    """Forty pictures of noise."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(60, 190, (3, 64, 64), dtype=np.uint8)) for _ in range(40)]


@pytest.fixture(scope="module")
def found(pictures) -> Robustness:
    model = small_model(trained=True, task="multilabel", class_names=("cat", "dog", "eel"))
    features = model.embed(pictures).numpy()
    sets = SetRules((SetRule(0.1, 0.3, (0.2, 0.3, None)),), 60, (30, 22, 8))
    model.trust = Trust(settings_of(model.config), fit_gate(features[:20], features[20:]), sets, None)
    return robustness(model, Labelled(pictures[20:]), corruptions=["noise", "blur"], progress=False)


class Labelled:
    """A dataset of pairs of several labels."""

    classes = ("cat", "dog", "eel")

    def __init__(self, pictures) -> None:
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int):
        return self.pictures[index], [float(index % 2), float(index % 3 == 0), float(index % 7 == 0)]


def test_the_clean_row_is_what_evaluate_says(manifest_csv) -> None:
    model = tiny_model(class_names=("dark", "light"))
    model.trained = True
    plain = diffmiczoo.evaluate(model, manifest_csv, bootstrap=0, progress=False)
    found = robustness(model, manifest_csv, corruptions=["jpeg"], progress=False)
    assert found.clean.values == {name: plain.values[name] for name in found.clean.values}
    assert found.clean.values.keys() == {"accuracy", "balanced_accuracy", "ece", "nll"}
    assert found.num_images == 8 and [row.severity for row in found.rows] == [1, 2, 3]
    again = robustness(model, manifest_csv, corruptions=["jpeg"], batch_size=3, progress=False)
    for one, other in zip(found.rows, again.rows, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-5)
    assert found.clean.coverage is None and found.clean.flagged is None
    assert "flagged" not in found.table() and "sets cover" not in found.table()


def test_sets_and_flags_are_measured_where_the_weights_have_them(found) -> None:
    assert found.clean.values.keys() == {"accuracy", "auroc", "ece", "nll"}
    for row in (found.clean, *found.rows):
        assert 0 <= row.coverage <= 1 <= row.set_size <= 3 and 0 <= row.flagged <= 1
    blurred = next(row for row in found.rows if row.corruption == "blur" and row.severity == 3)
    assert found.clean.flagged < 0.3 < 0.7 < blurred.flagged


def test_the_mean_is_over_the_corrupted_ones(found) -> None:
    assert len(found.rows) == 6 and found.mean.corruption == "mean"
    assert found.mean.values["nll"] == pytest.approx(np.mean([row.values["nll"] for row in found.rows]))
    assert found.mean.flagged == pytest.approx(np.mean([row.flagged for row in found.rows]))
    assert [(row.corruption, row.severity) for row in found.worst()] == [("noise", 3), ("blur", 3)]
    assert replace(found, rows=(RobustnessRow("blur", 1, found.clean.values),)).mean.flagged is None


def test_it_is_read_back_as_it_was(found) -> None:
    assert Robustness.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(ValueError, match="no measurement of robustness"):
        Robustness.from_dict({"rows": []})


def test_the_table_has_a_line_for_each_state(found) -> None:
    lines = found.table().splitlines()
    assert lines[0] == "20 images, in 6 corrupted versions" and lines[2].split()[:3] == [
        "corruption",
        "severity",
        "accuracy",
    ]
    assert len({len(line) for line in lines[2:]}) == 1
    assert [line.split()[0] for line in lines[3:]] == ["clean", *["noise"] * 3, *["blur"] * 3, "mean"]


def test_corruptions_that_there_are_not_are_named(pictures) -> None:
    model = small_model(trained=True, task="multilabel", class_names=("cat", "dog", "eel"))
    for names, message in ((["fog"], "'fog' is no corruption"), ([], "there are no corruptions")):
        with pytest.raises(ValueError, match=message):
            robustness(model, Labelled(pictures), corruptions=names)
