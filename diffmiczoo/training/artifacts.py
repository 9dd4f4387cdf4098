"""What a finished run leaves behind: weights, pictures, and a page that says what was done with which data."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from diffmiczoo.data.checks import DataReport
from diffmiczoo.data.dataset import ImageDataset
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.evaluate import collect_scores, scores_and_dcg_logits
from diffmiczoo.evaluation.results import LabelledPredictions
from diffmiczoo.hub.card import CARD_FILE, METRICS_FILE, RECIPE_FILE
from diffmiczoo.inference.probabilities import logits_to_probs, scores_to_probs
from diffmiczoo.metrics.calibration import fit_thresholds
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.table import overall_metrics
from diffmiczoo.model import DiffMICv2

if TYPE_CHECKING:
    from diffmiczoo.training.plan import Plan
    from diffmiczoo.training.trainer import Run


class TensorBoardLog:
    """Writes the rows of a run's history for TensorBoard.

    Raises:
        ImportError: tensorboard is not installed; the message names the extra.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError('tensorboard=True needs tensorboard: pip install "diffmiczoo[tensorboard]"') from error
        self._writer = SummaryWriter(str(directory))

    def __call__(self, row: dict[str, Any]) -> None:
        """Writes one row."""
        for name, value in row.items():
            if isinstance(value, float):
                self._writer.add_scalar(f"{row['stage']}/{name}", value, row["epoch"])

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()


def tensorboard_log(output: Path) -> TensorBoardLog:
    """Returns what a run calls with every row, writing into `output/tensorboard`."""
    return TensorBoardLog(output / "tensorboard")


def leave_results(
    model: DiffMICv2, run: Run, plan: Plan, report: DataReport, validation: ImageDataset
) -> Metrics | None:
    """Writes weights, pictures and pages of a finished run, and returns the metrics of its best weights on validation.

    Thresholds of a multi-label model are fitted here, as temperature and prior weight were by the run.
    """
    output = run.output
    measured = _measured(model, validation, run.recipe.batch_size, run.progress) if model.trained else None
    _save_weights(model, run, plan, measured)
    if run.history and importlib.util.find_spec("matplotlib"):
        from diffmiczoo.training.plots import draw_confusion, draw_curves

        draw_curves(run.history, run.recipe.select, output / "curves.png")
        if measured is not None and model.config.task == "multiclass":
            draw_confusion(measured.probs, measured.targets, model.config.labels, output / "confusion.png")
    (output / "README.md").write_text(_page(model, run, plan, report, measured), encoding="utf-8")
    return None if measured is None else measured.report.model


class _Measured:
    """Predictions of a model and of its DCG alone on validation images, and how good they are."""

    def __init__(self, predictions: PredictionsWithDcg, progress: bool | None) -> None:
        self.probs, self.targets = predictions.model.probs, predictions.model.targets
        self.report = predictions.report(progress=progress)


def _measured(model: DiffMICv2, validation: ImageDataset, batch_size: int, progress: bool | None) -> _Measured:
    loader = DataLoader(validation, batch_size)
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


def _save_weights(model: DiffMICv2, run: Run, plan: Plan, measured: _Measured | None) -> None:
    best = run.output / "best"
    model.save_pretrained(best)
    run.recipe.save(best / RECIPE_FILE)
    if measured is not None:
        values = {"val": measured.report.to_dict()}
        (best / METRICS_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    if not (best / CARD_FILE).exists():
        (best / CARD_FILE).write_text(json.dumps(_card_facts(plan), indent=1) + "\n", encoding="utf-8")
    if run.last is None:
        return
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(run.last)
    model.save_pretrained(run.output / "last")
    model.load_state_dict(kept)


def _card_facts(plan: Plan) -> dict[str, Any]:
    """Returns what is known of a card; `push` asks for what is left empty."""
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


def _page(model: DiffMICv2, run: Run, plan: Plan, report: DataReport, measured: _Measured | None) -> str:
    name = run.output.resolve()
    parts = [
        f"# {run.output.name}\n\n`{plan.train.name}`, {model.config.task}, "
        f"{len(model.config.labels)} classes, trained with diffmiczoo.",
        "```python\nimport diffmiczoo\n\n"
        f'model = diffmiczoo.create_model("local-dir:{name}/best", pretrained=True)\n'
        'print(model.predict("picture.jpg").labels)\n```',
        "## Validation\n\n" + _validation(run, measured),
        "## Data\n\n" + _split_sentence(plan) + "\n\n" + _counts(report),
    ]
    if report.warnings:
        parts.append("Note:\n\n" + "\n".join(f"- {sentence}" for sentence in report.warnings))
    parts.append(f"## Recipe\n\n```json\n{json.dumps(run.recipe.to_dict(), indent=1)}\n```")
    return "\n\n".join(parts) + "\n"


def _validation(run: Run, measured: _Measured | None) -> str:
    kept = [f"stage {row['stage']}: epoch {row['epoch']}" for row in run.history if row.get("kept")]
    lines = [f"Kept by {run.recipe.select}: {', '.join(kept)}." if kept else "Nothing was trained."]
    if measured is not None:
        report = measured.report
        rows = [
            f"| {metric.label} | {report.model.values[metric.name]:.3f} | {report.dcg.values[metric.name]:.3f} |"
            for metric in overall_metrics()
            if metric.name in report.model.values
        ]
        lines += ["| metric | model | its DCG alone |\n|---|---|---|\n" + "\n".join(rows)]
        lines += [
            "The epoch, the calibration and any thresholds were chosen on these very images, so that they look a "
            "little better than new ones will: see `diffmiczoo evaluate` for test images."
        ]
    pictures = [picture for picture in ("curves.png", "confusion.png") if (run.output / picture).is_file()]
    return "\n\n".join([*lines, *(f"![{picture}]({picture})" for picture in pictures)])


def _counts(report: DataReport) -> str:
    splits = list(report.counts)
    rows = [f"| class | {' | '.join(splits)} |", "|" + "---|" * (len(splits) + 1)]
    for label in report.counts[splits[0]]:
        rows.append(f"| {label} | {' | '.join(f'{report.counts[split][label]:,}' for split in splits)} |")
    return "\n".join(rows)
