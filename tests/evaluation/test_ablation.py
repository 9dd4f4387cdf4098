"""What each member of a pool is worth, and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from factories import run_command, tiny_model

from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.ablation import SplitLogits, ablate
from diffmiczoo.evaluation.dcg_report import predict_with_dcg
from diffmiczoo.evaluation.evaluate import scores_and_members
from diffmiczoo.evaluation.members import MemberLogits
from diffmiczoo.inference.probabilities import scores_to_probs
from diffmiczoo.metrics.ablation import Ablation
from diffmiczoo.metrics.calibration import fit_calibration


def members(targets: torch.Tensor, skills: tuple[float, float, float], seed: int) -> MemberLogits:
    """Members of two classes that tell the truth by so much, beside noise of 1: ŷ_g, ŷ_l and the sampler."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.nn.functional.one_hot(targets, 2).float()
    noisy = [skill * truth + torch.randn(len(targets), 2, generator=generator) for skill in skills]
    return MemberLogits(noisy[2].softmax(1), torch.stack(noisy[:2], 1), targets, torch.zeros(len(targets), 0))


def found(manifest_csv, skills: tuple[float, float, float], bootstrap: int = 50) -> Ablation:
    train = read_manifest(manifest_csv, class_names=("dark", "light")).split("train")
    images = train.with_records(train.records * 8)
    targets = torch.from_numpy(images.targets())
    val, test = members(targets, skills, 0), members(targets, skills, 1)
    config = tiny_model(class_names=("dark", "light")).config
    logistic = SplitLogits(val.members[:, 0], test.members[:, 0])
    return ablate(config, val, test, images, logistic=logistic, bootstrap=bootstrap)


def test_rows_follow_the_members_skill(manifest_csv) -> None:
    ablation = found(manifest_csv, (2.0, 0.0, 3.0))
    values = ablation.values
    assert list(values) == ["global", "local", "priors", "logistic", "logistic_pool", "sampler", "pool"]
    assert values["local"]["accuracy"] < 0.65 < values["global"]["accuracy"] < values["pool"]["accuracy"]
    assert values["logistic"]["nll"] == pytest.approx(values["global"]["nll"], rel=0.02)
    assert values["pool"]["nll"] < min(values[row]["nll"] for row in ("global", "local", "priors", "sampler"))
    difference = ablation.differences["priors"]["nll"]
    assert difference[0] == pytest.approx(values["pool"]["nll"] - values["priors"]["nll"])
    assert "The second stage beats *ŷ_g and ŷ_l weighted* in NLL" in ablation.verdict()
    assert Ablation.from_dict(ablation.to_dict()) == ablation
    assert f"| sampler alone | {values['sampler']['accuracy']:.3f} |" in ablation.table()


def test_a_second_stage_that_knows_nothing_is_called_that(manifest_csv) -> None:
    ablation = found(manifest_csv, (2.0, 2.0, 0.0))
    assert "**The second stage does not " in ablation.verdict()
    assert "beats" not in ablation.verdict()


def test_the_verdict_is_that_of_the_intervals() -> None:
    values = {"pool": {"nll": 0.5, "balanced_accuracy": 0.6}, "priors": {"nll": 0.4, "balanced_accuracy": 0.6}}
    worse = Ablation(values, {"priors": {"nll": (0.1, 0.05, 0.2), "balanced_accuracy": (0.0, -0.1, 0.1)}})
    assert "does not pay against *ŷ_g and ŷ_l weighted***: it is worse in NLL." in worse.verdict()
    better = Ablation(values, {"priors": {"nll": (-0.1, -0.2, -0.05), "balanced_accuracy": (0.0, -0.1, 0.1)}})
    assert better.verdict() == ("The second stage beats *ŷ_g and ŷ_l weighted* in NLL, and not in balanced accuracy.")


def test_one_pass_keeps_what_it_was_made_of(manifest_csv) -> None:
    model = tiny_model(class_names=("dark", "light"), prior_weight=(0.4, 0.1))
    test = read_manifest(manifest_csv, class_names=("dark", "light")).split("test")
    model.trained = True
    kept = predict_with_dcg(model, test, progress=False).members
    assert kept is not None and kept.features.shape == (8, model.config.latent_dim)
    assert kept.members.shape == (8, 2, 2) and kept.targets.tolist() == test.targets().tolist()
    # F is a row per image also where each is predicted as several views.
    model.config = model.config.replace(tta="hflip")
    mirrored = predict_with_dcg(model, test, progress=False).members
    torch.testing.assert_close(mirrored.features, kept.features, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(mirrored.members, kept.members, atol=1e-4)


def test_without_a_second_stage_there_is_nothing_to_compare(manifest_csv) -> None:
    config = tiny_model(class_names=("dark", "light"), predictor="dcg").config
    images = read_manifest(manifest_csv, class_names=("dark", "light")).split("val")
    each = members(torch.from_numpy(images.targets()), (1.0, 1.0, 1.0), 0)
    with pytest.raises(ValueError, match="predictor='dcg' has no second stage"):
        ablate(config, each, each, images)


def test_the_command_shows_the_members(manifest_csv, run_directory, tmp_path) -> None:
    arguments = ("evaluate", manifest_csv, "--model", f"local-dir:{run_directory}/best", "--members", "--bootstrap", 10)
    shown = run_command(*arguments).output
    assert "| ŷ_g alone |" in shown and "logistic" not in shown and "The second stage" in shown
    # Refused before anything is predicted.
    wrong = run_command(*arguments, "--split", "val", "--predictions", tmp_path / "val.csv")
    assert "among them; measure another split" in wrong.output and not (tmp_path / "val.csv").exists()


def test_a_classifier_on_f_is_a_member_of_the_pool(manifest_csv) -> None:
    """From the model through its prediction to the probabilities, and in the order of the weights."""
    model = tiny_model(
        class_names=("dark", "light"), feature_loss_weight=1.0, prior_weight=(0.4, 0.1), feature_weight=0.6
    )
    model.trained = True
    test = read_manifest(manifest_csv, class_names=("dark", "light")).split("test")
    items = [record.item() for record in test.records]
    whole, parts = model.predict(items), model.predict(items, batch_size=3)
    assert model.config.pool_weights == (0.4, 0.1, 0.6) and whole.members.shape == (8, 3, 2)
    torch.testing.assert_close(whole.feature_logits, parts.feature_logits, rtol=0, atol=1e-6)
    assert torch.equal(whole[2:4].feature_logits, whole.feature_logits[2:4])
    assert list(whole.to_dict()["images"][0]["feature_logits"]) == ["dark", "light"]
    without = model.config.replace(feature_weight=0.0)
    logits = scores_to_probs(whole.scores, without, whole.members).log() + 0.6 * whole.feature_logits
    torch.testing.assert_close(whole.probs, logits.softmax(1))
    images = torch.stack(list(model.preprocess(items)))
    with torch.inference_mode():
        stacked = scores_and_members(model.eval(), images)
    torch.testing.assert_close(stacked[:, 1:], whole.members, rtol=1e-3, atol=1e-3)
    twice = dataclasses.replace(predict_with_dcg(model, test, progress=False).members, targets=whole.probs.argmax(1))
    fields = fit_calibration(*(torch.cat([part] * 2) for part in (twice.scores, twice.members, twice.targets)), without)
    assert fields.keys() == {"temperature", "prior_weight", "feature_weight"} and len(fields["prior_weight"]) == 2
    rows = ablate(without, twice, twice, test, bootstrap=0).values
    assert {"feature", "all_priors"} < rows.keys()
