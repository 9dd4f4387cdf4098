"""What a run leaves, and what is said before one begins."""

from __future__ import annotations

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from factories import QUICK, SMALL_ENCODERS, TINY, tiny_model
from PIL import Image
from torch.utils.data import TensorDataset

import diffmiczoo
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.hub.card import IncompleteCardError, read_facts

BRIEF = QUICK.replace(dcg_epochs=1, diffusion_epochs=2)


@pytest.fixture
def run(manifest_csv, tmp_path):
    return diffmiczoo.fit(tiny_model(), manifest_csv, recipe=BRIEF, output=tmp_path / "run", progress=False)


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
    assert [row["kept"] for row in rows].count("True") == 2


def test_last_is_the_last_epoch_and_best_the_best(run) -> None:
    best, last = (
        diffmiczoo.create_model(f"local-dir:{run.output}/{name}", pretrained=True).state_dict()
        for name in ("best", "last")
    )
    assert all(torch.equal(tensor, best[name]) for name, tensor in run.model.state_dict().items())
    kept = [row["epoch"] for row in run.history if row["stage"] == "diffusion" and row["kept"]]
    same = all(torch.equal(tensor, last[name]) for name, tensor in best.items())
    assert same == (kept == [2])


def test_the_card_of_a_run_asks_for_what_only_its_maker_knows(run) -> None:
    with pytest.raises(IncompleteCardError) as error:
        read_facts(run.output / "best")
    text = str(error.value)
    for name in ("'license'", "'data_license'", "'intended_use'", "'limits'", "on the test split are missing"):
        assert name in text
    assert "'split'" not in text and "'training_data'" not in text
    card = json.loads((run.output / "best" / "card.json").read_text())
    assert card["counts"] == {"train": 24, "val": 8}


def test_metrics_of_the_result_are_those_of_evaluate(run, manifest_csv) -> None:
    measured = diffmiczoo.evaluate(run.model, manifest_csv, split="val", bootstrap=0, progress=False)
    assert run.metrics.values == pytest.approx(measured.values, abs=1e-5)
    written = json.loads((run.output / "best" / "metrics.json").read_text())["val"]
    assert written["model"]["values"]["nll"] == pytest.approx(measured.values["nll"], abs=1e-5)


def test_without_splits_some_are_made_and_written_down(manifest_csv, tmp_path) -> None:
    lines = [",".join(np.array(line.split(","))[[0, 1, 3]]) for line in manifest_csv.read_text().splitlines()]
    (manifest_csv.parent / "plain.csv").write_text("\n".join(lines) + "\n")
    data = manifest_csv.parent / "plain.csv"
    result = diffmiczoo.fit(tiny_model(), data, recipe=BRIEF, output=tmp_path / "run", progress=False)
    report = json.loads((result.output / "data_report.json").read_text())
    assert "no split was given: made 70% train, 10% val, 20% test, stratified; groups stay together" in report["made"]
    split = read_manifest(result.output / "split.csv")
    assert len(split) == 40 and split.has_splits and {len(split.split(name)) for name in ("val", "test")} == {4, 8}
    assert "No split was given" in (result.output / "README.md").read_text()
    metrics = diffmiczoo.evaluate(result.model, result.output / "split.csv", bootstrap=0, progress=False)
    assert metrics.num_images == 8


def test_a_class_without_training_images_stops_the_run(manifest_csv, tmp_path) -> None:
    model = tiny_model(num_classes=3, class_names=("dark", "light", "purple"))
    with pytest.raises(ValueError, match=r"no training image shows purple; .*data_report\.json"):
        diffmiczoo.fit(model, manifest_csv, recipe=BRIEF, output=tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "data_report.json").exists() and not (tmp_path / "run" / "checkpoint.pt").exists()


def test_torn_groups_and_repeated_images_are_warned_of(manifest_csv, tmp_path) -> None:
    text = manifest_csv.read_text().replace("24.png,dark,val,patient12", "24.png,dark,val,patient1")
    manifest_csv.write_text(text)
    (manifest_csv.parent / "26.png").write_bytes((manifest_csv.parent / "0.png").read_bytes())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=BRIEF, output=tmp_path / "run", progress=False)
    said = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert any("1 group has images in train and val, first patient1" in message for message in said)
    assert any("1 image is in more than one split, first 0.png = 26.png" in message for message in said)
    assert "first 0.png = 26.png" in (tmp_path / "run" / "README.md").read_text()


def test_a_model_of_grades_reports_kappa_and_may_choose_by_it(manifest_csv, tmp_path) -> None:
    recipe = BRIEF.replace(select="quadratic_kappa")
    with pytest.raises(ValueError, match="ordinal=True"):
        diffmiczoo.fit(tiny_model(), manifest_csv, recipe=recipe, output=tmp_path / "run")
    result = diffmiczoo.fit(
        tiny_model(ordinal=True), manifest_csv, recipe=recipe, output=tmp_path / "run", progress=False
    )
    assert "quadratic_kappa" in result.metrics.values and "quadratic_kappa" in result.history[0]


def test_fit_takes_an_npz_and_a_dataset(tmp_path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(24) % 2
    images = (rng.integers(0, 60, (24, 28, 28)) + 180 * labels[:, None, None]).astype(np.uint8)
    arrays = {"train_images": images, "train_labels": labels[:, None]}
    arrays |= {"val_images": images[:8], "val_labels": labels[:8, None]}
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.warns(UserWarning, match="8 images are in more than one split"):
        first = diffmiczoo.fit(tiny_model(), tmp_path / "m.npz", recipe=BRIEF, output=tmp_path / "a", progress=False)
    pictures = torch.from_numpy(images)[:, None].expand(-1, 3, -1, -1)
    dataset = TensorDataset(pictures, torch.from_numpy(labels))
    second = diffmiczoo.fit(tiny_model(), dataset, recipe=BRIEF, output=tmp_path / "b", progress=False)
    assert first.model.config.labels == second.model.config.labels == ("0", "1")


def test_tensorboard(manifest_csv, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = diffmiczoo.fit(
        tiny_model(), manifest_csv, recipe=BRIEF, output=tmp_path / "run", tensorboard=True, progress=False
    )
    events = EventAccumulator(str(result.output / "tensorboard"))
    events.Reload()
    values = [event.value for event in events.Scalars("diffusion/train_loss")]
    assert values == pytest.approx([row["train_loss"] for row in result.history[1:]])


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


def test_class_numbers_are_not_taken_for_the_classes_of_the_model(tmp_path) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 28, 28), dtype=np.uint8)
    labels = np.arange(24)[:, None] % 3
    np.savez(tmp_path / "m.npz", train_images=images, train_labels=labels, val_images=images[:6], val_labels=labels[:6])
    model = tiny_model(num_classes=4, class_names=("cat", "dog", "cow", "hen"))
    with pytest.warns(UserWarning, match="more than one split"):
        result = diffmiczoo.finetune(model, tmp_path / "m.npz", recipe=BRIEF, output=tmp_path / "run", progress=False)
    assert result.model.config.class_names == ("0", "1", "2")


def test_fewer_of_the_models_own_classes_keep_its_order(manifest_csv) -> None:
    from diffmiczoo.training.plan import training_manifest

    own = tiny_model(num_classes=3, class_names=("light", "purple", "dark")).config
    assert training_manifest(manifest_csv, own).class_names == ("light", "purple", "dark")
    other = tiny_model(class_names=("cat", "dog")).config
    assert training_manifest(manifest_csv, other).class_names == ("dark", "light")
