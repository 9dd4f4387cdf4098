"""`model.recalibrate`: what it stores, how it goes back, and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from factories import small_model
from PIL import Image

from diffmiczoo.cli import main
from diffmiczoo.data.duplicates import content_hash
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.errors import DiffMICError
from diffmiczoo.evaluation.trust import fit_trust
from diffmiczoo.hub.card import render_card
from diffmiczoo.hub.card_facts import read_facts
from diffmiczoo.hub.recalibrated import recalibration_section, save_recalibrated, with_recalibration
from diffmiczoo.metrics.held_back import HeldBack
from diffmiczoo.metrics.local_fit import HOLDS
from diffmiczoo.metrics.recalibration import Recalibration
from diffmiczoo.model import DiffMICv2
from diffmiczoo.trust.stored import Trust
from diffmiczoo.zoo.weights import WEIGHTS_DIRECTORY

NAMES = ("cat", "dog", "eel")
RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(60)]
LABELS = RNG.choice(3, 60, p=[0.5, 0.3, 0.2])


@pytest.fixture(scope="module", autouse=True)
def two_holds():
    """The fit itself has its own tests; two of its settings are enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffmiczoo.metrics.local_fit.HOLDS", (HOLDS[0], HOLDS[3]))
        yield


@pytest.fixture(scope="module")
def fitted() -> DiffMICv2:
    """A model that knows its limits; nobody may change it."""
    model = small_model(trained=True, class_names=NAMES, temperature=2.0)
    found, features = model.predict(PICTURES), model.embed(PICTURES)
    known = HeldBack.from_probs(found.probs, torch.from_numpy(LABELS), np.arange(60), model.config, features)
    model.trust = fit_trust(model.config, features[:30], known)
    model.weights_name = "some_weights"
    return model


@pytest.fixture(scope="module")
def local(fitted: DiffMICv2) -> DiffMICv2:
    """The same, recalibrated; nobody may change it."""
    model = copy.deepcopy(fitted)
    assert model.recalibrate(PICTURES, LABELS, groups=[f"p{n}" for n in range(60)]) is model
    return model


def test_calibration_and_limits_are_new_and_the_weights_are_not(fitted, local):
    assert all(
        torch.equal(a, b) for a, b in zip(fitted.state_dict().values(), local.state_dict().values(), strict=True)
    )
    found = local.recalibration
    assert local.config.class_offsets and found.fitted == local.config.calibration != fitted.config.calibration
    assert found.original == fitted.config.calibration and (found.pictures, found.groups) == (60, 60)
    assert found.counts == dict(zip(NAMES, np.bincount(LABELS).tolist(), strict=True))
    by_name = {each.name: each for each in found.changes}
    assert by_name["nll"].difference[2] < 0 and by_name["flagged"].after[0] < 0.2
    prediction = local.predict(PICTURES[:2])
    assert prediction.sets(0.1) and prediction.ood_score is not None  # fitted for this calibration
    assert local.display_name == "some_weights, recalibrated" and local.weights_name is None
    for part in ("before", "after (cross-fitted)", "NLL", "some_weights, recalibrated on 60 local pictures"):
        assert part in found.table()
    json.dumps(found.to_dict())


def test_it_is_stored_with_the_weights_and_goes_back(fitted, local, tmp_path):
    fitted.save_pretrained(tmp_path / "before")
    save_recalibrated(local, tmp_path / "after")
    loaded = DiffMICv2.from_pretrained(tmp_path / "after")
    assert loaded.recalibration == local.recalibration and loaded.trust.to_text() == local.trust.to_text()
    assert torch.equal(loaded.predict(PICTURES[:3]).probs, local.predict(PICTURES[:3]).probs)
    assert loaded.undo_recalibration() is loaded
    assert loaded.config == fitted.config and loaded.trust.to_text() == fitted.trust.to_text()
    assert loaded.weights_name == "some_weights" and loaded.recalibration is None
    loaded.save_pretrained(tmp_path / "again")
    before, after, again = ((tmp_path / n / "config.json").read_bytes() for n in ("before", "after", "again"))
    assert before == again != after
    readme = (tmp_path / "after" / "README.md").read_text()
    assert readme.startswith("# some_weights, recalibrated\n\n**Not for clinical use.**") and "| NLL |" in readme
    assert json.loads((tmp_path / "after" / "recalibration.json").read_text())["pictures"] == 60
    with pytest.raises(ValueError, match="the model was not recalibrated; there is nothing to go back to"):
        loaded.undo_recalibration()


def test_a_second_time_starts_from_the_calibration_before_the_first(fitted, local):
    model = copy.deepcopy(local)
    model.recalibrate(PICTURES, [NAMES[label] for label in LABELS])
    assert model.config == local.config and model.trust.gate.limit == pytest.approx(local.trust.gate.limit, rel=1e-5)
    assert model.recalibration.original == fitted.config.calibration
    assert "starts from the calibration before that on 60 pictures" in model.recalibration.notes[0]
    assert model.undo_recalibration().trust.to_text() == fitted.trust.to_text()


CHANGES = {
    "other weights": lambda model: model.load_state_dict(model.state_dict()),
    "other classes": lambda model: model.reset_classifier(4),
    "calibration": lambda model: model.calibrate(list(zip(PICTURES[:12], LABELS[:12].tolist(), strict=True))),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_weights_or_calibration_forgets_it(local, change):
    model = copy.deepcopy(local)
    CHANGES[change](model)
    assert model.recalibration is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((PICTURES[:20], LABELS[:20]), "20 images in 20 groups .* are too few to recalibrate; at least 50 groups"),
        ((PICTURES, LABELS, ["a", "b"] * 30), "60 images in 2 groups .* are too few"),
        ((PICTURES, LABELS[:9]), "labels has 9 entries for 60 images"),
        ((PICTURES, LABELS, ["a"]), "groups has 1 entries for 60 images"),
        ((PICTURES, ["dog"] * 60), "all 60 pictures are labelled 'dog'"),
        ((PICTURES, ["cow"] * 60), "'cow', which is none of the model's classes"),
    ],
)
def test_what_cannot_be_fitted_to_is_refused_and_changes_nothing(fitted, arguments, message):
    model = copy.deepcopy(fitted)
    images, labels, *groups = arguments
    with pytest.raises(DiffMICError, match=message):
        model.recalibrate(images, labels, groups=groups[0] if groups else None)
    assert model.config == fitted.config and model.trust is not None and model.recalibration is None


def test_an_untrained_model_is_refused():
    with pytest.raises(DiffMICError, match="was not trained"):
        small_model(class_names=NAMES).recalibrate(PICTURES, LABELS)


def test_pictures_that_training_saw_are_told(fitted):
    model = copy.deepcopy(fitted)
    pixels = model.preprocess(PICTURES[:7]) * torch.tensor(model.config.std).view(3, 1, 1)
    pixels += torch.tensor(model.config.mean).view(3, 1, 1)
    model.training_pictures = PictureSet.of(content_hash(one.numpy()) for one in (pixels * 255).round().byte())
    with pytest.warns(UserWarning, match="7 of 60 images were used to train these weights"):
        model.recalibrate(PICTURES, LABELS)


# ---------------------------------------------------------------------- without labels


def test_without_labels_it_takes_weights_that_know_their_classes(fitted):
    model = copy.deepcopy(fitted)
    model.trust = None
    with pytest.raises(DiffMICError, match="labels=None needs weights that know pictures unlike their own"):
        model.recalibrate(PICTURES)
    several = small_model(trained=True, class_names=NAMES, task="multilabel")
    with pytest.raises(DiffMICError, match="a multilabel model needs labels"):
        several.recalibrate(PICTURES)


def test_without_labels_pictures_of_another_kind_are_refused(fitted):
    model = copy.deepcopy(fitted)
    with pytest.raises(DiffMICError, match=r"100 % are unlike the training pictures \(at most \d+ % of the same kind"):
        model.recalibrate([np.full((64, 64, 3), n, dtype=np.uint8) for n in range(60)])


def test_without_labels_nothing_changes_without_evidence(fitted, monkeypatch):
    with pytest.raises(DiffMICError, match="leave open how frequent the classes are"):
        copy.deepcopy(fitted).recalibrate(PICTURES)
    monkeypatch.setattr("diffmiczoo.metrics.label_shift.LARGEST_ERROR", 1.0)
    with pytest.raises(DiffMICError, match="do not show that the classes are more or less frequent"):
        copy.deepcopy(fitted).recalibrate(PICTURES)


def test_without_labels_the_shares_are_learned_and_sets_are_dropped(fitted, monkeypatch):
    monkeypatch.setattr("diffmiczoo.metrics.label_shift.LARGEST_ERROR", 1.0)
    model = copy.deepcopy(fitted)
    means = np.array(model.trust.mean_probs)[[1, 2, 0]]  # as if other classes had been frequent
    model.trust = Trust(**{**vars(model.trust), "mean_probs": tuple(means)})
    model.recalibrate(PICTURES)
    found = model.recalibration
    assert not found.labelled and not found.changes and "Shares of the classes: cat" in found.notes[0]
    assert model.config.class_offsets and model.config.temperature == fitted.config.temperature
    assert model.trust.sets is None and model.trust.deferral is None and model.trust.gate is not None
    assert Recalibration.from_text(found.to_text()) == found and "without labels" in recalibration_section(found)
    assert model.undo_recalibration().trust.sets is not None


# ---------------------------------------------------------------------- files and the command line


def test_a_card_says_that_its_results_are_older(local):
    own = WEIGHTS_DIRECTORY / "diffmicv2_nano.ham10000"
    card = render_card("name", local.config, 1, read_facts(own))
    told = with_recalibration(card, local.recalibration)
    assert told.index("## Recalibration") < told.index("\n## Results\n") and "| NLL |" in told
    assert "fitted to local pictures (Recalibration); " in told and "fitted on the validation split;" not in told


def test_limits_from_before_class_offsets_are_not_taken_for_those_with_them(fitted):
    model = copy.deepcopy(fitted)
    settings = {name: value for name, value in model.trust.settings.items() if name != "class_offsets"}
    model.trust = Trust(**{**vars(model.trust), "settings": settings})
    assert model.predict(PICTURES[:1]).sets(0.2)
    model.config = model.config.replace(class_offsets=(1.0, 0.0, 0.0))
    with pytest.raises(DiffMICError, match=r"class_offsets=.* fitted for none"):
        model.predict(PICTURES[:1]).sets(0.2)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"original": {}}'])
def test_broken_texts_are_refused(text):
    with pytest.raises(ValueError, match="how the weights were recalibrated cannot be read"):
        Recalibration.from_text(text)


def test_the_command_writes_a_folder_and_the_table(fitted, tmp_path: Path):
    fitted.save_pretrained(tmp_path / "weights")
    rows = ["file,label,group"]
    for number, (picture, label) in enumerate(zip(PICTURES, LABELS, strict=True)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{NAMES[label]},p{number}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    command = ["recalibrate", str(tmp_path / "labels.csv"), "--model", f"local-dir:{tmp_path}/weights", "--output"]
    result = CliRunner().invoke(main, [*command, str(tmp_path / "local")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for part in ("recalibrated on 60 local pictures in 60 groups (cat 30", "after (cross-fitted)", "load it with"):
        assert part in result.output
    assert {path.name for path in (tmp_path / "local").iterdir()} == {
        "model.safetensors", "config.json", "recalibration.json", "README.md",
    }  # fmt: skip
    same = CliRunner().invoke(main, [*command, str(tmp_path / "weights")])
    assert same.exit_code == 2 and "holds the weights that are recalibrated; choose another folder" in same.output


def test_a_gate_of_another_preprocessing_is_dropped_told_and_given_back(fitted, tmp_path):
    model = copy.deepcopy(fitted)
    model.config = model.config.replace(crop_mode="border")
    with pytest.warns(UserWarning, match="the gate is of another model, crop_mode='border'"):
        model.recalibrate(PICTURES, LABELS)
    assert model.trust.gate is None and model.predict(PICTURES[:1]).ood_score is None
    assert "is of another preprocessing or encoder, and is dropped" in " ".join(model.recalibration.notes)
    save_recalibrated(model, tmp_path)
    back = DiffMICv2.from_pretrained(tmp_path).undo_recalibration()
    assert back.trust.to_text() == fitted.trust.to_text()
    assert (tmp_path / "recalibration.json").is_file() and (tmp_path / "README.md").is_file()
    back.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    (tmp_path / "README.md").write_text("# Weights of my own\n")
    (tmp_path / "recalibration.json").write_text("{}")
    back.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}


def test_where_files_are_is_not_written_down(fitted, tmp_path):
    model = copy.deepcopy(fitted)
    model.weights_name, model.loaded_from = None, tmp_path / "site" / "weights"
    model.recalibrate(PICTURES, LABELS)
    assert model.recalibration.source == "site/weights" and str(tmp_path) not in model.recalibration.to_text()


@pytest.mark.parametrize("option", [["--split", "val"], ["--class-names", "a,b"], ["--group-column", "patient"]])
def test_options_on_a_table_do_not_go_with_unlabelled(tmp_path: Path, option):
    command = [
        "recalibrate",
        str(tmp_path),
        "--model",
        "none",
        "--output",
        str(tmp_path / "x"),
        "--unlabelled",
        *option,
    ]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2 and "of which no table is read" in result.output
