"""Model cards: what a set of weights is, what it was measured to do, and what it must not be used for."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.metrics.report import Metrics, number_text

#: Metrics that a card reports, in order, with the words for them.
REPORTED = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "quadratic_kappa": "quadratic κ",
    "auroc": "AUROC (macro, one-vs-rest)",
    "average_precision": "average precision (macro)",
    "ece": "ECE (15 bins)",
    "nll": "NLL",
    "brier": "Brier score",
}

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


class IncompleteCardError(ValueError):
    """Weights lack what has to be known before anybody else may use them."""


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
        description: one sentence.
        dataset: name of the data set.
        counts: images per split.
        commands: what trained, released and checked the weights.
        commit: of the code that trained them.
        recipe: fields of the `Recipe` in which training differed from the defaults.
        pictures: file names beside the card.
        citation: what to cite besides the method.
        comparison: a sentence on what other methods reach on the same images.
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
    description: str = ""
    dataset: str = "private"
    counts: dict[str, int] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    commit: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    citation: str = ""
    comparison: str = ""


def read_facts(directory: str | os.PathLike[str]) -> CardFacts:
    """Reads the facts that lie beside weights: `card.json`, `metrics.json`, and any `recipe.json` and PNG pictures.

    `card.json` holds the texts of `REQUIRED` (limits is a list of sentences) and any of `OPTIONAL`. `metrics.json`
    holds under "test" the metrics of "model", and optionally of "dcg" and their "difference"; under "seeds" those of
    each of several runs.

    Raises:
        IncompleteCardError: something is missing, empty or unknown; the message lists all of it.
    """
    directory = Path(directory)
    texts, metrics = _json_object(directory / CARD_FILE), _json_object(directory / METRICS_FILE)
    measured = metrics.get("test", {})
    problems = [f"{CARD_FILE}: {name!r} is missing or empty" for name in REQUIRED if not texts.get(name)]
    unknown = sorted(texts.keys() - {*REQUIRED, *OPTIONAL})
    problems += [f"{CARD_FILE}: {name!r} is unknown; known are {', '.join((*REQUIRED, *OPTIONAL))}" for name in unknown]
    if isinstance(texts.get("limits"), str):
        problems.append(f"{CARD_FILE}: 'limits' is one text; expected a list of sentences")
    if "model" not in measured:
        problems.append(f"{METRICS_FILE}: the metrics of the model on the test split are missing")
    if problems:
        raise IncompleteCardError(f"{directory} is not ready to be published:\n  " + "\n  ".join(problems))
    texts = {name: tuple(value) if isinstance(value, list) else value for name, value in texts.items()}
    recipe = directory / RECIPE_FILE
    return CardFacts(
        **texts,
        metrics=Metrics.from_dict(measured["model"]),
        dcg=Metrics.from_dict(measured["dcg"]) if "dcg" in measured else None,
        differences=measured.get("difference", {}),
        seeds=metrics.get("seeds", {}),
        recipe=_json_object(recipe) if recipe.is_file() else {},
        pictures=tuple(sorted(path.name for path in directory.glob("*.png"))),
    )


def _json_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise IncompleteCardError(f"{path}: not a JSON file ({error})") from error
    if not isinstance(values, dict):
        raise IncompleteCardError(f"{path}: expected a JSON object")
    return values


def render_card(name: str, config: DiffMICConfig, parameters: int, facts: CardFacts, load_as: str | None = None) -> str:
    """Returns a card as Markdown with the Hub's metadata.

    Args:
        name: of the weights.
        config: the model's.
        parameters: their number.
        facts: what `read_facts` returns.
        load_as: what `create_model` takes to load them; `name` by default.
    """
    parts = [
        _front_matter(name, config, facts),
        f"# {name}\n\n{facts.description} {NOT_CLINICAL}".replace("\n\n ", "\n\n"),
        _usage(load_as or name),
        _results(facts),
        *[f"![{picture}]({picture})" for picture in facts.pictures],
        _training(config, parameters, facts),
        _calibration(config),
        f"## Intended use\n\n{facts.intended_use} {NOT_CLINICAL}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.limits),
        f"## Licences\n\nWeights: {facts.license}. Training images: {facts.data_license}. Code: Apache-2.0.",
        "## Method\n\nYang, Fu, Aviles-Rivero, Xing, Zhu: *DiffMIC-v2: Medical Image Classification via Improved "
        "Diffusion Network*, IEEE TMI 2025, doi 10.1109/TMI.2025.3530399. Independent implementation."
        + (f"\n\n{facts.citation}" if facts.citation else ""),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(name: str, config: DiffMICConfig, facts: CardFacts) -> str:
    # JSON is YAML, and quotes whatever a name or a licence holds.
    values = facts.metrics.values
    metrics = [{"type": key, "value": round(values[key], 4)} for key in REPORTED if key in values]
    dataset = {"name": facts.dataset, "type": facts.dataset, "split": "test"}
    results = [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}]
    fields = {
        "library_name": "diffmiczoo",
        "pipeline_tag": "image-classification",
        "license": facts.license,
        "tags": ["medical", "diffusion", "diffmic-v2", config.task],
        "model-index": [{"name": name, "results": results}],
    }
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---"])


def _usage(load_as: str) -> str:
    return (
        "## Use\n\n```python\nimport diffmiczoo\n\n"
        f'model = diffmiczoo.create_model("{load_as}", pretrained=True)\n'
        'prediction = model.predict("picture.jpg")\nprint(prediction.labels, prediction.probs, prediction.uncertainty)'
        "\n```"
    )


def _results(facts: CardFacts) -> str:
    reported = {name: words for name, words in REPORTED.items() if name in facts.metrics.values}
    units = f" in {facts.metrics.num_groups:,} groups" if facts.metrics.num_groups else ""
    text = f"## Results\n\nTest split, {facts.metrics.num_images:,} images{units}, with 95 % bootstrap intervals"
    text += " (groups drawn whole)." if units else "."
    columns = {"metric": list(reported.values()), "this model": [_cell(facts.metrics, name) for name in reported]}
    if facts.dcg is not None:
        columns["its DCG alone"] = [_cell(facts.dcg, name) for name in reported]
        text += (
            " *DCG alone* is the softmax (multi-label: sigmoid) of 0.5 · (ŷ_g + ŷ_l) of the same weights on the same "
            "images, not calibrated."
        )
    if facts.differences:
        columns["difference"] = ["{:+.3f} [{:+.3f}, {:+.3f}]".format(*facts.differences[name]) for name in reported]
        text += " *Difference* is taken on the same resamples."
    if facts.seeds:
        seeds = list(next(iter(facts.seeds.values())))
        words = {"model": "model, all seeds", "dcg": "DCG, all seeds"}
        columns |= {words[part]: [_spread(runs, name) for name in reported] for part, runs in facts.seeds.items()}
        text += (
            f" *All seeds* are the means ± standard deviations of {len(seeds)} runs that differ in the seed only "
            f"({', '.join(seeds)}); this model is the best of them on the validation split."
        )
    classes = {
        "class": list(facts.metrics.per_class),
        "images": [f"{row['support']:.0f}" for row in facts.metrics.per_class.values()],
        **{
            words: [number_text(row[key]) for row in facts.metrics.per_class.values()]
            for key, words in {"recall": "recall", "precision": "precision", "f1": "F1", "auroc": "AUROC"}.items()
        },
    }
    parts = [text, _table(columns), *([facts.comparison] if facts.comparison else []), _table(classes)]
    return "\n\n".join(parts)


def _table(columns: dict[str, list[str]]) -> str:
    rows = [list(columns), ["---"] * len(columns), *map(list, zip(*columns.values(), strict=True))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _cell(metrics: Metrics, name: str) -> str:
    value = f"{metrics.values[name]:.3f}"
    if name not in metrics.intervals:
        return value
    low, high = metrics.intervals[name]
    return f"{value} [{low:.3f}, {high:.3f}]"


def _spread(runs: dict[str, dict[str, float]], name: str) -> str:
    values = [value for run in runs.values() if (value := run.get(name)) is not None]
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}" if len(values) > 1 else "–"


def _training(config: DiffMICConfig, parameters: int, facts: CardFacts) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.counts.items())
    parts = [
        f"## Training\n\n{facts.training_data}\n\n{facts.split}" + (f" Images: {counts}." if counts else ""),
        f"{parameters:,} parameters; {config.image_size} × {config.image_size} pixels, {config.crop_mode} crop; "
        f"encoders {config.raw_encoder} (image), {config.roi_encoder} (ROIs), {config.dcg_encoder} (DCG); "
        f"H {config.latent_dim}, Np {config.num_points}, K {config.num_rois} × {config.roi_size} pixels.",
    ]
    if facts.commands:
        at = f" at commit `{facts.commit}`" if facts.commit else ""
        parts.append(f"Commands{at}:\n\n```bash\n" + "\n".join(facts.commands) + "\n```")
    if facts.recipe:
        parts.append(f"Recipe:\n\n```json\n{json.dumps(facts.recipe)}\n```")
    return "\n\n".join(parts)


def _calibration(config: DiffMICConfig) -> str:
    runs = f"{config.sampling_steps} sampling steps, {config.num_samples} run" + ("s" if config.num_samples > 1 else "")
    if config.temperature is None:
        return f"## Calibration\n\nNot calibrated: probabilities are a ranking only. {runs}."
    weight = f", weight of the DCG's own logits {config.prior_weight:.4f}" if config.prior_weight else ""
    return f"## Calibration\n\nTemperature {config.temperature:.4f}{weight}, fitted on the validation split; {runs}."
