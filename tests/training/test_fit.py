"""What a training run learns, changes and leaves alone."""

from __future__ import annotations

import csv

import pytest
import torch
from factories import BRIEF, QUICK, SMALL_ENCODERS, TINY, tiny_model

import diffmiczoo
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.metrics import calibration, decisions
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.recipe import Recipe


@pytest.fixture
def eight_are_enough(monkeypatch) -> None:
    """Lets the 8 validation images of these tests calibrate a model."""
    for module in (calibration, decisions):
        monkeypatch.setattr(module, "LEAST_TO_CALIBRATE", 8)


@pytest.mark.usefixtures("eight_are_enough")
def test_fit_learns_what_is_easy_and_leaves_a_loadable_model(manifest_csv, tmp_path) -> None:
    model = tiny_model(latent_dim=32)
    recipe = QUICK.replace(dcg_epochs=4, diffusion_epochs=24, diffusion_lr=3e-2, validate_every=8)
    state = torch.get_rng_state()
    result = diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.trained and model.config.labels == ("dark", "light") and model.config.temperature is not None
    test = read_manifest(manifest_csv).split("test")
    loaded = diffmiczoo.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True)
    prediction = loaded.predict([record.path for record in test.records])
    assert prediction.labels == [record.labels[0] for record in test.records]
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [row["stage"] for row in rows] == ["dcg"] * 4 + ["diffusion"] * 24
    assert len(result.history) == 28 and all(float(row["train_loss"]) > 0 for row in rows)
    assert Recipe.load(tmp_path / "run" / "recipe.json") == recipe


@pytest.mark.usefixtures("eight_are_enough")
def test_a_calibrated_model_is_the_pool_that_was_fitted_in_training(manifest_csv, tmp_path) -> None:
    recipe = QUICK.replace(dcg_epochs=3, diffusion_epochs=2, dcg_lr=1e-2, select="nll")
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    model = diffmiczoo.create_model(f"local-dir:{tmp_path}/run/best", pretrained=True)
    assert model.config.prior_weight == result.model.config.prior_weight != (0, 0)
    records = read_manifest(manifest_csv).split("val").records
    truth = torch.tensor([model.config.labels.index(record.labels[0]) for record in records])
    found = model.predict([record.path for record in records])
    fitted = calibration.fit_calibration(found.scores, found.members, truth, model.config)
    assert fitted["temperature"] == pytest.approx(model.config.temperature, rel=1e-3)
    assert fitted["prior_weight"] == pytest.approx(model.config.prior_weight, rel=1e-3, abs=1e-4)
    best = next(row for row in result.history if row["stage"] == "diffusion" and row["best"])
    assert float(torch.nn.functional.nll_loss(found.probs.double().log(), truth)) == pytest.approx(
        best["nll"], abs=1e-4
    )


def test_a_dcg_that_learns_alone_takes_the_calibration_with_it(manifest_csv, tmp_path) -> None:
    model = tiny_model(temperature=0.123, prior_weight=7.0)
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=0)
    diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert model.config == model.config.uncalibrated()


def test_stage_two_leaves_the_dcg_as_it_is(manifest_csv, tmp_path) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    diffmiczoo.fit(model, manifest_csv, recipe=QUICK.replace(dcg_epochs=0), output=tmp_path / "run", progress=False)
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"feature_prior", "unet"}


def test_stage_one_touches_only_the_dcg_and_stays_untrained(manifest_csv, tmp_path) -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recipe = QUICK.replace(diffusion_epochs=0)
    diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"dcg"} and not model.trained


def test_a_loss_that_is_not_finite_stops_the_run(manifest_csv, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(DiffMICv2, "dcg_loss", lambda self, *_, **__: next(self.parameters()).sum() * float("nan"))
    with pytest.raises(ValueError, match="the loss became nan in stage dcg, epoch 1, batch 1"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "run", progress=False)


def test_fit_refuses_what_does_not_fit(manifest_csv, tmp_path) -> None:
    with pytest.raises(ValueError, match=r"call finetune, or model\.reset_classifier"):
        diffmiczoo.fit(tiny_model(num_classes=3), manifest_csv, output=tmp_path / "run")
    with pytest.raises(ValueError, match="do not fill one batch of 64"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=Recipe(), output=tmp_path / "run")
    with pytest.raises(ValueError, match="resume='maybe'"):
        diffmiczoo.fit(tiny_model(), manifest_csv, output=tmp_path / "run", resume="maybe")
    with pytest.raises(TypeError, match=r"recipe is a dict; expected a Recipe"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe={"seed": 1}, output=tmp_path / "run")


@pytest.mark.parametrize("training", [True, False])
def test_fit_leaves_the_mode_as_found(manifest_csv, tmp_path, training: bool) -> None:
    model = tiny_model().train(training)
    recipe = QUICK.replace(dcg_epochs=1, diffusion_epochs=1)
    diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert all(module.training is training for module in model.modules())


def test_the_best_epoch_is_marked(manifest_csv, tmp_path) -> None:
    result = diffmiczoo.fit(tiny_model(), manifest_csv, recipe=QUICK, output=tmp_path / "run", progress=False)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    for stage in ("dcg", "diffusion"):
        of_stage = [row for row in rows if row["stage"] == stage]
        (best,) = [row for row in of_stage if row["best"] == "True"]
        assert float(best["auroc"]) == max(float(row["auroc"]) for row in of_stage)
    assert [row["best"] for row in result.history] == [row["best"] == "True" for row in rows]


def test_a_model_of_grades_reports_kappa_and_may_choose_by_it(manifest_csv, tmp_path) -> None:
    recipe = BRIEF.replace(select="quadratic_kappa")
    with pytest.raises(ValueError, match="ordinal=True"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run")
    result = diffmiczoo.fit(
        tiny_model(ordinal=True), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False
    )
    assert "quadratic_kappa" in result.metrics.values and "quadratic_kappa" in result.history[0]


@pytest.mark.usefixtures("eight_are_enough")
def test_a_multilabel_run(manifest_csv, tmp_path) -> None:
    lines = manifest_csv.read_text().splitlines()
    several = [lines[0], *(line.replace("dark", "").replace(",light,", ",light|warm,") for line in lines[1:])]
    manifest_csv.write_text("\n".join(several) + "\n")
    model = diffmiczoo.create_model(
        "diffmicv2_nano", class_names=["light", "warm"], task="multilabel", **{**TINY, **SMALL_ENCODERS}
    )
    recipe = BRIEF.replace(dcg_epochs=3, class_weights="balanced", sampling="balanced", select="average_precision")
    result = diffmiczoo.fit(model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert {"average_precision", "auroc"} <= result.metrics.values.keys() and len(result.model.config.thresholds) == 2
    assert not (result.output / "confusion.png").exists()
    again = diffmiczoo.fit(result.model, manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False)
    assert again.history == result.history  # thresholds are a result, and no reason to refuse the checkpoint
