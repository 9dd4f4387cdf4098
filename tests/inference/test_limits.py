"""What a prediction says about its limits: stored with weights, and refused where it cannot hold."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from factories import run_command, save_picture, small_model

import diffmiczoo
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.hub.serialization import load_model
from diffmiczoo.images.items import ImageError
from diffmiczoo.inference.limits import LIMIT_COLUMNS, settings_of
from diffmiczoo.inference.overlay_words import Answer, Bar, limits
from diffmiczoo.model import DiffMICv2
from diffmiczoo.trust.conformal import SetRule, SetRules
from diffmiczoo.trust.gate import fit_gate
from diffmiczoo.trust.selective import Deferral, Step
from diffmiczoo.trust.stored import Trust

OWN = [torch.from_numpy(np.random.default_rng(seed).uniform(0.3, 0.7, (3, 64, 64))).float() for seed in range(40)]
FOREIGN = torch.zeros(3, 64, 64)
FOREIGN[:, ::2] = 1

SETS = SetRules((SetRule(0.1, 0.3, (0.2, 0.3, None)), SetRule(0.2, 0.5, (0.4, 0.4, 0.4))), 60, (30, 22, 8))


def trusting(model: DiffMICv2, limit: float = 0.6) -> DiffMICv2:
    """Gives a model a gate that knows OWN, sets, and a deferral that starts at an uncertainty."""
    features = model.embed(OWN).numpy()
    deferral = Deferral((Step(limit, 300, 2), Step(0.9, 600, 300)), 700)
    model.trust = Trust(settings_of(model.config), fit_gate(features[:20], features[20:]), SETS, deferral)
    return model


@pytest.fixture(scope="module")
def model() -> DiffMICv2:
    return trusting(small_model(trained=True, class_names=("cat", "dog", "eel")))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    own = (OWN[1].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    foreign = (FOREIGN.permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    return [save_picture(folder / "own.png", own), save_picture(folder / "foreign.png", foreign)]


def test_own_pictures_pass_and_others_do_not(model):
    found = model.predict([*OWN[:4], FOREIGN])
    assert found.in_distribution.tolist() == [True] * 4 + [False]
    assert found.ood_score.dtype == torch.float32 and found.ood_score[4] > 1
    alone = model.predict([FOREIGN], batch_size=1)
    assert torch.allclose(alone.ood_score, found[4].ood_score, rtol=1e-4)
    assert found[-1].in_distribution.tolist() == [False] and found[:2].ood_score.shape == (2,)
    assert torch.allclose(model.predict([FOREIGN], tta="flips").ood_score, alone.ood_score, rtol=1e-4)


WITHOUT_A_SECOND_STAGE = {
    "DCG": lambda: small_model(trained=True, predictor="dcg", class_names=("cat", "dog", "eel")),
    "global stream": lambda: small_model(trained=True, predictor="global", class_names=("cat", "dog", "eel")),
    "plain classifier": lambda: plain_classifier(num_classes=3, class_names=("cat", "dog", "eel"), image_size=64),
}


@pytest.mark.parametrize("kind", WITHOUT_A_SECOND_STAGE)
def test_models_without_a_second_stage_compare_the_encoders_features(kind):
    model = trusting(WITHOUT_A_SECOND_STAGE[kind]())
    found = model.predict([*OWN[:4], FOREIGN])
    assert found.in_distribution.tolist() == [True] * 4 + [False]
    expected = model.trust.gate.score(model.embed([*OWN[:4], FOREIGN]).numpy())
    torch.testing.assert_close(found.ood_score, torch.from_numpy(expected), rtol=1e-3, atol=1e-3)
    flipped = model.predict([FOREIGN], tta="flips")
    torch.testing.assert_close(flipped.ood_score, found.ood_score[4:], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="unlike the training pictures"):
        model.predict([FOREIGN], on_foreign="refuse")


def plain_classifier(**fields):
    torch.manual_seed(0)
    model = diffmiczoo.create_model("timm/test_resnet", **fields)
    model.trained = True
    return model


def test_weights_without_it_answer_as_before():
    plain = small_model(trained=True)
    found = plain.predict(OWN[:2])
    assert found.ood_score is None and found.in_distribution is None and found.deferred is None
    assert list(found.to_frame().columns)[:4] == ["name", "label", "uncertainty", "prob_class_0"]
    with pytest.raises(ValueError, match="these weights have no prediction sets"):
        found.sets()
    with pytest.raises(ValueError, match=r"defer_error=0.05: these weights can promise no error"):
        plain.predict(OWN[:2], defer_error=0.05)
    with pytest.raises(ValueError, match="on_foreign='refuse': these weights do not know pictures unlike their own"):
        plain.predict(OWN[:2], on_foreign="refuse")
    with pytest.raises(ValueError, match="on_foreign='drop' must be 'flag' or 'refuse'"):
        plain.predict(OWN[:2], on_foreign="drop")


def test_sets_hold_what_cannot_be_ruled_out_and_the_label(model):
    found = model.predict(OWN[:1])
    probs = torch.tensor([[0.5, 0.3, 0.2], [0.15, 0.25, 0.6]])
    rows = {name: getattr(found, name).expand(2, *getattr(found, name).shape[1:]) for name in ("scores", "uncertainty")}
    for name in ("global_logits", "local_logits", "feature_logits", "rois", "roi_attention", "saliency", "ood_score"):
        rows[name] = getattr(found, name).expand(2, *getattr(found, name).shape[1:])
    two = dataclasses.replace(found, names=["a", "b"], items=[None] * 2, sizes=[], probs=probs, **rows)
    with pytest.warns(UserWarning, match=r"eel \(8\): too few calibration groups .* for alpha=0.1"):
        assert two.sets() == [["cat", "dog", "eel"], ["eel"]]
    assert two.sets(0.2) == [["cat"], ["eel"]] and two.sets(0.1, by_class=False) == [["cat", "dog"], ["eel"]]
    with pytest.raises(ValueError, match=r"alpha=0.15 is not among the levels"):
        two.sets(0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"steps": 2}, "sampling_steps=2, fitted for 3"), ({"num_samples": 2}, "num_samples=2, fitted for 1")],
)
def test_other_steps_or_runs_are_not_what_was_calibrated(model, options, message):
    found = model.predict(OWN[:1], **options)
    with pytest.raises(ValueError, match=f"prediction sets were calibrated for another prediction: {message}"):
        found.sets()
    assert found.ood_score is not None and found.limit_columns == ["ood_score", "in_distribution"]
    with pytest.raises(ValueError, match=f"deferral was calibrated for another prediction: {message}"):
        model.predict(OWN[:1], defer_error=0.05, **options).to_dict()


def test_a_new_calibration_keeps_the_gate_and_drops_the_promises():
    model = trusting(small_model(trained=True))
    model.config = model.config.replace(temperature=2.0)
    found = model.predict(OWN[:1])
    assert found.ood_score is not None
    with pytest.raises(ValueError, match=r"temperature=2.0, fitted for None"):
        found.sets()
    model.config = model.config.replace(crop_mode="squash")
    with pytest.warns(UserWarning, match="not compared with the training pictures: .* crop_mode='squash'"):
        assert model.predict(OWN[:1]).ood_score is None


def test_what_changes_the_weights_forgets_the_limits(model):
    other = trusting(small_model(trained=True))
    other.load_state_dict(small_model(trained=True).state_dict())
    assert other.trust is None
    other = trusting(other)
    with pytest.warns(UserWarning, match="num_classes is now 4"):
        other.reset_classifier(4)
    assert other.trust is None


def test_the_unsure_and_the_foreign_are_for_a_person(model):
    found = model.predict([*OWN[:6], FOREIGN], defer_error=0.05)
    expected = (found.uncertainty > 0.6) | torch.tensor([False] * 6 + [True])
    assert found.deferred.tolist() == expected.tolist()
    with pytest.raises(ValueError, match="cannot be promised"):
        model.predict(OWN[:1], defer_error=0.001)


def test_foreign_pictures_can_be_refused(model):
    with pytest.raises(ImageError, match=r"images\[1\]: unlike the training pictures \(ood_score .*, above 1\)"):
        model.predict([OWN[0], FOREIGN], on_foreign="refuse")
    found = model.predict([OWN[0], FOREIGN, OWN[1]], on_foreign="refuse", on_error="skip", batch_size=2)
    assert found.names == ["images[0]", "images[2]"] and list(found.errors) == ["images[1]"]
    with pytest.raises(ImageError, match=r"none could be read: .*unlike the training pictures"):
        model.predict([FOREIGN], on_foreign="refuse", on_error="skip")


def test_it_travels_with_the_weights(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, DiffMICv2)
    assert loaded.trust.to_text() == model.trust.to_text()
    assert torch.equal(loaded.predict([OWN[0], FOREIGN]).ood_score, model.predict([OWN[0], FOREIGN]).ood_score)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    overridden = load_model(tmp_path, DiffMICv2, {"num_samples": 2})
    with pytest.raises(ValueError, match="num_samples=2, fitted for 1"):
        overridden.predict(OWN[:1]).sets()


def test_tables_and_records_have_it(model):
    found = model.predict([OWN[0], FOREIGN], defer_error=0.05)
    header, first, second = csv.reader(io.StringIO(found.to_csv()))
    assert header[3:7] == list(LIMIT_COLUMNS) and header[7] == "prob_cat"
    assert (first[4], second[4]) == ("True", "False") and second[6] == "True" and "eel" in first[5].split("|")
    values = json.loads(json.dumps(found.to_dict()))
    assert values["defer_error"] == 0.05
    record = values["images"][1]
    assert record["in_distribution"] is False and record["deferred"] is True and record["ood_score"] > 1
    assert "eel" in record["set"]
    assert "(unlike the training pictures)" in found._repr_html_()
    assert found.to_frame()["in_distribution"].tolist() == [True, False]


def test_the_picture_says_it():
    bar = Bar("cat", "cat", 0.9, True)
    lines = limits(Answer([bar], 0.1, True, True, 1.84, ("cat", "dog", "eel", "fox"), True))
    assert lines[0] == "not ruled out (at 90 %): cat, dog, eel and 1 more"
    assert "UNLIKE THE TRAINING PICTURES (1.8 times" in lines[1] and "PERSON" in lines[2]
    assert limits(Answer([bar], 0.1, True, True, 0.9)) == [] and limits(Answer([bar], 0.1, True, True)) == []


def test_the_command_marks_and_refuses(model, files, tmp_path):
    model.save_pretrained(tmp_path / "weights")
    name = f"local-dir:{tmp_path / 'weights'}"
    shown = run_command("predict", *files, "--model", name, "--defer-error", "0.05")
    assert shown.exit_code == 0
    own, foreign = shown.output.splitlines()[-2:]
    assert "unlike the training pictures" not in own and foreign.endswith(
        "[unlike the training pictures, a person should see it]"
    )
    table = tmp_path / "table.csv"
    refused = run_command("predict", *files, "--model", name, "--on-foreign", "refuse", "--output", table)
    assert refused.exit_code == 1 and "skipped" in refused.output and "eel (8): too few" in refused.output
    header, *rows = csv.reader(io.StringIO(table.read_text()))
    assert [row[0] for row in rows] == [str(files[0])] and "ood_score" in header
    again = run_command("predict", *files, "--model", name, "--output", table, "--resume", "--on-foreign", "refuse")
    assert "has 1 of 2 images already" in again.output
    other = run_command("predict", *files, "--model", name, "--output", table, "--resume")
    assert "on_foreign refuse, now flag" in other.output


def test_stored_text_is_checked(model):
    text = model.trust.to_text()
    assert len(text) < 256_000
    values = json.loads(text)
    for change in (
        lambda values: values.pop("sets"),
        lambda values: values["gate"].pop("limit"),
        lambda values: values["gate"].update(limit=-1),
        lambda values: values["gate"].update(axes="AAA"),
        lambda values: values["sets"]["rules"][0].update(by_class=[0.1]),
        lambda values: values["deferral"].update(steps=[[1, 2]]),
    ):
        broken = json.loads(json.dumps(values))
        change(broken)
        with pytest.raises(InvalidValueError, match="limits cannot be read"):
            Trust.from_text(json.dumps(broken))
    nothing = Trust.from_text(Trust({}).to_text())
    assert nothing.gate is None and nothing.sets is None and nothing.deferral is None
