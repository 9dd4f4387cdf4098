"""The weights that ship: complete, small, right, and as good as their cards say."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import SHARED
from safetensors.torch import load_file

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.evaluate import probabilities
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.hub.card import NOT_CLINICAL, render_card, render_license
from diffmiczoo.hub.card_facts import read_facts
from diffmiczoo.hub.checklist import render_checklist
from diffmiczoo.inference.decisions import decide
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.runtime.quantized import can_quantize
from diffmiczoo.zoo.factory import get_config
from diffmiczoo.zoo.weights import WEIGHTS, WEIGHTS_DIRECTORY

#: Architecture → bytes of a file and parameters at most, as CONTRIBUTING.md promises.
LARGEST = {"diffmicv2_nano": (12e6, 5_000_000), "diffmicv2_small": (16e6, 8_000_000)}

SHIPPED = sorted(path.name for path in WEIGHTS_DIRECTORY.iterdir() if path.is_dir() and path.name in WEIGHTS)
DATA = {"chestxray14": "chestxray14_subset"}
QUICK_SETS = ("diffmicv2_nano.busi", "diffmicv2_nano.chestxray14")  # small test splits
STORED = Path(__file__).parent / "predictions"  # written by tools/store_predictions.py


def test_something_ships_and_nothing_else_lies_there() -> None:
    assert "diffmicv2_nano.ham10000" in SHIPPED
    files = {"README.md", "CHECKLIST.md", "LICENSE", "card.json", "config.json", "metrics.json", "model.safetensors"}
    assert all({path.name for path in (WEIGHTS_DIRECTORY / name).iterdir()} == files for name in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_tensor_comes_from_the_file(name: str) -> None:
    stored = load_file(WEIGHTS_DIRECTORY / name / "model.safetensors")
    model = diffmiczoo.create_model(name, pretrained=True)
    assert model.trained and model.weights_name == name and not model.training
    assert model.state_dict().keys() == stored.keys()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, stored[key].to(tensor.dtype)), key
    assert all(tensor.dtype == torch.float16 for tensor in stored.values() if tensor.is_floating_point())
    size, count = LARGEST[name.split(".")[0]]
    assert (WEIGHTS_DIRECTORY / name / "model.safetensors").stat().st_size <= size
    assert sum(parameter.numel() for parameter in model.parameters()) <= count


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_says_what_it_has_to(name: str) -> None:
    card = (WEIGHTS_DIRECTORY / name / "README.md").read_text()
    metrics = json.loads((WEIGHTS_DIRECTORY / name / "metrics.json").read_text())["test"]
    dataset = WEIGHTS[name].dataset
    assert NOT_CLINICAL in card and dataset.weights_license in card and dataset.data_license in card
    assert "diffmiczoo fit" in card and "commit" in card and "Intended use" in card and "Limits" in card
    for part in ("model", "dcg"):
        values, intervals = metrics[part]["values"], metrics[part]["intervals"]
        assert len(values) >= 7
        for metric in values:
            low, high = intervals[metric]
            assert low <= high and f"{values[metric]:.3f} [{low:.3f}, {high:.3f}]" in card, metric
    assert diffmiczoo.model_info(name).metrics == metrics["model"]["values"]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_card_is_rendered_from_the_facts_beside_it(name: str) -> None:
    model = diffmiczoo.create_model(name, pretrained=True)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = read_facts(WEIGHTS_DIRECTORY / name)
    rendered = {
        "README.md": render_card(name, model.config, parameters, facts),
        "CHECKLIST.md": render_checklist(name, model.config, facts),
        "LICENSE": render_license(name, model.config, facts),
    }
    for file, text in rendered.items():
        assert (WEIGHTS_DIRECTORY / name / file).read_text(encoding="utf-8") == text, file


def stored_probs(name: str) -> tuple[Manifest, dict[str, torch.Tensor]]:
    """Returns the pictures of the test split, and the probabilities of the model and of its DCG alone for them."""
    dataset = WEIGHTS[name].dataset.name
    test = read_manifest(SHARED / "data" / DATA.get(dataset, dataset)).split("test")
    with np.load(STORED / f"{name}.npz") as file:
        assert file["files"].tolist() == [record.path.name for record in test.records]
        return test, {part: torch.from_numpy(file[part]) for part in ("model", "dcg")}


@pytest.mark.parametrize("part", ["model", "dcg"])
@pytest.mark.parametrize("name", SHIPPED)
def test_the_stored_probabilities_have_the_metrics_of_the_card(name: str, part: str, shared: Path) -> None:
    test, probs = stored_probs(name)
    metrics = json.loads((WEIGHTS_DIRECTORY / name / "metrics.json").read_text())["test"][part]
    config = diffmiczoo.create_model(name, pretrained=True).config
    found = LabelledPredictions.of(test, probs[part], config, fitted=part == "model").metrics(0, 0, False)
    assert found.num_images == metrics["num_images"] and found.values.keys() == metrics["values"].keys()
    for metric, value in metrics["values"].items():
        assert found.values[metric] == pytest.approx(value, abs=2e-4), metric


@pytest.mark.parametrize("name", SHIPPED)
def test_predict_gives_the_stored_probabilities(name: str, shared: Path) -> None:
    test, probs = stored_probs(name)
    some = range(0, len(test), max(1, len(test) // 24))
    part = test.with_records(test.records[index] for index in some)
    model = diffmiczoo.create_model(name, pretrained=True)
    for found, stored in (
        (probabilities(model, part), probs["model"]),
        (probabilities(model, part, dcg_alone=True), probs["dcg"]),
    ):
        torch.testing.assert_close(found, stored[list(some)], rtol=0, atol=2e-3)


@pytest.mark.release
@pytest.mark.parametrize("name", SHIPPED)
def test_predict_gives_all_stored_probabilities(name: str, shared: Path) -> None:
    test, probs = stored_probs(name)
    model = diffmiczoo.create_model(name, pretrained=True)
    torch.testing.assert_close(probabilities(model, test), probs["model"], rtol=0, atol=2e-3)
    torch.testing.assert_close(probabilities(model, test, dcg_alone=True), probs["dcg"], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK_SETS else pytest.mark.release) for name in SHIPPED],
)
def test_half_precision_and_integers_change_no_answer_that_matters(name: str, shared: Path) -> None:
    test, probs = stored_probs(name)
    model = diffmiczoo.create_model(name, pretrained=True)
    count = min(200, len(test))
    records, exact = test.records[:count], probs["model"][:count]
    for precision in ("bf16", *(["int8"] if can_quantize() else [])):
        found = model.predict([record.item() for record in records], precision=precision, progress=False)
        assert (_decisions(found.probs, model.config) == _decisions(exact, model.config)).float().mean() >= 0.995
        assert 0 < (found.probs - exact).abs().max() < 0.02


def _decisions(probs: torch.Tensor, config: DiffMICConfig) -> torch.Tensor:
    """Returns every label that is given or not, for several labels; the one that is given otherwise."""
    given = decide(probs, config.task, config.thresholds, config.label_adjustment)
    return given.int().argmax(1) if config.task == "multiclass" else given


@pytest.mark.parametrize("name", SHIPPED)
def test_the_model_is_not_worse_than_its_own_dcg(name: str) -> None:
    metrics = json.loads((WEIGHTS_DIRECTORY / name / "metrics.json").read_text())["test"]
    model, dcg = metrics["model"]["values"], metrics["dcg"]["values"]
    adjusted = bool(get_config(name, pretrained=True).label_adjustment)
    # Below a thousand test images values differ by chance by more than these do.
    if metrics["model"]["num_images"] > 1000:
        # Adjusted labels may give up a point on the validation images, which is two at most on others.
        assert model["accuracy"] >= dcg["accuracy"] - (0.02 if adjusted else 0)
        for metric in ("balanced_accuracy", "macro_f1"):
            assert model[metric] >= dcg[metric], metric
        for metric in ("ece", "brier", "nll"):
            assert model[metric] <= dcg[metric], metric
    multilabel = WEIGHTS[name].dataset.task == "multilabel"
    for metric, (difference, low, high) in metrics["difference"].items():
        if multilabel and metric == "accuracy":
            continue  # thresholds for the best F1 give more labels, which most decisions, a "no", pay for
        if adjusted and metric == "accuracy":
            # Its labels have given up accuracy for rare classes, the DCG's have not: what was paid for has to be there.
            assert metrics["difference"]["balanced_accuracy"][0] > 0
            continue
        assert difference == pytest.approx(model[metric] - dcg[metric]) and low <= difference <= high
        # What is not better must at least be within what these images can tell.
        assert high >= 0 if find_metric(metric).higher_is_better else low <= 0, metric


def test_example_pictures_are_classified_offline() -> None:
    examples = Path(diffmiczoo.__file__).parents[1] / "examples" / "ham10000"
    model = diffmiczoo.create_model("diffmicv2_ham10000", pretrained=True)
    prediction = model.predict(examples)
    assert len(prediction) >= 5 and prediction.calibrated and not prediction.errors
    torch.testing.assert_close(prediction.probs.sum(-1), torch.ones(len(prediction)))
    assert set(prediction.labels) <= set(model.config.labels)
    assert (prediction.model_name, prediction.class_labels["mel"]) == ("diffmicv2_nano.ham10000", "melanoma")


def test_weights_of_a_package_in_an_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "diffmicv2_nano.busi"
    with zipfile.ZipFile(tmp_path / "package.zip", "w") as archive:
        for path in (WEIGHTS_DIRECTORY / name).iterdir():
            archive.write(path, f"diffmiczoo/weights/{name}/{path.name}")
    picture = np.random.default_rng(0).integers(0, 255, (200, 220, 3), dtype=np.uint8)
    expected = diffmiczoo.create_model(name, pretrained=True).predict(picture)
    inside = zipfile.Path(tmp_path / "package.zip", "diffmiczoo/weights/")
    monkeypatch.setattr("diffmiczoo.zoo.weights.WEIGHTS_DIRECTORY", inside)
    model = diffmiczoo.create_model("diffmicv2_busi", pretrained=True)
    assert model.loaded_from.name == name and model.loaded_from.parent.name.startswith("diffmiczoo-")
    assert torch.equal(model.predict(picture).probs, expected.probs)
    assert diffmiczoo.list_pretrained() == ["diffmicv2_busi", "diffmicv2_nano", name]
