"""How good the model is: metrics, classes, curves and probabilities."""

from __future__ import annotations

from markupsafe import Markup

from diffmiczoo.metrics.ablation import COLUMNS, ROWS
from diffmiczoo.metrics.curves import ClassCurves, ReliabilityBin
from diffmiczoo.metrics.table import class_metrics, find_metric
from diffmiczoo.reporting.charts import counts_chart, precision_chart, reliability_chart, roc_chart
from diffmiczoo.reporting.markup import (
    Section,
    Text,
    difference,
    figure,
    grid,
    heading,
    join,
    number,
    paragraph,
    percent,
    ranged,
    shaded,
    table,
    titled,
)
from diffmiczoo.reporting.results import Report
from diffmiczoo.reporting.summary import LEAST

#: Classes whose curves are drawn, and classes of a confusion matrix that a page has room for.
MOST_CURVES, MOST_CONFUSION = 16, 40

_METRIC_NOTES = {
    "balanced_accuracy": "mean over the classes of the share of their pictures that is found",
    "ece": "distance of probabilities from frequencies; 0 is best",
    "nll": "0 is best; punishes confident errors",
    "brier": "0 is best",
}


def metrics_section(report: Report) -> Section:
    """Returns all metrics beside those of the DCG, and other models."""
    quality, plain = report.quality, report.model.predictor == "classifier"
    other, short = ("not calibrated", "not calibrated") if plain else ("its DCG alone", "DCG")
    rows = []
    for name, value in quality.model.values.items():
        cells: list[Text] = [
            _metric_name(name),
            ranged(value, quality.model.intervals.get(name)),
            ranged(quality.dcg.values.get(name), quality.dcg.intervals.get(name)),
            difference(quality.difference.get(name)),
        ]
        rows.append(cells)
    intervals = "95 % intervals by drawing whole groups" if report.data.num_groups is not None else "95 % intervals"
    caption = f"Metrics with {intervals}" if quality.model.intervals else "Metrics; too few pictures for intervals"
    parts = [
        table(caption, ["metric", "model", other, f"model − {short}"], rows),
        paragraph("A difference whose interval holds 0 cannot be told from chance on these pictures."),
        *_against(report),
        *_members(report),
    ]
    return Section("metrics", "Metrics", join(parts))


def _metric_name(name: str) -> Markup:
    metric = find_metric(name)
    note = _METRIC_NOTES.get(name, "" if metric.higher_is_better else "0 is best")
    return Markup("{}{}").format(metric.label, Markup(' <span class="note">{}</span>').format(note) if note else "")


def _against(report: Report) -> list[Markup]:
    if not report.against:
        return []
    headings: list[Text] = ["metric", report.model.name]
    for other in report.against:
        headings += [other.name, f"model − {other.name}"]
    rows = []
    for name, value in report.quality.model.values.items():
        row: list[Text] = [find_metric(name).label, number(value)]
        for other in report.against:
            row.append(ranged(other.metrics.values.get(name), other.metrics.intervals.get(name)))
            row.append(difference(other.difference.get(name)))
        rows.append(row)
    trained = [
        f"{other.metrics.num_trained_on:,} of the pictures were used to train {other.name}: its numbers are too good."
        for other in report.against
        if other.metrics.num_trained_on
    ]
    drawn = [heading("Beside other models"), table("The same pictures, other models", headings, rows)]
    return [*drawn, *(paragraph(text, "warning") for text in trained)]


def _members(report: Report) -> list[Markup]:
    ablation = report.quality.ablation
    if ablation is None:
        return []
    columns = [name for name in COLUMNS if name in ablation.values["pool"]]
    headings = ["what predicts", *(find_metric(name).short_label for name in columns)]
    rows: list[list[Text]] = [
        [label, *(number(ablation.values[row][name]) for name in columns)]
        for row, label in ROWS.items()
        if row in ablation.values
    ]
    for row, gaps in ablation.differences.items():
        rows.append([f"pool − {ROWS[row]}", *(difference(gaps.get(name)) for name in columns)])
    verdict = ablation.verdict().replace("*", "")
    return [
        heading("What each part is worth"),
        table("The parts of the model, each calibrated on the validation pictures", headings, rows),
        paragraph(verdict),
    ]


def classes_section(report: Report) -> Section:
    """Returns a row for each class, and what is taken for what."""
    labels = report.model.class_labels
    headings = ["class", "pictures", *(metric.label for metric in class_metrics())]
    rows: list[list[Text]] = [
        [
            titled(each.name, labels),
            f"{each.positives:,}",
            *(ranged(each.values[metric.name], each.intervals.get(metric.name)) for metric in class_metrics()),
        ]
        for each in report.classes
    ]
    parts = [
        table("Each class against the others, with 95 % intervals", headings, rows),
        paragraph(
            "Recall: the share of a class's pictures that is found (its sensitivity). Precision: the share of the "
            "pictures given "
            "a class that show it (positive predictive value). A dash: these pictures do not define the number."
        ),
    ]
    absent = [titled(each.name, labels) for each in report.classes if not each.positives]
    if absent:
        parts.append(paragraph(f"No picture shows {', '.join(absent)}: how well they are found was not measured."))
    return Section("classes", "Classes", join([*parts, *_confusion(report)]))


def _confusion(report: Report) -> list[Markup]:
    title = heading("What is taken for what")
    if report.confusion is None:
        return [title, paragraph("A picture may have several findings, so that no one of them is taken for another.")]
    names = [titled(name, report.model.class_labels) for name in report.model.class_names]
    if len(names) > MOST_CONFUSION:
        return [
            title,
            paragraph(f"A table of {len(names)} × {len(names)} classes has no room here; report.json has it."),
        ]
    rows: list[list[Text]] = []
    for name, counts in zip(names, report.confusion, strict=True):
        total = sum(counts) or 1
        rows.append([name, *(shaded(f"{count:,}" if count else "·", count / total) for count in counts)])
    headings = ["true class ↓   given class →", *names]
    return [title, table("Pictures of each true class by the class they were given", headings, rows, "confusion")]


def curves_section(report: Report) -> Section:
    """Returns the ROC and the precision-recall curve of each class."""
    drawn = [each for each in report.classes if each.roc is not None and each.precision_recall is not None]
    if not drawn:
        text = "There are no curves: they need a class with pictures that show it and others that do not."
        return Section("curves", "ROC and precision-recall curves", paragraph(text))
    shown = sorted(drawn, key=lambda each: -each.positives)[:MOST_CURVES]
    shown = [each for each in drawn if each in shown]
    said = "Each class against all others. Shaded: 95 % of the curves when whole groups are drawn anew."
    if len(shown) < len(drawn):
        said += f" Of {len(drawn)} classes the {len(shown)} with the most pictures; report.json has all."
    few = [titled(each.name, report.model.class_labels) for each in drawn if each.positives < LEAST]
    if few:
        said += f" Fewer than {LEAST} pictures show {', '.join(few)}: what is drawn of these says little."
    left_out = [each.name for each in report.classes if each.roc is None]
    parts = [
        paragraph(said),
        heading("ROC: sensitivity and false alarms"),
        grid([_roc(report, each) for each in shown]),
    ]
    parts += [heading("Precision and recall"), grid([_precision(report, each) for each in shown])]
    if left_out:
        names = ", ".join(titled(name, report.model.class_labels) for name in left_out)
        parts.append(paragraph(f"No curve for {names}: all pictures show it, or none does."))
    return Section("curves", "ROC and precision-recall curves", join(parts))


def _roc(report: Report, each: ClassCurves) -> Markup:
    assert each.roc is not None
    name = titled(each.name, report.model.class_labels)
    text = f"AUROC {ranged(each.values['auroc'], each.intervals.get('auroc'))}"
    return figure(name, roc_chart(name, each.roc, each.values["auroc"]), text)


def _precision(report: Report, each: ClassCurves) -> Markup:
    assert each.precision_recall is not None
    name, average = titled(each.name, report.model.class_labels), each.values["average_precision"]
    share = each.positives / (each.positives + each.negatives)
    text = f"average precision {ranged(average, each.intervals.get('average_precision'))}, by chance {share:.3f}"
    return figure(name, precision_chart(name, each.precision_recall, average, share), text)


def probabilities_section(report: Report) -> Section:
    """Returns how often statements of about the same probability were right."""
    one = report.model.task == "multiclass"
    statements = "most probable classes" if one else "findings"
    what = "the most probable class of each picture" if one else "every finding of every picture"
    bins = report.reliability
    said = (
        f"For {what}: when the model says 80 %, it should be right in 80 of 100 cases, on the dashed line. Bars: 95 % "
        "intervals. Points below the line: it is surer than it should be."
    )
    if not report.model.calibrated:
        said += " The probabilities of this model were not calibrated."
    charts = [
        figure("How often it was right", reliability_chart(bins, statements)),
        figure("How many statements there were", counts_chart(bins, statements)),
    ]
    parts = [paragraph(said), grid([Markup("<div>{}</div>").format(join(charts)), _bins_table(bins)], "side")]
    return Section("probabilities", "Can its probabilities be believed?", join(parts))


def _bins_table(bins: tuple[ReliabilityBin, ...]) -> Markup:
    rows: list[list[Text]] = [
        [
            f"{percent(each.low)} to {percent(each.high)}",
            f"{each.count:,}",
            number(each.confidence),
            ranged(each.observed, each.interval),
        ]
        for each in bins
        if each.count
    ]
    return table("Said and found", ["said probability", "statements", "said, mean", "right"], rows)
