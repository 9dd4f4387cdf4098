"""Model cards: what a set of weights is, what it was measured to do, and what it must not be used for."""

from __future__ import annotations

import json
import re
import string
from importlib import resources

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.card_facts import CardFacts
from diffmiczoo.hub.card_metadata import metadata
from diffmiczoo.hub.card_tables import (
    cell,
    class_table,
    difference_cell,
    known_limits,
    robustness_table,
    spread,
    subgroup_tables,
    table,
)
from diffmiczoo.hub.card_uses import key_figures, uses_table
from diffmiczoo.hub.checklist import CHECKLIST_FILE, reported
from diffmiczoo.hub.licenses import LINKS, license_text
from diffmiczoo.inference.views import VIEWS
from diffmiczoo.metrics.table import overall_metrics

NOT_CLINICAL = (
    "**Not for clinical use.** This is a research model. It is not a medical device, was not validated for diagnosis, "
    "and must not guide the care of any person."
)

_METHOD = (
    "Yang, Fu, Aviles-Rivero, Xing, Zhu: *DiffMIC-v2: Medical Image Classification via Improved Diffusion Network*, "
    "IEEE TMI 2025, doi 10.1109/TMI.2025.3530399; Yang, Fu, Aviles-Rivero, Schönlieb, Zhu: *DiffMIC: Dual-Guidance "
    "Diffusion Network for Medical Image Classification*, MICCAI 2023, https://arxiv.org/abs/2303.10610. Independent "
    "implementation."
)
_PLAIN_METHOD = (
    "A plain classifier, to compare DiffMIC-v2 with: the network {} of Ross Wightman's *PyTorch Image Models* (timm), "
    "doi 10.5281/zenodo.4414861, with a class activation map (Zhou et al., CVPR 2016)."
)

#: The card's text, with a $slot for each thing that differs.
_TEMPLATE = "card_template.md"


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
        "metadata": metadata(name, config, facts),
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
        "method": _method(config),
        "commands": f"Commands{at}:\n\n" + _code("bash", "\n".join(facts.commands)) if facts.commands else "",
        "recipe": "Recipe:\n\n" + _code("json", json.dumps(facts.recipe)) if facts.recipe else "",
        "calibration": _calibration(config),
        "known_limits": "" if facts.trust is None else known_limits(facts.trust),
        "intended_use": f"{facts.intended_use} {NOT_CLINICAL}",
        "uses": uses_table(facts),
        "key_figures": key_figures(facts),
        "checklists": _checklists(config, facts),
        "limits": "\n".join(f"- {limit}" for limit in facts.limits),
        "license": _license(facts),
        "code": f"{facts.source}, Apache-2.0" if facts.source else "Apache-2.0",
        "data_license": facts.data_license,
        "citation": facts.citation,
    }
    template = resources.files("diffmiczoo.hub").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    text = string.Template(template).substitute(slots)
    # An empty slot leaves its empty lines.
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _license(facts: CardFacts) -> str:
    name = facts.license_name or facts.license
    link = facts.license_link or LINKS.get(facts.license, "")
    return f"[{name}]({link})" if link else name


def _method(config: DiffMICConfig) -> str:
    return _PLAIN_METHOD.format(config.dcg_encoder) if config.predictor == "classifier" else _METHOD


def _checklists(config: DiffMICConfig, facts: CardFacts) -> str:
    found = reported(facts, config)
    counts = (f"{said} of {items} items of {name}" for name, (said, items) in found.items())
    return f"[{CHECKLIST_FILE}]({CHECKLIST_FILE}) reports {' and '.join(counts)}, and says which it does not."


def render_license(name: str, config: DiffMICConfig, facts: CardFacts) -> str:
    """Returns the text of `LICENSE` beside weights.

    Args:
        name: of the weights.
        config: the model's.
        facts: of their card.
    """
    given = (facts.license, facts.license_link, facts.license_name, facts.data_license)
    return license_text(name, *given, _method(config))


def _architecture(config: DiffMICConfig) -> str:
    """Says which networks a model is made of, and how large its own parts are."""
    if config.predictor == "classifier":
        return f"timm's {config.dcg_encoder} as a whole, a plain classifier"
    if config.predictor == "global":
        return f"encoder {config.dcg_encoder}, the DCG's global stream alone"
    size = config.input_size
    source = f" cut from {size} × {size}" if size != config.image_size else ""
    rois = f"K {config.num_rois} × {config.roi_size} pixels{source}"
    if config.predictor == "dcg":
        return f"encoder {config.dcg_encoder} of both streams, the DCG alone; {rois}"
    return (
        f"encoders {config.raw_encoder} (image), {config.roi_encoder} (ROIs), {config.dcg_encoder} (DCG); "
        f"H {config.latent_dim}, Np {config.num_points}, {rois}"
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
        columns["difference"] = [difference_cell(facts.differences.get(name)) for name in reported]
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
    runs = runs if config.predictor == "diffusion" else "one pass"
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
