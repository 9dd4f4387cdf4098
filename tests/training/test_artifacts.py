"""What a run leaves in its directory."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from factories import BRIEF, tiny_model
from PIL import Image

import diffmiczoo
from diffmiczoo.data.manifest import Manifest, Record
from diffmiczoo.evaluation.trust import fit_limits
from diffmiczoo.hub.card_facts import IncompleteCardError, read_facts
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training import limits
from diffmiczoo.training.recipe import Recipe


@pytest.fixture(scope="module")
def run(common_manifest, tmp_path_factory):
    """A finished run; nobody may write into its directory."""
    output = tmp_path_factory.mktemp("artifacts") / "run"
    return diffmiczoo.fit(tiny_model(), common_manifest, recipe=BRIEF, output=output, progress=False)


def test_a_run_leaves_all_that_the_documentation_names(run) -> None:
    names = {path.name for path in run.output.iterdir()}
    assert names == {
        "README.md",
        "best",
        "checkpoint.pt",
        "confusion.png",
        "curves.png",
        "data_report.json",
        "last",
        "metrics.csv",
        "recipe.json",
    }
    page = (run.output / "README.md").read_text()
    for part in ("| dark | 12 | 4 |", "its DCG alone", "stage diffusion: epoch", "curves.png", "confusion.png"):
        assert part in page
    for picture in ("curves.png", "confusion.png"):
        with Image.open(run.output / picture) as image:
            assert image.width > 200 and len(np.unique(np.asarray(image))) > 10
    report = json.loads((run.output / "data_report.json").read_text())
    assert report["counts"]["train"] == {"dark": 12, "light": 12} and not report["problems"]
    rows = list(csv.DictReader((run.output / "metrics.csv").open()))
    assert [row["best"] for row in rows].count("True") == 2


def test_weights_of_a_run_know_their_limits(run, common_manifest) -> None:
    best = DiffMICv2.from_pretrained(run.output / "best")
    assert best.trust is not None and best.trust.sets is not None and best.trust.sets.groups == 4
    assert best.trust.to_text() == run.model.trust.to_text()
    own, anew = best.trust, fit_limits(copy.deepcopy(best), common_manifest, progress=False)
    assert own.settings == anew.settings and own.mean_probs == pytest.approx(anew.mean_probs, abs=1e-4)
    for rule, other in zip(own.sets.rules, anew.sets.rules, strict=True):
        assert rule.by_class == pytest.approx(other.by_class, abs=1e-4)
    assert DiffMICv2.from_pretrained(run.output / "last").trust is None


def test_the_gate_of_a_run_is_fitted_to_training_and_validation_squares(run, monkeypatch) -> None:
    found = []
    monkeypatch.setattr(limits, "fit_trust", lambda config, training, known: found.append((training, known)))
    images = {name: torch.randint(0, 256, (count, 3, 64, 64), dtype=torch.uint8) for name, count in SQUARES.items()}
    manifest = Manifest("images", tuple(Record(Path(f"{i}.png"), ("dark",)) for i in range(5)), NAMES, "multiclass")
    data = SimpleNamespace(train=Squares(images["train"], manifest), val=Squares(images["val"], manifest))
    trainer = SimpleNamespace(model=run.model, data=data, recipe=Recipe(batch_size=4), progress=False)
    limits.limits_of_run(trainer, torch.full((5, 2), 0.5), torch.zeros(5, dtype=torch.long))
    (training, known), own = found[0], run.model.embed([*images["val"]])
    torch.testing.assert_close(torch.from_numpy(known.features), own, rtol=1e-3, atol=1e-3)
    everything = run.model.embed([*images["train"]])
    torch.testing.assert_close(training.sort(0).values, everything.sort(0).values, rtol=1e-3, atol=1e-3)
    trainer.settings = SimpleNamespace(output=Path("runs/mine"))
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="runs/mine: what the weights know about their limits could not be fitted: "):
        assert limits.limits_of_run(trainer, torch.full((5, 2), torch.nan), torch.zeros(5, dtype=torch.long)) is None


NAMES, SQUARES = ("dark", "light"), {"train": 7, "val": 5}


class Squares(NamedTuple):
    squares: torch.Tensor
    manifest: Manifest

    def __len__(self) -> int:
        return len(self.squares)


def test_drawings_of_a_run_are_no_pictures_to_read(run, tmp_path) -> None:
    run.model.predict(np.zeros((20, 30, 3), np.uint8)).save_overlay(tmp_path / "overlay.png")
    for drawing in (run.output / "curves.png", run.output / "confusion.png", tmp_path / "overlay.png"):
        with pytest.raises(diffmiczoo.ImageError, match=f"{drawing.name}.*is drawn by diffmiczoo"):
            run.model.preprocess(drawing)


def test_a_folder_with_a_run_in_it_is_read_without_it(run, tmp_path) -> None:
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    shutil.copytree(run.output, tmp_path / "run")
    with pytest.warns(UserWarning, match="runs of diffmiczoo fit are passed over: run$"):
        assert run.model.predict(tmp_path).names == [str(tmp_path / "a.png")]


def test_last_is_the_last_epoch_and_best_the_best(run) -> None:
    best, last = (
        diffmiczoo.create_model(f"local-dir:{run.output}/{name}", pretrained=True).state_dict()
        for name in ("best", "last")
    )
    assert all(torch.equal(tensor, best[name]) for name, tensor in run.model.state_dict().items())
    best_epochs = [row["epoch"] for row in run.history if row["stage"] == "diffusion" and row["best"]]
    same = all(torch.equal(tensor, last[name]) for name, tensor in best.items())
    assert same == (best_epochs == [2])


def test_the_card_of_a_run_asks_for_what_only_its_maker_knows(run) -> None:
    with pytest.raises(IncompleteCardError) as error:
        read_facts(run.output / "best")
    text = str(error.value)
    for name in ("'license'", "'data_license'", "'intended_use'", "'limits'", "on the test split are missing"):
        assert name in text
    assert "'split'" not in text and "'training_data'" not in text
    card = json.loads((run.output / "best" / "card.json").read_text())
    assert card["counts"] == {"train": 24, "val": 8}


def test_metrics_of_the_result_are_those_of_evaluate(run, common_manifest) -> None:
    measured = diffmiczoo.evaluate(run.model, common_manifest, split="val", bootstrap=0, progress=False)
    assert run.metrics.values == pytest.approx(measured.values, abs=1e-5)
    written = json.loads((run.output / "best" / "metrics.json").read_text())["val"]
    assert written["model"]["values"]["nll"] == pytest.approx(measured.values["nll"], abs=1e-5)
