"""What was measured on what, how the weights came about, and what the words mean."""

from __future__ import annotations

from markupsafe import Markup

from diffmiczoo.reporting.charts import loss_chart, metric_chart
from diffmiczoo.reporting.markup import Section, Text, coded, figure, grid, join, paragraph, pictures, table, titled
from diffmiczoo.reporting.results import Report, StageCurves

_TERMS = {
    "95 % interval": "where the number would lie in 95 of 100 repetitions with other patients of the same kind; "
    "patients (groups), "
    "not single pictures, are drawn for it",
    "accuracy": "share of right answers; with several findings per picture, of right yes-or-no answers",
    "AUROC": "how often a picture with a class gets a higher probability for it than one without; 0.5 is guessing, 1 "
    "is perfect",
    "DCG": "the part of the model that looks at the whole picture and at regions; the diffusion refines what it says",
    "ECE": "how far said probabilities are from frequencies, on average",
    "group": "pictures that belong together, such as those of one patient or lesion",
    "NLL, Brier score": "how good probabilities are; less is better",
    "precision": "of the pictures given a class, the share that shows it (positive predictive value)",
    "recall": "of the pictures that show a class, the share that is given it (sensitivity)",
}


def makers_section(report: Report) -> Section:
    """Returns what the makers of the weights say they are for, and not good for."""
    title, model = "What its makers say", report.model
    if not model.intended_use and not model.stated_limits:
        text = "No card lies beside these weights: nobody says what they are for and what they are not good for."
        return Section("makers", title, paragraph(text))
    parts = [paragraph(coded(f"For: {model.intended_use}"))] if model.intended_use else []
    if model.stated_limits:
        one = Markup("<li>{}</li>")
        parts.append(paragraph("Its limits:"))
        items = Markup("").join(one.format(coded(text)) for text in model.stated_limits)
        parts.append(Markup('<ul class="prose">{}</ul>').format(items))
    return Section("makers", title, join(parts))


def facts_section(report: Report) -> Section:
    """Returns where the numbers come from, so that somebody can find them again."""
    data, model = report.data, report.model
    counts: list[list[Text]] = [[titled(name, model.class_labels), f"{count:,}"] for name, count in data.counts.items()]
    known = "not known" if data.num_trained_on is None else f"{data.num_trained_on:,}"
    rows: list[list[Text]] = [
        ["data", data.name],
        ["split", data.split or "none: all pictures"],
        ["pictures", f"{data.num_images:,}"],
        ["groups (patients, lesions)", "none given" if data.num_groups is None else f"{data.num_groups:,}"],
        ["of them used to train the weights", known],
        ["hash of names, labels, splits and groups", _hash(data.sha256)],
        ["model", model.name],
        ["what predicts", _WHAT[model.predictor]],
        ["classes", f"{len(model.class_names)}, {model.task}"],
        ["input", f"{model.input_size} × {model.input_size} pixels"],
        ["sampling", _sampling(report)],
        ["views of each picture that are averaged", "none" if model.tta == "none" else model.tta],
        ["probabilities", "calibrated on validation pictures" if model.calibrated else "not calibrated"],
        ["hash of the weights", _hash(model.weights_sha256) if model.weights_sha256 else "in memory only"],
        ["licence of the weights", model.license or "not stated"],
        ["licence of their training pictures", model.data_license or "not stated"],
        ["made with", f"diffmiczoo {report.version}"],
    ]
    parts = [table("Model and pictures", ["what", ""], rows, "words")]
    parts.append(table("Pictures of each class", ["class", "pictures"], counts))
    if data.notes:
        one = Markup("<li>{}</li>")
        parts.append(paragraph("What was decided when the pictures were read:"))
        parts.append(Markup("<ul>{}</ul>").format(Markup("").join(one.format(text) for text in data.notes)))
    return Section("facts", "What was measured on what", join(parts))


_WHAT = {
    "diffusion": "a diffusion over labels, guided by the DCG (DiffMIC-v2)",
    "dcg": "the DCG alone, without diffusion",
    "global": "the stream of the DCG that sees the whole picture, without regions and without diffusion",
    "classifier": "a plain classifier",
}


def _sampling(report: Report) -> str:
    model = report.model
    return f"{model.steps} steps, {model.num_samples} runs" if model.predictor == "diffusion" else "none"


def _hash(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)


def training_section(report: Report) -> Section:
    """Returns the curves of the run that the weights come from."""
    title = "Training"
    if report.training is None:
        text = "The training run of these weights does not lie beside them, so that its curves are not known."
        return Section("training", title, paragraph(text))
    charts = []
    for name, stage in report.training.stages.items():
        charts += _stage(name, stage)
    text = (
        "Loss on training pictures, and what epochs were chosen by, on validation pictures; dashed: the chosen epoch."
    )
    return Section("training", title, join([paragraph(text), grid(charts)]))


def _stage(name: str, stage: StageCurves) -> list[Markup]:
    epochs = f"{len(stage.epochs):,} epochs" if len(stage.epochs) != 1 else "1 epoch"
    charts = []
    if any(value == value for value in stage.loss):
        charts.append(figure(f"stage {name}: training loss", loss_chart(name, stage), epochs))
    if stage.metric != "train_loss" and any(value == value for value in stage.values):
        best = f"best in epoch {stage.best}" if stage.best is not None else ""
        charts.append(figure(f"stage {name}: {stage.metric}", metric_chart(name, stage), best))
    return charts


def terms_section(report: Report) -> Section:
    """Returns what the words mean, and what the page does not say."""
    one = Markup("<dt>{}</dt><dd>{}</dd>")
    terms = Markup("").join(one.format(*entry) for entry in _TERMS.items())
    limits = (
        f"These numbers are of {pictures(report.data.num_images)} from one source. They say nothing about pictures "
        "of other "
        "hospitals, devices or populations, about other classes, nor about what happens when people work with the "
        "model."
    )
    return Section("terms", "What the words mean", join([paragraph(limits), Markup("<dl>{}</dl>").format(terms)]))
