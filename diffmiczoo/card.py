"""Model cards: what a set of weights is, what it was measured to do, and what it must not be used for."""

from __future__ import annotations

from dataclasses import dataclass

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.entries import WeightsEntry
from diffmiczoo.evaluation.metrics import Metrics

#: Metrics that a card reports, in order, with the words for them.
REPORTED = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
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


@dataclass(frozen=True)
class CardFacts:
    """What a card needs beyond the entry and the config; all of it measured or given, nothing has a default.

    Attributes:
        model, dcg: metrics of the whole model and of its DCG alone on the same test images.
        counts: images per split.
        parameters: of the model.
        commands: what trained, released and checked the weights.
        commit: of the code that trained them.
        data_source: where the images and labels come from, with citation.
        differences: metric → (model - dcg, and its 95 % interval low and high), on the same resamples.
        split: how the split was made.
        limits: sentences about what the model cannot do.
    """

    model: Metrics
    dcg: Metrics
    differences: dict[str, tuple[float, float, float]]
    counts: dict[str, int]
    parameters: int
    commands: tuple[str, ...]
    commit: str
    data_source: str
    split: str
    limits: tuple[str, ...]


def render_card(entry: WeightsEntry, config: DiffMICConfig, facts: CardFacts) -> str:
    """Returns the card of a weights entry as Markdown with Hugging Face metadata."""
    parts = [
        _front_matter(entry, config, facts),
        f"# {entry.name}\n\n{entry.description} {NOT_CLINICAL}",
        _usage(entry),
        _results(facts),
        _training(config, facts),
        "## Intended use\n\nComparing methods, teaching, and as a start for fine-tuning on other images of the same "
        f"kind, within the licences below. {NOT_CLINICAL}",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in facts.limits),
        f"## Licences\n\nWeights: {entry.license}. Training images: {entry.data_license}. Code: Apache-2.0.\n\n"
        f"{facts.data_source}",
        "## Method\n\nYang, Fu, Aviles-Rivero, Xing, Zhu: *DiffMIC-v2: Medical Image Classification via Improved "
        "Diffusion Network*, IEEE TMI 2025, doi 10.1109/TMI.2025.3530399. Independent implementation.",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(entry: WeightsEntry, config: DiffMICConfig, facts: CardFacts) -> str:
    metrics = [
        f"          - type: {name}\n            value: {facts.model.values[name]:.4f}"
        for name in REPORTED
        if name in facts.model.values
    ]
    license_id = {"CC BY-NC 4.0": "cc-by-nc-4.0", "Apache-2.0": "apache-2.0"}[entry.license]
    lines = [
        "---",
        "library_name: diffmiczoo",
        "pipeline_tag: image-classification",
        f"license: {license_id}",
        f"tags: [medical, diffusion, diffmic-v2, {config.task}]",
        "model-index:",
        f"  - name: {entry.name}",
        "    results:",
        "      - task: {type: image-classification}",
        f"        dataset: {{name: {entry.dataset}, type: {entry.dataset}, split: test}}",
        "        metrics:",
        *metrics,
        "---",
    ]
    return "\n".join(lines)


def _usage(entry: WeightsEntry) -> str:
    return (
        "## Use\n\n```python\nimport diffmiczoo\n\n"
        f'model = diffmiczoo.create_model("{entry.name}", pretrained=True)\n'
        'prediction = model.predict("picture.jpg")\nprint(prediction.labels, prediction.probs, prediction.uncertainty)'
        "\n```"
    )


def _results(facts: CardFacts) -> str:
    rows = [
        f"| {words} | {_with_interval(facts.model, name)} | {_with_interval(facts.dcg, name)} | "
        "{:+.3f} [{:+.3f}, {:+.3f}] |".format(*facts.differences[name])
        for name, words in REPORTED.items()
        if name in facts.model.values
    ]
    units = f" in {facts.model.num_groups:,} groups" if facts.model.num_groups else ""
    head = (
        f"## Results\n\nTest split, {facts.model.num_images:,} images{units}, with 95 % bootstrap intervals (groups "
        "drawn whole). *DCG alone* is the softmax (multi-label: sigmoid) of 0.5 · (ŷ_g + ŷ_l) of the same weights on "
        "the same images, not calibrated; *difference* is taken on the same resamples.\n\n"
        "| metric | this model | its DCG alone | difference |\n|---|---|---|---|\n"
    )
    classes = "\n".join(
        f"| {name} | {int(row['support'])} | {row['recall']:.3f} | {row['precision']:.3f} | {row['f1']:.3f} | "
        f"{row['auroc']:.3f} |"
        for name, row in facts.model.per_class.items()
    )
    table = "| class | images | recall | precision | F1 | AUROC |\n|---|---|---|---|---|---|\n" + classes
    return head + "\n".join(rows) + "\n\n" + table


def _with_interval(metrics: Metrics, name: str) -> str:
    low, high = metrics.intervals[name]
    return f"{metrics.values[name]:.3f} [{low:.3f}, {high:.3f}]"


def _training(config: DiffMICConfig, facts: CardFacts) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.counts.items())
    commands = "\n".join(facts.commands)
    return (
        f"## Training\n\n{facts.parameters:,} parameters; {config.image_size} × {config.image_size} pixels, "
        f"{config.crop_mode} crop; encoders {config.raw_encoder} (image), {config.roi_encoder} (ROIs), "
        f"{config.dcg_encoder} (DCG) started from ImageNet weights; H {config.latent_dim}, Np {config.num_points}, "
        f"K {config.num_rois} × {config.roi_size} pixels. Images: {counts}. {facts.split} The best epoch and the "
        f"temperature ({config.temperature:.4f}) were chosen on the validation split; the test split was used once, "
        f"for this card.\n\nCode at commit `{facts.commit}`:\n\n```bash\n{commands}\n```"
    )
