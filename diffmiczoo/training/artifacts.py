"""Files of a finished run: weights, pictures, and a page that says what was done with which data."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

from torch.utils.data import DataLoader

from diffmiczoo.data.checks import DataReport
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.evaluate import collect_scores, scores_and_dcg_logits
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.hub.card import CARD_FILE, METRICS_FILE, RECIPE_FILE
from diffmiczoo.inference.probabilities import logits_to_probs, scores_to_probs
from diffmiczoo.metrics.calibration import fit_thresholds
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.table import overall_metrics
from diffmiczoo.training.plan import Plan
from diffmiczoo.training.trainer import Trainer


def write_artifacts(trainer: Trainer, plan: Plan, report: DataReport) -> Metrics | None:
    """Writes weights, pictures and pages of a finished run, and returns the best weights' metrics on validation data.

    Thresholds of a multi-label model are fitted here, as temperature and prior weight were during training.
    """
    model, output = trainer.model, trainer.settings.output
    measured = _measure(trainer) if model.trained else None
    _save_weights(trainer, plan, measured)
    if trainer.history and importlib.util.find_spec("matplotlib"):
        from diffmiczoo.training.plots import draw_confusion, draw_curves

        draw_curves(trainer.history, trainer.recipe.select, output / "curves.png")
        if measured is not None and model.config.task == "multiclass":
            draw_confusion(measured.probs, measured.targets, model.config.labels, output / "confusion.png")
    (output / "README.md").write_text(_page(trainer, plan, report, measured), encoding="utf-8")
    return None if measured is None else measured.report.model


class _Measured:
    """Predictions of a model and of its DCG alone on validation images, and how good they are."""

    def __init__(self, predictions: PredictionsWithDcg, progress: bool | None) -> None:
        self.probs, self.targets = predictions.model.probs, predictions.model.targets
        self.report = predictions.report(progress=progress)


def _measure(trainer: Trainer) -> _Measured:
    model, validation, progress = trainer.model, trainer.data.val, trainer.progress
    loader = DataLoader(validation, trainer.recipe.batch_size)
    both, targets = collect_scores(model, scores_and_dcg_logits, loader, progress)
    scores, logits = both.unbind(1)
    config, manifest = model.config, validation.manifest
    probs = scores_to_probs(scores, config, logits)
    if config.task == "multilabel":
        model.config = config = config.replace(thresholds=fit_thresholds(probs, targets))
    predictions = PredictionsWithDcg(
        LabelledPredictions.of(manifest, probs, config, config.thresholds),
        LabelledPredictions.of(manifest, logits_to_probs(logits, config.task), config, None),
    )
    return _Measured(predictions, progress)


def _save_weights(trainer: Trainer, plan: Plan, measured: _Measured | None) -> None:
    model, output = trainer.model, trainer.settings.output
    best = output / "best"
    model.save_pretrained(best)
    trainer.recipe.save(best / RECIPE_FILE)
    if measured is not None:
        values = {"val": measured.report.to_dict()}
        (best / METRICS_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if not (best / CARD_FILE).exists():
        (best / CARD_FILE).write_text(json.dumps(_card_facts(plan), indent=1) + "\n", encoding="utf-8")
    if trainer.last is None:
        return
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(trainer.last)
    model.save_pretrained(output / "last")
    model.load_state_dict(weights)


def _card_facts(plan: Plan) -> dict[str, Any]:
    """Returns what a run knows for a model card; `push` asks for what is left empty."""
    return {
        "license": "",
        "data_license": "",
        "training_data": f"{len(plan.whole):,} images of {plan.train.name!r}, {len(plan.train.class_names)} classes.",
        "split": _split_sentence(plan),
        "intended_use": "",
        "limits": [],
        "dataset": plan.train.name,
        "counts": {"train": len(plan.train), "val": len(plan.val)},
    }


def _split_sentence(plan: Plan) -> str:
    if plan.made:
        return plan.made[0].upper() + plan.made[1:] + "."
    groups = plan.whole.groups()
    return "As given" + (f", {len(set(groups)):,} groups." if groups is not None else "; the images have no groups.")


def _page(trainer: Trainer, plan: Plan, report: DataReport, measured: _Measured | None) -> str:
    model, output = trainer.model, trainer.settings.output
    parts = [
        f"# {output.name}\n\n`{plan.train.name}`, {model.config.task}, "
        f"{len(model.config.labels)} classes, trained with diffmiczoo.",
        "```python\nimport diffmiczoo\n\n"
        f'model = diffmiczoo.create_model("local-dir:{output.resolve()}/best", pretrained=True)\n'
        'print(model.predict("picture.jpg").labels)\n```',
        "## Validation\n\n" + _validation(trainer, measured),
        "## Data\n\n" + _split_sentence(plan) + "\n\n" + _counts(report),
    ]
    if report.warnings:
        parts.append("Note:\n\n" + "\n".join(f"- {sentence}" for sentence in report.warnings))
    parts.append(f"## Recipe\n\n```json\n{json.dumps(trainer.recipe.to_dict(), indent=1)}\n```")
    return "\n\n".join(parts) + "\n"


def _validation(trainer: Trainer, measured: _Measured | None) -> str:
    best = [f"stage {row['stage']}: epoch {row['epoch']}" for row in trainer.history if row.get("best")]
    lines = [f"Best {trainer.recipe.select}: {', '.join(best)}." if best else "Nothing was trained."]
    if measured is not None:
        report = measured.report
        rows = [
            f"| {metric.label} | {report.model.values[metric.name]:.3f} | {report.dcg.values[metric.name]:.3f} |"
            for metric in overall_metrics()
            if metric.name in report.model.values
        ]
        lines += ["| metric | model | its DCG alone |\n|---|---|---|\n" + "\n".join(rows)]
        lines += [
            "The epoch, the calibration and any thresholds were chosen on these images, so metrics on new images will "
            "be a little worse: see `diffmiczoo evaluate` for test images."
        ]
    pictures = [picture for picture in ("curves.png", "confusion.png") if (trainer.settings.output / picture).is_file()]
    return "\n\n".join([*lines, *(f"![{picture}]({picture})" for picture in pictures)])


def _counts(report: DataReport) -> str:
    splits = list(report.counts)
    rows = [f"| class | {' | '.join(splits)} |", "|" + "---|" * (len(splits) + 1)]
    for label in report.counts[splits[0]]:
        rows.append(f"| {label} | {' | '.join(f'{report.counts[split][label]:,}' for split in splits)} |")
    return "\n".join(rows)
