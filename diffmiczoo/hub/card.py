"""Model cards: what a set of weights is, what it was measured to do, and what it must not be used for."""

from __future__ import annotations

import json
import os
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import read_json_object
from diffmiczoo.hub.card_tables import (
    cell,
    class_table,
    known_limits,
    robustness_table,
    spread,
    subgroup_tables,
    table,
)
from diffmiczoo.hub.opponent import Opponent
from diffmiczoo.inference.views import VIEWS
from diffmiczoo.metrics.ablation import Ablation
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.robustness import Robustness
from diffmiczoo.metrics.subgroups import SubgroupTable
from diffmiczoo.metrics.table import overall_metrics
from diffmiczoo.metrics.trust import TrustReport

NOT_CLINICAL = (
    "**Not for clinical use.** This is a research model. It is not a medical device, was not validated for diagnosis, "
    "and must not guide the care of any person."
)


#: What nobody but the person who trained the weights knows; a card without one of these is refused.
REQUIRED = ("license", "data_license", "training_data", "split", "intended_use", "limits")

#: What else `card.json` may hold.
OPTIONAL = ("description", "dataset", "commands", "commit", "counts", "citation", "comparison")

CARD_FILE = "card.json"
METRICS_FILE = "metrics.json"
RECIPE_FILE = "recipe.json"

_METHOD = (
    "Yang, Fu, Aviles-Rivero, Xing, Zhu: *DiffMIC-v2: Medical Image Classification via Improved Diffusion Network*, "
    "IEEE TMI 2025, doi 10.1109/TMI.2025.3530399. Independent implementation."
)
_PLAIN_METHOD = (
    "A plain classifier, to compare DiffMIC-v2 with: the network {} of Ross Wightman's *PyTorch Image Models* (timm), "
    "doi 10.5281/zenodo.4414861, with a class activation map (Zhou et al., CVPR 2016)."
)

#: The card's text, with a $slot for each thing that differs.
_TEMPLATE = "card_template.md"


class IncompleteCardError(InvalidValueError):
    """Weights lack what has to be known before anybody else may use them; the message lists it."""

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([message + ":" * bool(missing), *missing]))


@dataclass(frozen=True)
class CardFacts:
    """What a card says beyond the config; measured or given, nothing of it is made up.

    Attributes:
        license: of the weights, an identifier of the Hub ("apache-2.0", "cc-by-nc-4.0", "other", …).
        data_license: of the images that they were trained on.
        training_data: where images and labels come from, with citation.
        split: how training, validation and test images were kept apart.
        intended_use: what the weights are good for.
        limits: sentences about what the model cannot do.
        metrics: of the whole model on the test split.
        dcg: of its DCG alone on the same images.
        differences: metric → (model - dcg, and its 95 % interval low and high), on the same resamples.
        seeds: "model" or "dcg" → seed → metric → value on the test split, of runs that differ in nothing else; the
            published weights are of one of them.
        seeds_note: in what else than the seed the runs differ from the published weights; empty where in nothing.
        description: one sentence.
        dataset: name of the data set.
        counts: images per split.
        commands: what trained, released and checked the weights.
        commit: of the code that trained them.
        recipe: fields of the `Recipe` in which training differed from the defaults.
        pictures: file names beside the card.
        citation: what to cite besides the method.
        comparison: a sentence on what other methods reach on the same images.
        ablation: what each member of the pool is worth on the test split.
        opponent: a plain classifier on the same images.
        trust: how what the weights know about their limits holds.
        subgroups: metrics on parts of the test images, a table for each column.
        robustness: on corrupted test images.
    """

    license: str
    data_license: str
    training_data: str
    split: str
    intended_use: str
    limits: tuple[str, ...]
    metrics: Metrics
    dcg: Metrics | None = None
    differences: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    seeds: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    seeds_note: str = ""
    description: str = ""
    dataset: str = "private"
    counts: dict[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    commit: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    citation: str = ""
    comparison: str = ""
    ablation: Ablation | None = None
    opponent: Opponent | None = None
    trust: TrustReport | None = None
    subgroups: tuple[SubgroupTable, ...] = ()
    robustness: Robustness | None = None


def missing_facts(directory: str | os.PathLike[str] | None) -> list[str]:
    """Returns what `card.json` and `metrics.json` of a directory lack, a line each; of None all that a card needs."""
    texts, measured = ({}, {}) if directory is None else _read(Path(directory))
    problems = [f"{CARD_FILE}: {name!r} is missing or empty" for name in REQUIRED if not texts.get(name)]
    unknown = sorted(texts.keys() - {*REQUIRED, *OPTIONAL})
    problems += [f"{CARD_FILE}: {name!r} is unknown; known are {', '.join((*REQUIRED, *OPTIONAL))}" for name in unknown]
    if isinstance(texts.get("limits"), str):
        problems.append(f"{CARD_FILE}: 'limits' is one text; expected a list of sentences")
    if "model" not in measured.get("test", {}):
        problems.append(f"{METRICS_FILE}: the metrics of the model on the test split are missing")
    return problems


def read_facts(directory: str | os.PathLike[str]) -> CardFacts:
    """Reads the facts that lie beside weights: `card.json`, `metrics.json`, and any `recipe.json` and PNG pictures.

    `card.json` holds the texts of `REQUIRED` (limits is a list of sentences) and any of `OPTIONAL`. `metrics.json`
    holds under "test" the metrics of "model", and optionally those of "dcg", their "difference", "subgroups" and
    "robustness"; under "seeds" those of each of several runs, under "trust" a `TrustReport`.

    Raises:
        IncompleteCardError: something is missing, empty or unknown; the message lists all of it.
        ValueError: a file is not JSON.
    """
    directory = Path(directory)
    problems = missing_facts(directory)
    if problems:
        raise IncompleteCardError(f"{directory} is not ready to be published", problems)
    texts, metrics = _read(directory)
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in texts.items()}
    measured, recipe = metrics["test"], directory / RECIPE_FILE
    return CardFacts(
        **fields,
        metrics=Metrics.from_dict(measured["model"]),
        dcg=Metrics.from_dict(measured["dcg"]) if "dcg" in measured else None,
        differences=measured.get("difference", {}),
        ablation=Ablation.from_dict(measured["ablation"]) if "ablation" in measured else None,
        opponent=Opponent.from_dict(metrics["opponent"]) if "opponent" in metrics else None,
        trust=TrustReport.from_dict(metrics["trust"]) if "trust" in metrics else None,
        subgroups=tuple(map(SubgroupTable.from_dict, measured.get("subgroups", ()))),
        robustness=Robustness.from_dict(measured["robustness"]) if "robustness" in measured else None,
        seeds=metrics.get("seeds", {}),
        seeds_note=metrics.get("seeds_note", ""),
        recipe=read_json_object(recipe) if recipe.is_file() else {},
        pictures=tuple(sorted(path.name for path in directory.glob("*.png"))),
    )


def _read(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what `card.json` and `metrics.json` hold; nothing for a file that is not there."""
    card, metrics = (
        read_json_object(directory / name) if (directory / name).is_file() else {} for name in (CARD_FILE, METRICS_FILE)
    )
    return card, metrics


# ---------------------------------------------------------------------- as Markdown


def render_card(name: str, config: DiffMICConfig, parameters: int, facts: CardFacts, load_as: str | None = None) -> str:
    """Returns a card as Markdown with the Hub's metadata: `card_template.md`, filled.

    Args:
        name: of the weights.
        config: the model's.
        parameters: their number.
        facts: what `read_facts` returns.
        load_as: what `create_model` takes to load them; `name` by default.
    """
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.counts.items())
    plain = config.predictor == "classifier"
    at = f" at commit `{facts.commit}`" if facts.commit else ""
    slots = {
        **config.to_dict(),
        "metadata": _metadata(name, config, facts),
        "name": name,
        "description": f"{facts.description} {NOT_CLINICAL}".lstrip(),
        "load_as": load_as or name,
        "how_measured": _how_measured(facts, plain),
        "metrics_table": _metrics_table(facts, plain),
        "comparison": "\n\n".join(text for text in (_verdict(facts), facts.comparison) if text),
        "ablation": _ablation(facts),
        "class_table": class_table(facts.metrics),
        "subgroups": subgroup_tables(facts.subgroups),
        "robustness": "" if facts.robustness is None else robustness_table(facts.robustness),
        "pictures": "\n\n".join(f"![{picture}]({picture})" for picture in facts.pictures),
        "training_data": facts.training_data,
        "split": facts.split + (f" Images: {counts}." if counts else ""),
        "parameters": f"{parameters:,}",
        "architecture": _architecture(config),
        "method": _PLAIN_METHOD.format(config.dcg_encoder) if config.predictor == "classifier" else _METHOD,
        "commands": f"Commands{at}:\n\n" + _code("bash", "\n".join(facts.commands)) if facts.commands else "",
        "recipe": "Recipe:\n\n" + _code("json", json.dumps(facts.recipe)) if facts.recipe else "",
        "calibration": _calibration(config),
        "known_limits": "" if facts.trust is None else known_limits(facts.trust),
        "intended_use": f"{facts.intended_use} {NOT_CLINICAL}",
        "limits": "\n".join(f"- {limit}" for limit in facts.limits),
        "license": facts.license,
        "data_license": facts.data_license,
        "citation": facts.citation,
    }
    template = resources.files("diffmiczoo.hub").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    text = string.Template(template).substitute(slots)
    # An empty slot leaves its empty lines.
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _metadata(name: str, config: DiffMICConfig, facts: CardFacts) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    plain = config.predictor == "classifier"
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=facts.dataset,
            dataset_name=facts.dataset,
            dataset_split="test",
            metric_type=metric.name,
            metric_name=metric.label,
            metric_value=round(facts.metrics.values[metric.name], 4),
        )
        for metric in overall_metrics()
        if metric.name in facts.metrics.values
    ]
    data = ModelCardData(
        library_name="diffmiczoo",
        pipeline_tag="image-classification",
        license=facts.license,
        tags=["medical", *([] if plain else ["diffusion", "diffmic-v2"]), config.task],
        model_name=name,
        eval_results=results,
    )
    return data.to_yaml()


def _architecture(config: DiffMICConfig) -> str:
    """Says which networks a model is made of, and how large its own parts are."""
    if config.predictor == "classifier":
        return f"timm's {config.dcg_encoder} as a whole, a plain classifier"
    size = config.input_size
    source = f" cut from {size} × {size}" if size != config.image_size else ""
    return (
        f"encoders {config.raw_encoder} (image), {config.roi_encoder} (ROIs), {config.dcg_encoder} (DCG); "
        f"H {config.latent_dim}, Np {config.num_points}, K {config.num_rois} × {config.roi_size} pixels{source}"
    )


def _how_measured(facts: CardFacts, plain: bool = False) -> str:
    units = f" in {facts.metrics.num_groups:,} groups" if facts.metrics.num_groups else ""
    text = f"Test split, {facts.metrics.num_images:,} images{units}, with 95 % bootstrap intervals"
    text += " (groups drawn whole)." if units else "."
    if facts.dcg is not None and plain:
        text += " *Not calibrated* is the same model without its temperature."
    elif facts.dcg is not None:
        text += (
            " *DCG alone* is the softmax (multi-label: sigmoid) of 0.5 · (ŷ_g + ŷ_l) of the same weights on the same "
            "images, not calibrated."
        )
    if facts.differences:
        text += " *Difference* is taken on the same resamples."
    if facts.seeds:
        seeds = list(next(iter(facts.seeds.values())))
        text += (
            f" *All seeds* are the means ± standard deviations of {len(seeds)} runs that differ in the seed only "
            f"({', '.join(seeds)}); this model is the best of them on the validation split."
        )
        text += f" {facts.seeds_note}" * bool(facts.seeds_note)
    return text


def _metrics_table(facts: CardFacts, plain: bool = False) -> str:
    reported = {metric.name: metric.label for metric in overall_metrics() if metric.name in facts.metrics.values}
    columns = {"metric": list(reported.values()), "this model": [cell(facts.metrics, name) for name in reported]}
    if facts.dcg is not None:
        columns["not calibrated" if plain else "its DCG alone"] = [cell(facts.dcg, name) for name in reported]
    if facts.differences:
        columns["difference"] = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*facts.differences[name]) for name in reported]
    words = {"model": "model, all seeds", "dcg": "DCG, all seeds"}
    columns |= {words[part]: [spread(runs, name) for name in reported] for part, runs in facts.seeds.items()}
    if facts.opponent is not None:
        columns[f"{facts.opponent.name}, all seeds"] = [spread(facts.opponent.seeds, name) for name in reported]
    return table(columns)


def _verdict(facts: CardFacts) -> str:
    return "" if facts.opponent is None else facts.opponent.verdict(facts.seeds.get("model", {}))


def _ablation(facts: CardFacts) -> str:
    if facts.ablation is None:
        return ""
    return (
        "### What the second stage is worth\n\nMembers of the pool on the same test images, each with a temperature or "
        "weights fitted on the validation split. F is the frozen image feature prior; logistic regression learned from "
        "the training images' F. Differences have 95 % intervals on the same resamples.\n\n"
        f"{facts.ablation.table()}\n\n{facts.ablation.verdict()}"
    )


def _code(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```"


def _calibration(config: DiffMICConfig) -> str:
    runs = f"{config.sampling_steps} sampling steps, {config.num_samples} run" + ("s" if config.num_samples > 1 else "")
    runs = "one pass" if config.predictor == "classifier" else runs
    runs += f', mean over {len(VIEWS[config.tta])} views (`tta="{config.tta}"`)' if config.tta != "none" else ""
    if config.temperature is None:
        return f"Not calibrated: probabilities are a ranking only. {runs[0].upper()}{runs[1:]}."
    weights = ""
    if any(config.prior_weight):
        weights = ", weights {:.4f} of the global and {:.4f} of the local prior".format(*config.prior_weight)
    weights += f", {config.feature_weight:.4f} of the classifier on F" if config.feature_weight else ""
    pairs = zip(config.labels, config.label_adjustment, strict=False)
    offsets = ", ".join(f"{name} {value:.2f}" for name, value in pairs)
    rule = f" Labels by the largest log probability + {offsets}, fitted there too." if offsets else ""
    return f"Temperature {config.temperature:.4f}{weights}, fitted on the validation split; {runs}.{rule}"
