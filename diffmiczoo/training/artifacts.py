"""Files of a finished run: weights, pictures, and a page that says what was done with which data."""

from __future__ import annotations

import importlib.util
import json
import shutil
from functools import partial, reduce
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.duplicates import content_hash
from diffmiczoo.data.trained_on import PictureSet
from diffmiczoo.errors import warn
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.evaluate import collect_scores, scores_and_members
from diffmiczoo.files import read_json_object, write_text
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE, RECIPE_FILE
from diffmiczoo.hub.client import WEIGHTS_FILE
from diffmiczoo.inference.decisions import decide
from diffmiczoo.inference.probabilities import logits_to_probs, scores_to_probs
from diffmiczoo.metrics.calibration import calibration_sentence
from diffmiczoo.metrics.decisions import fit_decision
from diffmiczoo.metrics.report import Metrics, number_text
from diffmiczoo.metrics.table import overall_metrics
from diffmiczoo.runtime.text import markdown_text
from diffmiczoo.training.budget import budget_of
from diffmiczoo.training.callbacks import Callback
from diffmiczoo.training.limits import limits_of_run
from diffmiczoo.training.plan import Plan
from diffmiczoo.training.teachers import shown_teachers
from diffmiczoo.training.trainer import Trainer

PICTURES = ("curves.png", "confusion.png")


def write_artifacts(trainer: Trainer, plan: Plan, report: DataReport) -> Metrics | None:
    """Writes weights, pictures and pages of a finished run, and returns the best weights' metrics on validation data.

    Thresholds of a multi-label model are fitted here, as temperature and prior weight were during training, and what
    the weights know about their limits.
    """
    _remember_pictures(trainer)
    measured = _measure(trainer) if trainer.model.trained else None
    _save_weights(trainer, plan, measured)
    _write_page(trainer, plan, report, measured)
    if trainer.history and importlib.util.find_spec("matplotlib"):
        _draw(trainer, measured)
        _write_page(trainer, plan, report, measured)
    return None if measured is None else measured.report.model


def remove_older(output: Path) -> None:
    """Removes what a run that is replaced has left, and the new one may not write: pages, pictures, last weights."""
    for name in PICTURES:
        (output / name).unlink(missing_ok=True)
    made = [output / f"report-{split}" / "report.json" for split in ("val", "test")] + [output / "last" / WEIGHTS_FILE]
    for file in made:
        if file.is_file():
            shutil.rmtree(file.parent)


class Replacement(Callback):
    """Removes what an older run has left once its checkpoint is replaced: until then nothing of it is lost."""

    def __init__(self, output: Path) -> None:
        self.output, self.done = output, False

    def on_checkpoint(self, path: Path) -> None:
        """Runs after every checkpoint; removes after the first."""
        if not self.done:
            remove_older(self.output)
            self.done = True


def _remember_pictures(trainer: Trainer) -> None:
    """Adds what was trained on to what the weights were trained on before, for `evaluate` to tell."""
    if trainer.history:
        contents = (content_hash(square) for square in trainer.data.train.squares.numpy())
        taught = [] if trainer.teachers is None else trainer.teachers.training_pictures
        seen = PictureSet.of(contents).union(trainer.model.training_pictures)
        trainer.model.training_pictures = reduce(PictureSet.union, taught, seen)


def _draw(trainer: Trainer, measured: _Measured | None) -> None:
    """Draws the pictures of a run; one that fails is a warning, because everything else is on the disk by now."""
    try:
        from diffmiczoo.training.plots import draw_confusion, draw_curves
    except Exception as error:
        warn(f"no pictures of this run: matplotlib cannot be used ({type(error).__name__}: {error})")
        return
    output, config = trainer.settings.output, trainer.model.config
    pictures = {"curves.png": partial(draw_curves, trainer.history, trainer.recipe.select)}
    if measured is not None and config.task == "multiclass":
        pictures["confusion.png"] = partial(draw_confusion, measured.decisions, measured.targets, config.labels)
    for name, draw in pictures.items():
        try:
            draw(output / name)
        except Exception as error:
            (output / name).unlink(missing_ok=True)
            what = f"{output / name} could not be drawn ({type(error).__name__}: {error})"
            warn(f"{what}; weights, metrics and README.md are complete")


class _Measured:
    """Predictions of a model and of its DCG alone on validation images, and how good they are."""

    def __init__(self, predictions: PredictionsWithDcg, progress: bool | None) -> None:
        model = predictions.model
        self.targets = model.targets
        self.decisions = decide(model.probs, model.task, model.thresholds, model.label_adjustment)
        self.report = predictions.report(progress=progress)


def _measure(trainer: Trainer) -> _Measured:
    model, validation, progress = trainer.model, trainer.data.val, trainer.progress
    loader = DataLoader(validation, trainer.recipe.batch_size)
    found, targets = collect_scores(model, scores_and_members, loader, progress)
    scores, members = found[:, 0], found[:, 1:]
    config, manifest = model.config, validation.manifest
    probs = scores_to_probs(scores, config, members)
    model.config = config = fit_decision(probs, targets, config, trainer.recipe.balance_labels)
    model.trust = limits_of_run(trainer, probs, targets)
    dcg_probs = logits_to_probs(0.5 * (members[:, 0] + members[:, 1]), config.task)
    return _Measured(PredictionsWithDcg.of(manifest, probs, dcg_probs, config), progress)


def _save_weights(trainer: Trainer, plan: Plan, measured: _Measured | None) -> None:
    model, output = trainer.model, trainer.settings.output
    best = output / "best"
    model.save_pretrained(best)
    shown_teachers(trainer.recipe).save(best / RECIPE_FILE)
    if measured is not None:
        values = {"val": measured.report.to_dict()}
        write_text(best / METRICS_FILE, json.dumps(values, indent=1) + "\n")
    else:
        (best / METRICS_FILE).unlink(missing_ok=True)
    _save_card(best / CARD_FILE, plan)
    if trainer.last is None:
        return
    weights, trust = {name: tensor.clone() for name, tensor in model.state_dict().items()}, model.trust
    model.load_state_dict(trainer.last)
    # Limits are those of the best weights.
    model.trust = None
    model.save_pretrained(output / "last")
    model.load_state_dict(weights)
    model.trust = trust


def _save_card(path: Path, plan: Plan) -> None:
    """Writes what a run knows for a card; what people wrote stays, and all of it where the data are the same."""
    facts = _card_facts(plan)
    if path.exists():
        try:
            found = read_json_object(path)
        except ValueError as error:
            warn(f"{error}; it is left as it is")
            return
        same = all(found.get(name) == facts[name] for name in ("dataset", "counts"))
        of_data = () if same else ("dataset", "counts", "training_data", "split")
        facts |= {name: value for name, value in found.items() if name not in of_data}
    write_text(path, json.dumps(facts, indent=1) + "\n")


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


def _write_page(trainer: Trainer, plan: Plan, report: DataReport, measured: _Measured | None) -> None:
    model, output = trainer.model, trainer.settings.output
    weights = f"local-dir:{output.resolve()}/best"
    parts = [
        f"# {markdown_text(output.name)}\n\n{markdown_text(plan.train.name)}, {model.config.task}, "
        f"{len(model.config.labels)} classes, trained with diffmiczoo.",
        "```python\nimport diffmiczoo\n\n"
        f"model = diffmiczoo.create_model({json.dumps(weights, ensure_ascii=False)}, pretrained=True)\n"
        'print(model.predict("picture.jpg").labels)\n```',
        "## Validation\n\n" + _validation(trainer, measured),
        "## Data\n\n" + _split_sentence(plan) + "\n\n" + _counts(report),
    ]
    if report.warnings:
        parts.append("Note:\n\n" + "\n".join(f"- {markdown_text(sentence)}" for sentence in report.warnings))
    budget = budget_of(trainer.recipe, model.config, len(plan.train), trainer.processes.rank.world_size)
    recipe = json.dumps(trainer.recipe.to_dict(), indent=1)
    parts.append(f"## Recipe\n\n{budget.sentence.capitalize()}.\n\n```json\n{recipe}\n```")
    write_text(output / "README.md", "\n\n".join(parts) + "\n")


def _validation(trainer: Trainer, measured: _Measured | None) -> str:
    best = [f"stage {row['stage']}: epoch {row['epoch']}" for row in trainer.history if row.get("best")]
    lines = [f"Best {trainer.recipe.select}: {', '.join(best)}." if best else "Nothing was trained."]
    if measured is not None:
        report, val = measured.report, trainer.data.val.manifest
        lines += [markdown_text(calibration_sentence(val.counts, len(val))) + "."]
        rows = [
            f"| {metric.label} | {number_text(report.model.values[metric.name])} "
            f"| {number_text(report.dcg.values[metric.name])} |"
            for metric in overall_metrics()
            if metric.name in report.model.values
        ]
        plain = trainer.model.config.predictor == "classifier"
        other = "not calibrated" if plain else "its DCG alone"
        lines += [f"| metric | model | {other} |\n|---|---|---|\n" + "\n".join(rows)]
        lines += [
            "The epoch, the calibration and the rule for labels were chosen on these images, so metrics on new images "
            "will be a little worse: see `diffmiczoo evaluate` for test images."
        ]
    pictures = [picture for picture in PICTURES if (trainer.settings.output / picture).is_file()]
    return "\n\n".join([*lines, *(f"![{picture}]({picture})" for picture in pictures)])


def _counts(report: DataReport) -> str:
    splits = list(report.counts)
    rows = [f"| class | {' | '.join(splits)} |", "|" + "---|" * (len(splits) + 1)]
    for label in report.counts[splits[0]]:
        rows.append(
            f"| {markdown_text(label)} | {' | '.join(f'{report.counts[split][label]:,}' for split in splits)} |"
        )
    return "\n".join(rows)
