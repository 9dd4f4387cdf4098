"""A metric is a row in one table: everything that shows or chooses by metrics reads it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from factories import random_predictions

from diffmiczoo.cli import main
from diffmiczoo.config import DiffMICConfig, choices
from diffmiczoo.hub.card import render_card
from diffmiczoo.hub.card_facts import CardFacts
from diffmiczoo.metrics import table
from diffmiczoo.metrics.definitions import recall_by_class
from diffmiczoo.metrics.table import Metric, find_metric, metric_names
from diffmiczoo.metrics.weighted import WeightedImages
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.validation import selection_value


def _worst_miss(images: WeightedImages) -> np.ndarray:
    return 1 - np.nanmin(recall_by_class(images), axis=1)


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (
        Metric("worst_miss", "largest share missed", _worst_miss, higher_is_better=False, headline=True),
        Metric("missed", "missed", lambda images: 1 - recall_by_class(images), per_class=True, headline=True),
    )
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, *rows))


@pytest.mark.usefixtures("extra")
def test_a_row_in_the_table_is_all_that_a_new_metric_needs(manifest_csv, tmp_path) -> None:
    one, other = random_predictions(skill=2), random_predictions(skill=1, seed=1)
    metrics = one.metrics(bootstrap=50, progress=False)
    recalls = [row["recall"] for row in metrics.per_class.values()]
    assert metrics.values["worst_miss"] == pytest.approx(1 - min(recalls))
    low, high = metrics.intervals["worst_miss"]
    assert low < high and one.difference(other, 50, progress=False)["worst_miss"][0] < 0
    assert metrics.per_class["c0"]["missed"] == pytest.approx(1 - recalls[0])

    assert Recipe(select="worst_miss").select == "worst_miss" and "worst_miss" in choices(Recipe, "select")
    assert selection_value(metrics, "worst_miss") == -metrics.values["worst_miss"]

    facts = CardFacts("mit", "mit", "images", "by patient", "research", ("few images",), metrics)
    card = render_card("name", DiffMICConfig(num_classes=4), 1, facts)
    value = f"{metrics.values['worst_miss']:.3f} [{low:.3f}, {high:.3f}]"
    assert f"| largest share missed | {value} |" in card and "type: worst_miss" in card
    assert "| class | images | recall | precision | F1 | AUROC | missed |" in card

    printed = str(metrics)
    header = next(line for line in printed.splitlines() if line.startswith("class"))
    assert f"worst_miss        {value}" in printed and header.split()[-2:] == ["missed", "support"]
    assert f"worst_miss {metrics.values['worst_miss']:.4f}" in metrics.headline()
    command = [
        "fit",
        "--no-report",
        "--model",
        "diffmicv2_nano",
        "--train",
        str(manifest_csv),
        "--output",
        str(tmp_path / "run"),
    ]
    refused = CliRunner().invoke(main, [*command, "--set", "select=nonsense"])
    assert refused.exit_code == 2 and "'worst_miss'" in refused.output


def test_a_table_that_was_written_before_a_metric_still_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = random_predictions(count=20).metrics(bootstrap=0)
    new = Metric("missed", "missed", lambda images: 1 - recall_by_class(images), per_class=True)
    monkeypatch.setattr(table, "METRICS", (*table.METRICS, new))
    assert all(line.split()[-2] == "–" for line in str(metrics).splitlines() if line.startswith("c0"))


def test_quality_grows_with_what_is_better_and_nothing_is_worse_than_undefined() -> None:
    assert find_metric("nll").quality(0.4) == -0.4 and find_metric("accuracy").quality(0.4) == 0.4
    assert find_metric("brier").quality(math.nan) == find_metric("auroc").quality(math.nan) == -math.inf


def test_tasks_have_their_own_metrics() -> None:
    assert "quadratic_kappa" in metric_names("multiclass", ordinal=True)
    assert "quadratic_kappa" not in metric_names("multiclass") + metric_names("multilabel", ordinal=True)
    assert "average_precision" in metric_names("multilabel") and "balanced_accuracy" in metric_names("multiclass")
    with pytest.raises(ValueError, match="'f1' is not a metric; known are accuracy, balanced_accuracy"):
        find_metric("f1")
    with pytest.raises(ValueError, match="select='ece' is not one of"):
        Recipe(select="ece")


def test_names_are_unique() -> None:
    keys = [(metric.name, metric.per_class) for metric in table.METRICS]
    assert len(set(keys)) == len(keys)


def test_reading_a_recipe_does_not_import_torch() -> None:
    code = "import sys, diffmiczoo.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
