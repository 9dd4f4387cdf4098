"""The curves of a run, from the files that it left."""

from __future__ import annotations

import math

import pytest

from diffmiczoo.errors import InvalidValueError
from diffmiczoo.reporting.history import run_of, training_curves
from diffmiczoo.reporting.report import shown_name

ROWS = """stage,epoch,train_loss,auroc,nll,best
dcg,1,1.5,0.5,0.9,
dcg,2,1.25,,0.8,True
diffusion,1,0.5,0.75,0.7,True
"""


def test_the_metric_is_the_one_that_chose_the_epochs(tmp_path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "metrics.csv").write_text(ROWS)
    assert run_of(tmp_path / "best") == run_of(tmp_path) == tmp_path and run_of(None) is None
    first, second = training_curves(tmp_path).stages.values()
    assert (first.epochs, first.loss, first.metric, first.best) == ((1, 2), (1.5, 1.25), "auroc", 2)
    assert first.values[0] == 0.5 and math.isnan(first.values[1]) and second.values == (0.75,)
    (tmp_path / "recipe.json").write_text('{"select": "nll"}')
    assert training_curves(tmp_path).stages["dcg"].values == (0.9, 0.8)


def test_what_is_no_history_is_said(tmp_path) -> None:
    assert training_curves(None) is None and training_curves(tmp_path) is None
    (tmp_path / "metrics.csv").write_text("")
    assert training_curves(tmp_path) is None
    (tmp_path / "metrics.csv").write_text("stage,epoch,train_loss,nll\ndcg,one,0.5,0.25\n")
    with pytest.raises(InvalidValueError, match="not the history of a training run"):
        training_curves(tmp_path)


def test_where_weights_lie_is_nobodys_business(tmp_path) -> None:
    assert shown_name(f"local-dir:{tmp_path}/runs/busi/best") == shown_name(f"{tmp_path}/runs/busi/best") == "busi/best"
    assert shown_name("diffmicv2_nano.busi") == "diffmicv2_nano.busi" and shown_name("hf-hub:org/a") == "hf-hub:org/a"
