"""Figures that README and docs quote are those of the weights that ship."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

import diffmiczoo
import diffmiczoo.zoo.weights
from diffmiczoo.hub.companions import weights_digest

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "diffmiczoo" / "weights"
README = (ROOT / "README.md").read_text("utf-8")
FAQ = (ROOT / "docs" / "faq.md").read_text("utf-8")
EVALUATE = (ROOT / "docs" / "evaluate.md").read_text("utf-8")

#: What README says that the model adds to its DCG.
ADDED = {
    "aptos2019": ("balanced_accuracy",),
    "ham10000": ("balanced_accuracy",),
    "busi": (),
}


def metrics_of(name: str) -> dict[str, Any]:
    return json.loads((WEIGHTS / f"diffmicv2_nano.{name}" / "metrics.json").read_text("utf-8"))["test"]


def plain_values(name: str) -> dict[str, float]:
    """Returns what plain classifiers reach: the mean of an opponent's seeds."""
    metrics = json.loads((WEIGHTS / f"diffmicv2_nano.{name}" / "metrics.json").read_text("utf-8"))
    runs = list(metrics["opponent"]["seeds"].values())
    return {metric: statistics.mean(run[metric] for run in runs) for metric in runs[0]}


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def interval(values: list[float]) -> str:
    return f"{signed(values[0])} [{signed(values[1])}, {signed(values[2])}]"


@pytest.mark.parametrize("name", ADDED)
def test_readme_claims_what_excludes_zero_and_nothing_else(name: str) -> None:
    difference = metrics_of(name)["difference"]
    text = " ".join(README.split())
    for metric in ADDED[name]:
        assert interval(difference[metric]) in text, metric
    assert {metric for metric, (_, low, high) in difference.items() if low * high > 0} == set(ADDED[name])


@pytest.mark.parametrize(("row", "name"), [("HAM10000", "ham10000"), ("APTOS2019", "aptos2019"), ("BUSI", "busi")])
def test_the_questions_quote_the_plain_classifiers(row: str, name: str) -> None:
    plain, model = plain_values(name), metrics_of(name)["model"]["values"]
    cells = [f"{values['auroc']:.3f}, {values['ece']:.3f}" for values in (plain, model)]
    assert f"| {row} | {cells[0]} | {cells[1]} |" in FAQ


def test_the_page_on_ece_quotes_the_cards() -> None:
    model = metrics_of("ham10000")["model"]
    low, high = model["intervals"]["ece"]
    assert f"{model['values']['ece']:.4f}, interval [{low:.4f}, {high:.4f}]" in " ".join(EVALUATE.split())
    assert model["values"]["ece"] - low < (high - low) / 4


def test_the_page_on_servers_names_the_weights_that_ship() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8")
    name, shown = re.search(r'"model": "(\S+)", "weights_sha256": "(\w+)…"', page).groups()
    assert weights_digest(diffmiczoo.create_model(name, pretrained=True)).startswith(shown)


def test_the_questions_count_the_weights_that_ship() -> None:
    count = sum(weights.ships for weights in diffmiczoo.zoo.weights.WEIGHTS.values())
    assert f"{('no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven')[count]} sets of weights ship" in FAQ


def test_readme_says_where_the_larger_model_differs_from_its_dcg() -> None:
    metrics = json.loads((WEIGHTS / "diffmicv2_small.ham10000" / "metrics.json").read_text("utf-8"))["test"]
    excluded = {name: values for name, values in metrics["difference"].items() if values[1] * values[2] > 0}
    assert all(interval(values) in " ".join(README.split()) for values in excluded.values()), excluded
