"""Model cards: what they have to say and what the Hub reads of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.card import render_card, render_license
from diffmiczoo.hub.card_facts import CardFacts, IncompleteCardError, read_facts
from diffmiczoo.hub.checklist import render_checklist, reported
from diffmiczoo.metrics.robustness import Robustness, RobustnessRow
from diffmiczoo.metrics.subgroups import Subgroup, SubgroupTable
from diffmiczoo.model import DiffMICv2


def test_the_cards_metadata_is_what_the_hub_reads(ready: Path) -> None:
    from huggingface_hub import ModelCard

    facts = read_facts(ready)
    card = ModelCard(render_card("name", DiffMICv2.from_pretrained(ready).config, 10, facts))
    assert card.data.library_name == "diffmiczoo" and card.data.license == "apache-2.0"
    assert card.data.pipeline_tag == "image-classification" and "medical" in card.data.tags
    reported = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert reported["accuracy"] == pytest.approx(facts.metrics.values["accuracy"], abs=1e-4)
    # By the Hub's identifiers, not by ours.
    assert {"f1", "roc_auc", "brier_score"} <= reported.keys() and not {"macro_f1", "auroc"} & reported.keys()
    assert set(card.data.metrics) == reported.keys()
    arguments = {result.metric_type: result.metric_args for result in card.data.eval_results}
    assert arguments["f1"] == {"average": "macro"} and arguments["roc_auc"]["multi_class"] == "ovr"
    assert card.data.base_model is None and card.data.datasets is None and card.data.license_name is None


def test_the_hub_learns_licence_data_sets_and_where_training_started(ready: Path) -> None:
    from huggingface_hub import ModelCard

    told = {
        "license": "other",
        "license_name": "clinic-1.0",
        "license_link": "https://example.org/licence",
        "datasets": ["clinic/skin"],
        "base_model": ["timm/resnet18.a1_in1k"],
        "source": "https://example.org/code",
    }
    facts = card_with(ready, told)
    card = ModelCard(render_card("name", DiffMICv2.from_pretrained(ready).config, 10, facts))
    assert (card.data.license, card.data.license_name) == ("other", "clinic-1.0")
    assert card.data.license_link == told["license_link"]
    assert card.data.datasets == told["datasets"] and card.data.base_model == told["base_model"]
    result = card.data.eval_results[0]
    assert (result.dataset_type, result.source_url) == ("clinic/skin", told["source"])
    assert "Weights: [clinic-1.0](https://example.org/licence)." in card.content
    text = render_license("name", DiffMICv2.from_pretrained(ready).config, facts)
    assert "Licence: clinic-1.0\nFull text: https://example.org/licence" in text and "CC BY 4.0" in text


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"license": "other"}, "'license_name' is missing: the license is 'other'"),
        ({"license": "clinic-1.0"}, "'license_link' is missing: no address is known for the license 'clinic-1.0'"),
        ({"limits": "none"}, "'limits' is one text; expected a list of sentences"),
        ({"out_of_scope": [1]}, "'out_of_scope' is [1]; expected a list of texts"),
        ({"population": ["women"]}, "'population' is ['women']; expected a text"),
        ({"counts": [1, 2]}, "'counts' is [1, 2]; expected name: value"),
        ({"checklist": {"CLAIM 45": "x"}}, "'checklist' has 'CLAIM 45': 'x'; expected items such as 'CLAIM 13'"),
    ],
)
def test_what_card_json_holds_is_checked(ready: Path, told: dict[str, Any], said: str) -> None:
    with pytest.raises(IncompleteCardError, match=re.escape(said)):
        card_with(ready, told)


def test_a_checklist_claims_nothing_that_nobody_wrote_down(ready: Path) -> None:
    config = DiffMICv2.from_pretrained(ready).config
    bare = render_checklist("name", config, card_with(ready, {}))
    for number in ("13", "18", "30", "34", "36", "41", "44"):
        assert re.search(rf"^\| {number} \| [^|]+ \| \*not reported\* \|$", bare.split("## TRIPOD")[0], re.M), number
    assert f"## CLAIM: {44 - not_reported(bare, 0)} of 44 items reported" in bare
    told = {"checklist": {"CLAIM 13": "one *scanner*", "TRIPOD+AI 17": "none | needed"}, "population": "Twelve women."}
    full = render_checklist("name", config, card_with(ready, told))
    assert "| 13 | how the images were acquired | one scanner |" in full
    assert r"| 17 | ethical approval | none \| needed |" in full
    assert "| 36 | demography and disease in each partition | Twelve women. |" in full
    before, after = (sum(not_reported(text, part) for part in (0, 1)) for text in (bare, full))
    assert before - after == 5  # the two, 36, 20b, and 3b, which needs the population
    counts = reported(card_with(ready, told), config)
    assert counts == {"CLAIM": (44 - not_reported(full, 0), 44), "TRIPOD+AI": (52 - not_reported(full, 1), 52)}
    said = " and ".join(f"{some} of {items} items of {name}" for name, (some, items) in counts.items())
    assert said in render_card("name", config, 10, card_with(ready, told))


def test_key_figures_say_what_was_measured_and_what_not(ready: Path) -> None:
    config, path = DiffMICv2.from_pretrained(ready).config, ready / "metrics.json"
    bare = render_card("name", config, 10, card_with(ready, {})).split("## Key figures")[1].split("## Limits")[0]
    assert bare.count("*not reported*") == 4 and "| How often is it right? | balanced accuracy 0." in bare
    groups = (
        Subgroup("women", 30, None, 3, {"accuracy": 0.6}, {"accuracy": (0.5, 0.7)}),
        Subgroup("men", 30, None, 3, {"accuracy": 0.9}, {"accuracy": (0.8, 1.0)}),
        Subgroup("else", 3, None, 2),
    )
    rows = [RobustnessRow(name, 3, {"accuracy": value}) for name, value in (("blur", 0.7), ("noise", 0.2))]
    measured = json.loads(path.read_text())
    measured["test"] |= {
        "subgroups": [SubgroupTable("sex", Subgroup("all", 63, None, 3, {"accuracy": 0.7}), groups, 3).to_dict()],
        "robustness": Robustness(63, 0.1, RobustnessRow("clean", 0, {"accuracy": 0.7}), tuple(rows)).to_dict(),
    }
    differences = {"balanced_accuracy": [-0.2, -0.3, -0.1]}
    measured["opponent"] = {"name": "timm/resnet18", "seeds": {}, "differences": differences}
    path.write_text(json.dumps(measured))
    card = render_card("name", config, 10, card_with(ready, {})).split("## Key figures")[1]
    found = "lowest women 0.600 [0.500, 0.700], highest men 0.900 [0.800, 1.000] | the intervals do not overlap |"
    assert f"accuracy by sex: {found}" in card
    assert "accuracy 0.700 → 0.200 with noise, severity 3 |" in card
    assert "balanced accuracy -0.200 [-0.300, -0.100] over timm/resnet18 | **worse** |" in card


def card_with(directory: Path, told: dict[str, Any]) -> CardFacts:
    """Writes more into `card.json`, and reads all facts."""
    path = directory / "card.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))
    return read_facts(directory)


def not_reported(text: str, part: int) -> int:
    """Counts what one of the two checklists leaves out."""
    return text.split("## TRIPOD")[part].count("| *not reported* |")


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


def test_a_card_says_what_the_weights_have_over_a_plain_classifier(ready: Path) -> None:
    path = ready / "metrics.json"
    measured = json.loads(path.read_text())
    names = measured["test"]["model"]["values"]
    measured["seeds"] = {"model": {str(seed): dict.fromkeys(names, 0.5 + 0.1 * seed) for seed in range(3)}}
    measured["opponent"] = {
        "name": "timm/resnet18",
        "seeds": {str(seed): dict.fromkeys(names, 0.9 + 0.05 * seed) for seed in range(3)},
        "differences": {
            "nll": [-0.2, -0.3, -0.1],
            "auroc": [0.01, -0.02, 0.04],
            "balanced_accuracy": [-0.1, -0.2, -0.05],
        },
    }
    path.write_text(json.dumps(measured))
    card = render_card("name", DiffMICv2.from_pretrained(ready).config, 10, read_facts(ready))
    header, line = (next(row for row in card.splitlines() if row.startswith(start)) for start in ("| metric", "| acc"))
    assert header.endswith("| timm/resnet18, all seeds |") and line.endswith("| 0.950 ± 0.050 |")
    # Lower is better of the NLL, higher of the others; 0.35 apart are 3.5 of the larger standard deviation.
    assert (
        "Against timm/resnet18, trained with the same budget: "
        "NLL -0.200 [-0.300, -0.100], better (means of the seeds: -0.350, 3.5 sd); "
        "balanced accuracy -0.100 [-0.200, -0.050], worse (means of the seeds: -0.350, 3.5 sd); "
        "AUROC +0.010 [-0.020, +0.040], no difference that excludes 0 (means of the seeds: -0.350, 3.5 sd)." in card
    )


def test_a_card_tells_how_labels_are_chosen_and_which_views_are_averaged(ready: Path) -> None:
    config, facts = DiffMICv2.from_pretrained(ready).config, read_facts(ready)
    plain = render_card("name", config, 10, facts)
    assert "views" not in plain and "Labels by the largest" not in plain
    offsets = tuple(0.25 * place for place in range(config.num_classes))
    fitted = config.replace(tta="flips", temperature=1.5, label_adjustment=offsets)
    card = render_card("name", fitted, 10, facts)
    assert 'mean over 4 views (`tta="flips"`)' in card and "cut from" not in card
    larger = render_card("name", config.replace(roi_source_size=2 * config.image_size), 10, facts)
    assert f"{config.roi_size} pixels cut from {2 * config.image_size} × {2 * config.image_size}" in larger
    assert f"Labels by the largest log probability + {config.labels[0]} 0.00, {config.labels[1]} 0.25" in card


def test_a_plain_classifiers_card_has_no_dcg_and_no_diffusion(ready: Path) -> None:
    path = ready / "metrics.json"
    measured = json.loads(path.read_text())
    measured["test"]["dcg"] = measured["test"]["model"]
    path.write_text(json.dumps(measured))
    config = DiffMICConfig(predictor="classifier", dcg_encoder="resnet18")
    card = render_card("name", config, 10, read_facts(ready))
    for word in ("DCG", "- diffusion", "sampling", "ROIs", "efficientsam"):
        assert word not in card, word
    assert "timm's resnet18 as a whole" in card and "| this model | not calibrated |" in card and "(timm), doi" in card


def test_everything_that_a_card_lacks_is_listed_at_once(ready: Path) -> None:
    (ready / "card.json").write_text('{"licence": "MIT", "limits": "none"}')
    (ready / "metrics.json").unlink()
    with pytest.raises(IncompleteCardError) as caught:
        read_facts(ready)
    for words in ("'license' is missing", "'licence' is unknown", "'limits' is one text", "metrics.json: the metrics"):
        assert words in str(caught.value)


def test_a_card_shows_subgroups_and_robustness_where_they_were_measured(ready: Path) -> None:
    path = ready / "metrics.json"
    measured = json.loads(path.read_text())
    plain = render_card("name", DiffMICv2.from_pretrained(ready).config, 10, read_facts(ready))
    assert "Subgroups" not in plain and "Robustness" not in plain
    values = {"accuracy": 0.9, "balanced_accuracy": 0.8, "ece": 0.1, "nll": 0.3}
    few, ends = Subgroup("50|60", 9, None, 2), {"accuracy": (0.8, 0.95)}
    table = SubgroupTable("site", Subgroup("all", 40, None, 3, {"accuracy": 0.9}, ends), (few,), 3)
    rows = [RobustnessRow("colour_cast", severity, {**values, "accuracy": 0.1 * severity}) for severity in (1, 2, 3)]
    found = Robustness(40, 0.1, RobustnessRow("clean", 0, values), tuple(rows))
    measured["test"] |= {"subgroups": [table.to_dict()], "robustness": found.to_dict()}
    path.write_text(json.dumps(measured))
    card = render_card("name", DiffMICv2.from_pretrained(ready).config, 10, read_facts(ready))
    assert r"| 50\|60 | 9 | 2 | too few |" in card and "| all | 40 | 3 | 0.900 [0.800, 0.950] |" in card
    assert "| clean | 0.900 | 0.800 | 0.100 | 0.300 |" in card
    assert "| colour cast, severity 3 | 0.300 | 0.800 | 0.100 | 0.300 |" in card
    assert "| mean | 0.200 | 0.800 | 0.100 | 0.300 |" in card and "severity 1" not in card


def test_what_is_not_known_is_a_dash_and_the_hub_is_told_numbers_only(ready: Path) -> None:
    path = ready / "metrics.json"
    measured = json.loads(path.read_text())
    measured["test"]["model"]["values"]["auroc"] = None
    known = {name: [0.1, 0.0, 0.2] for name in measured["test"]["model"]["values"]}
    measured["test"]["difference"] = known | {"auroc": [None, None, None]}
    path.write_text(json.dumps(measured))
    card = render_card("name", DiffMICv2.from_pretrained(ready).config, 10, read_facts(ready))
    assert "| AUROC (macro, one-vs-rest) | – | – |" in card and "nan" not in card and "+0.100 [+0.000, +0.200]" in card


BROKEN = {
    "no object": lambda found: found.update(test=None),
    "no metrics": lambda found: found["test"].update(model=None),
    "a text": lambda found: found["test"]["model"]["values"].update(accuracy="high"),
    "no interval": lambda found: found["test"]["model"]["intervals"].update(accuracy=None),
    "seeds": lambda found: found.update(seeds=[1]),
    "other seeds": lambda found: found.update(seeds={"other": {}}),
    "opponent": lambda found: found.update(opponent={"name": "x"}),
    "subgroups": lambda found: found["test"].update(subgroups=None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_measurements_of_another_form_are_refused_with_the_file(ready: Path, name: str) -> None:
    path = ready / "metrics.json"
    measured = json.loads(path.read_text())
    BROKEN[name](measured)
    path.write_text(json.dumps(measured))
    with pytest.raises(IncompleteCardError, match=r"metrics\.json: (not what|the metrics of the model on the test)"):
        read_facts(ready)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"counts": {"train": "many"}}, "'counts' has 'train': 'many'; expected how many images"),
        ({"intended_use": "  "}, "'intended_use' is missing or empty"),
        ({"limits": ["", " "]}, "'limits' is missing or empty"),
    ],
)
def test_texts_that_say_nothing_are_refused(ready: Path, told: dict[str, Any], said: str) -> None:
    with pytest.raises(IncompleteCardError, match=said):
        card_with(ready, told)


@pytest.mark.parametrize(
    ("fields", "told", "not_told"),
    [
        ({"predictor": "dcg"}, "the DCG of DiffMIC-v2 alone", "runs"),
        ({"predictor": "global"}, "global stream alone", "runs"),
        ({"predictor": "classifier", "dcg_encoder": "vit_tiny_patch16_224"}, "class activation map", "convolutional"),
        (
            {"mean": (0.5,) * 3, "std": (0.5, 0.5, 0.25)},
            "values of 0 to 1 less 0.500, divided by 0.500, 0.250",
            "ImageNet",
        ),
        (
            {"roi_source_size": 448},
            "224 × 224 pixels (ROIs cut from 448 × 448), mean and standard deviation of",
            "less",
        ),
    ],
)
def test_card_and_checklists_claim_what_the_model_is(ready: Path, fields: dict[str, Any], told: str, not_told: str):
    config, facts = DiffMICConfig(**fields), read_facts(ready)
    text = render_checklist("name", config, facts)
    assert told in text and not_told not in text
    card = render_card("name", config, 10, facts)
    assert ("- diffusion" in card) == ("sampling steps" in card) == (config.predictor == "diffusion")
