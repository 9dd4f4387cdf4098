"""How the best epoch is chosen."""

from __future__ import annotations

import pytest

from diffmiczoo.metrics.report import Metrics
from diffmiczoo.training.validation import selection_value


def test_the_selection_metric_has_to_exist_and_may_be_undefined() -> None:
    metrics = Metrics({"auroc": float("nan"), "nll": 0.4, "accuracy": 0.5}, {}, {}, 4, None, ())
    assert selection_value(metrics, "auroc") == float("-inf")
    assert selection_value(metrics, "nll") == -0.4 and selection_value(metrics, "accuracy") == 0.5
    with pytest.raises(ValueError, match="select='macro_f1' is not a metric of this task"):
        selection_value(metrics, "macro_f1")
