"""Model cards: what they have to say and what the Hub reads of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffmiczoo.hub.card import IncompleteCardError, read_facts, render_card
from diffmiczoo.model import DiffMICv2


def test_the_cards_metadata_is_what_the_hub_reads(ready: Path) -> None:
    from huggingface_hub import ModelCard

    facts = read_facts(ready)
    card = ModelCard(render_card("name", DiffMICv2.from_pretrained(ready).config, 10, facts))
    assert card.data.library_name == "diffmiczoo" and card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-classification" and "medical" in card.data.tags
    reported = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert reported["accuracy"] == pytest.approx(facts.metrics.values["accuracy"], abs=1e-4)


def test_a_card_tells_mean_and_standard_deviation_of_all_seeds(ready: Path) -> None:
    path = ready / "metrics.json"
    measured = json.loads(path.read_text())
    names = measured["test"]["model"]["values"]
    measured["seeds"] = {
        part: {str(seed): dict.fromkeys(names, base + 0.1 * seed) for seed in range(3)}
        for part, base in (("model", 0.5), ("dcg", 0.25))
    }
    measured["seeds"]["dcg"]["1"]["accuracy"] = None
    path.write_text(json.dumps(measured))
    facts = read_facts(ready)
    card = render_card("name", DiffMICv2.from_pretrained(ready).config, 10, facts)
    header, line = (next(row for row in card.splitlines() if row.startswith(start)) for start in ("| metric", "| acc"))
    assert "| model, all seeds | DCG, all seeds |" in header
    assert line.endswith("| 0.600 ± 0.100 | 0.350 ± 0.141 |")
    assert "3 runs that differ in the seed only (0, 1, 2)" in card


def test_everything_that_a_card_lacks_is_listed_at_once(ready: Path) -> None:
    (ready / "card.json").write_text('{"licence": "MIT", "limits": "none"}')
    (ready / "metrics.json").unlink()
    with pytest.raises(IncompleteCardError) as caught:
        read_facts(ready)
    for words in ("'license' is missing", "'licence' is unknown", "'limits' is one text", "metrics.json: the metrics"):
        assert words in str(caught.value)
