"""Metadata of a card, by the Hub's own identifiers: what its search and its filters read."""

from __future__ import annotations

import math
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.card_facts import CardFacts
from diffmiczoo.hub.licenses import OTHER
from diffmiczoo.metrics.table import overall_metrics

#: Metric → the Hub's identifier, and how it is computed where that has several ways; others keep our name.
_HUB_METRICS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "macro_f1": ("f1", {"average": "macro"}),
    "auroc": ("roc_auc", {"average": "macro"}),
    "brier": ("brier_score", None),
    "quadratic_kappa": ("cohen_kappa", {"weights": "quadratic"}),
}


#: Predictor → tags of its own.
_TAGS = {"diffusion": ["diffusion", "diffmic-v2"], "classifier": []}


def metadata(name: str, config: DiffMICConfig, facts: CardFacts) -> str:
    """Returns the metadata as YAML.

    Args:
        name: of the weights.
        config: the model's.
        facts: of the card.
    """
    from huggingface_hub import ModelCardData

    results = _results(facts, config.task)
    other = facts.license == OTHER or None
    data = ModelCardData(
        library_name="diffmiczoo",
        pipeline_tag="image-classification",
        license=facts.license,
        license_name=other and facts.license_name,
        license_link=facts.license_link or None,
        datasets=list(facts.datasets) or None,
        base_model=list(facts.base_model) or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)),
        tags=["medical", *_TAGS.get(config.predictor, ["diffmic-v2"]), config.task],
        model_name=name,
        eval_results=results,
    )
    return data.to_yaml()


def _results(facts: CardFacts, task: str) -> list[Any]:
    from huggingface_hub import EvalResult

    # The Hub takes an address only with a name.
    name = "training code" if facts.source else None
    results = []
    for metric in overall_metrics():
        value = facts.metrics.values.get(metric.name, math.nan)
        if math.isnan(value):  # the Hub takes numbers only
            continue
        identifier, arguments = _HUB_METRICS.get(metric.name, (metric.name, None))
        if identifier == "roc_auc" and task == "multiclass":
            arguments = {"average": "macro", "multi_class": "ovr"}
        results.append(
            EvalResult(
                task_type="image-classification",
                dataset_type=facts.datasets[0] if facts.datasets else facts.dataset,
                dataset_name=facts.dataset,
                dataset_split="test",
                metric_type=identifier,
                metric_args=arguments,
                metric_name=metric.label,
                metric_value=round(value, 4),
                source_name=name,
                source_url=facts.source or None,
            )
        )
    return results
