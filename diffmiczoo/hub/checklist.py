"""The checklists CLAIM and TRIPOD+AI, filled from what is known of weights; the rest is said to be not reported."""

from __future__ import annotations

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.card_facts import CardFacts
from diffmiczoo.hub.card_tables import table
from diffmiczoo.hub.checklist_items import CHECKLISTS
from diffmiczoo.metrics.table import overall_metrics
from diffmiczoo.runtime.text import markdown_text

CHECKLIST_FILE = "CHECKLIST.md"

NOT_REPORTED = "not reported"


def render_checklist(name: str, config: DiffMICConfig, facts: CardFacts) -> str:
    """Returns both checklists as Markdown.

    An item is answered by `checklist` of `card.json`, else by what the run and the card know, else it is "not
    reported": nothing is claimed that nobody wrote down or measured.

    Args:
        name: of the weights.
        config: the model's.
        facts: of their card.
    """
    answers = _answers(config, facts)
    parts = [
        f"# Reporting checklists of {markdown_text(name)}",
        "What is known of these weights, item by item, for whoever has to report a study with them. *Not reported* "
        "means that: it was neither measured nor written down. The items' topics are shortened; the checklists "
        "themselves are CLAIM (2024 update, doi 10.1148/ryai.240300) and TRIPOD+AI (doi 10.1136/bmj-2023-078378). "
        "Compare numbers and wording with them before you hand anything in.",
    ]
    for checklist, items in CHECKLISTS.items():
        said = [facts.checklist.get(f"{checklist} {number}") or answers.get(key, "") for number, _, key in items]
        columns = {
            "item": [number for number, *_ in items],
            "topic": [topic for _, topic, _ in items],
            "reported": [in_a_cell(text) for text in said],
        }
        parts += [f"## {checklist}: {sum(map(bool, said))} of {len(items)} items reported", table(columns)]
    return "\n\n".join(parts) + "\n"


def in_a_cell(text: str) -> str:
    """Returns a text for a table's cell, without emphasis; of an empty one that nothing is reported."""
    return markdown_text(text.replace("*", "")) if text else f"*{NOT_REPORTED}*"


def reported(facts: CardFacts, config: DiffMICConfig) -> dict[str, tuple[int, int]]:
    """Returns checklist → how many of its items are reported, and how many there are."""
    answers, given = _answers(config, facts), facts.checklist
    return {
        name: (sum(bool(given.get(f"{name} {number}") or answers.get(key)) for number, _, key in items), len(items))
        for name, items in CHECKLISTS.items()
    }


def _answers(config: DiffMICConfig, facts: CardFacts) -> dict[str, str]:
    """Returns a sentence for each answer that `checklist_items` asks for; "" where it is not known."""
    return _of_the_model(config, facts) | _of_the_study(config, facts) | _of_the_results(config, facts)


#: Predictor → what it is, what is put together to its answer, and what it shows of an answer.
_KINDS = {
    "diffusion": ("diffusion classifier, DiffMIC-v2", "", "saliency maps, ROIs and their attention"),
    "dcg": (
        "classifier of the whole image and of regions, the DCG of DiffMIC-v2 alone",
        "the streams of the whole image and of the regions, pooled",
        "saliency maps, ROIs and their attention",
    ),
    "global": ("classifier, the global stream of DiffMIC-v2's DCG alone", "global stream alone", "saliency maps"),
    "classifier": ("classifier of a single network", "none", "class activation map"),
}

#: What is known by a name of `mean` and `std`.
_IMAGENET = DiffMICConfig().mean, DiffMICConfig().std


def _preprocessing(config: DiffMICConfig) -> str:
    size = f"{config.image_size} × {config.image_size} pixels"
    if config.input_size != config.image_size:
        size += f" (ROIs cut from {config.input_size} × {config.input_size})"
    mean, std = (", ".join(f"{value:.3f}" for value in dict.fromkeys(row)) for row in (config.mean, config.std))
    norm = "mean and standard deviation of ImageNet" if (config.mean, config.std) == _IMAGENET else ""
    return f"{config.crop_mode} crop, {size}, {norm or f'values of 0 to 1 less {mean}, divided by {std}'}"


def _of_the_model(config: DiffMICConfig, facts: CardFacts) -> dict[str, str]:
    kind, members, shown = _KINDS[config.predictor]
    pooled = ", pooled with the priors of both streams" if any(config.prior_weight) else ""
    pool = f"mean over {config.num_samples} runs of the sampler{pooled}"
    settings = {field: value for field, value in facts.recipe.items() if not isinstance(value, (dict, list))}
    if teachers := facts.recipe.get("teachers"):
        settings["teachers"] = " and ".join(teachers)
    fit = ", ".join(f"{field} {value}" for field, value in settings.items())
    classes = ", ".join(config.labels)
    among = "any" if config.task == "multilabel" else "one"
    select = facts.recipe.get("select")
    seeds = facts.seeds.get("model", {})
    chosen = f"best epoch by {select} on the validation split" if select else ""
    if len(seeds) > 1:
        chosen += f"{'; ' if chosen else ''}best of {len(seeds)} seeds on the validation split"
    rule = "largest log probability plus an offset for each class" if config.label_adjustment else "largest probability"
    rule = "a threshold for each label" if config.task == "multilabel" else rule
    sampled = f"{config.sampling_steps} steps, {config.num_samples} runs"
    return {
        "technology": f"deep learning: {kind}",
        "goal": "creation of a model and its evaluation on test images that took no part in it",
        "preprocessing": _preprocessing(config),
        "architecture": "see the card, Training",
        "software": f"diffmiczoo at commit {facts.commit}" if facts.commit else "diffmiczoo",
        "start": f"weights of {', '.join(facts.base_model)}" if facts.base_model else "",
        "training": fit or ("see the card, Training" if facts.commands else ""),
        "selection": chosen,
        "ensemble": members or pool,
        "outcome": f"{among} of {classes}" if config.labels else "",
        "predictors": "the image alone",
        "sampling": sampled if config.predictor == "diffusion" else "one pass",
        "imbalance": _imbalance(facts, config),
        "decision": rule + (f", temperature {config.temperature:.3f}" if config.temperature else ", not calibrated"),
        "explanation": shown,
        "updating": "possible by recalibration on local images, see the package's documentation",
        "bad_input": "files that cannot be read are refused by name; images unlike the training images are flagged"
        if facts.trust is not None and facts.trust.kept is not None
        else "files that cannot be read are refused by name",
    }


def _imbalance(facts: CardFacts, config: DiffMICConfig) -> str:
    known = {name: facts.recipe.get(name) for name in ("sampling", "class_weights", "balance_labels")}
    said = [f"{name.replace('_', ' ')} {value}" for name, value in known.items() if value not in (None, "none", 0.0)]
    return ", ".join(said) + ("; labels adjusted on the validation split" if said and config.label_adjustment else "")


def _of_the_study(config: DiffMICConfig, facts: CardFacts) -> dict[str, str]:
    groups = facts.metrics.num_groups
    level = f"groups, such as all images of one lesion or patient ({groups:,} in the test split)" if groups else ""
    parts = {"population": facts.population, "users": facts.users, "use": facts.intended_use}
    return {
        "summary": "see the card, first table",
        "intended_use": facts.intended_use,
        "purpose": "; ".join(text.rstrip(".") for text in parts.values() if text) if facts.population else "",
        "training_data": facts.training_data,
        "split": facts.split,
        "split_level": level,
        "counts": ", ".join(f"{count:,} {split}" for split, count in facts.counts.items()),
        "population": facts.population,
        "fairness": facts.fairness,
        "users": facts.users,
        "limits": "see the card, Limits",
        "out_of_scope": f"not for: {' '.join(facts.out_of_scope)}" if facts.out_of_scope else "",
        "availability": f"weights: {facts.license}; code: {facts.source or 'diffmiczoo, Apache-2.0'}",
        "data_license": f"images: {facts.data_license}",
        "funding": facts.funding,
    }


def _of_the_results(config: DiffMICConfig, facts: CardFacts) -> dict[str, str]:
    measured = [metric.label for metric in overall_metrics() if metric.name in facts.metrics.values]
    groups = "groups drawn whole" if facts.metrics.num_groups else "images drawn one by one"
    divided = ", ".join(each.column for each in facts.subgroups)
    return {
        "metrics": ", ".join(measured),
        "intervals": f"95 % bootstrap intervals, {groups}" if facts.metrics.intervals else "",
        "robustness": "corrupted test images, see the card, Robustness" if facts.robustness is not None else "",
        "internal_test": f"{facts.metrics.num_images:,} test images",
        "results": "see the card, Results",
        "results_by_class": "see the card, Results" if facts.metrics.per_class else "",
        "subgroups": f"by {divided}, see the card, Subgroups" if divided else "",
        "comparison": facts.comparison or (f"beside {facts.opponent.name}" if facts.opponent is not None else ""),
    }
