"""What the model knows about its limits: the surest pictures, sets of classes, and pictures unlike the training "
"ones."""

from __future__ import annotations

from markupsafe import Markup

from diffmiczoo.metrics.trust import SetCoverage, TrustReport
from diffmiczoo.reporting.charts import distances_chart, risk_chart, sizes_chart
from diffmiczoo.reporting.markup import (
    Section,
    Text,
    coded,
    figure,
    grid,
    heading,
    join,
    legend,
    number,
    paragraph,
    percent,
    pictures,
    table,
    titled,
)
from diffmiczoo.reporting.results import Report

_TENTHS = range(9, 100, 10)


def risk_section(report: Report) -> Section:
    """Returns how many errors there are among the surest pictures, and what can be promised of the rest."""
    wrong = "given labels that are not exactly the true ones" if report.model.task == "multilabel" else "wrong"
    said = (
        f"The pictures in order of how sure the model is: the share that is {wrong} among the surest 10 %, 20 %, … of "
        "them. A model that knows what it does not know has a curve that begins low."
    )
    curve = report.risk
    rows: list[list[Text]] = []
    for place in _TENTHS:
        ends = f"{percent(curve.low[place], 1)} to {percent(curve.high[place], 1)}" if curve.low else "–"
        rows.append([percent(curve.x[place]), percent(curve.y[place], 1), ends])
    drawn = table("Errors among the surest pictures", ["the surest", "wrong", "95 % interval"], rows)
    parts = [
        paragraph(said),
        grid([figure("Errors among the surest pictures", risk_chart(curve)), drawn], "side"),
        heading("Which pictures a person should see"),
        *_promises(report.limits.report, report.limits.missing),
    ]
    return Section("risk", "How many errors are among the surest pictures?", join(parts))


def _promises(found: TrustReport | None, missing: str) -> list[Markup]:
    if found is None:
        return [paragraph(coded(f"No share of errors can be promised. {missing}"))]
    rows: list[list[Text]] = []
    for each in found.deferral:
        if each.seen is None or each.found is None:
            rows.append([percent(each.error), "cannot be promised", "–", "–"])
        else:
            rows.append([percent(each.error), percent(each.seen, 1), f"{each.others:,}", percent(each.found, 1)])
    headings = ["errors promised at most", "a person sees", "pictures nobody sees", "wrong among these"]
    said = "With 90 % confidence; by `predict(…, defer_error=0.05)` or `--defer-error`."
    return [table("Promised and found on these pictures", headings, rows), paragraph(coded(said))]


def sets_section(report: Report) -> Section:
    """Returns how many classes cannot be ruled out, and how often the true one is among them."""
    title = "Which classes cannot be ruled out?"
    found, sets = report.limits.report, report.limits.sets
    if found is None or not found.sets or sets is None:
        why = report.limits.missing or "These weights store no prediction sets: there were too few validation pictures."
        return Section("sets", title, paragraph(coded(f"There are no prediction sets. {why}")))
    share = percent(1 - sets.alpha)
    said = (
        f"A prediction set holds the classes that cannot be ruled out: for {share} of the pictures of each class the "
        "true one is "
        "promised to be inside. Small sets say much; a set of all classes says nothing."
    )
    chart = sizes_chart(sets, len(report.model.class_names))
    drawn = figure(f"Size of the sets at {share}", chart)
    parts = [paragraph(said), grid([drawn, _levels(found.sets)], "side")]
    parts.append(_by_class(report, found.coverage(sets.alpha, True)))
    if sets.note:
        parts.append(paragraph(f"{sets.note}."))
    return Section("sets", title, join(parts))


def _levels(sets: tuple[SetCoverage, ...]) -> Markup:
    rows: list[list[Text]] = []
    for each in sets:
        kind = "in each class" if each.by_class else "over all pictures"
        band = "–" if each.band is None else f"{percent(each.band[0], 1)} to {percent(each.band[1], 1)}"
        promised = f"{percent(1 - each.alpha)} {kind}"
        rows.append([promised, percent(each.coverage, 1), band, number(each.size, 2)])
    headings = ["promised", "true class inside", "expected range (99 %)", "classes in a set, mean"]
    return table("Promised and found, at each level", headings, rows)


def _by_class(report: Report, coverage: SetCoverage) -> Markup:
    rows: list[list[Text]] = []
    for name, (share, band) in coverage.class_coverage.items():
        ends = "in every set" if band is None else f"{percent(band[0], 1)} to {percent(band[1], 1)}"
        rows.append([titled(name, report.model.class_labels), percent(share, 1), ends])
    caption = f"Each class at {percent(1 - coverage.alpha)}"
    return table(caption, ["class", "true class inside", "expected range (99 %)"], rows)


def foreign_section(report: Report) -> Section:
    """Returns how far the pictures are from the training pictures."""
    title = "Pictures unlike the training pictures"
    distances, found = report.limits.distances, report.limits.report
    if distances is None:
        why = report.limits.missing or "These weights store no gate: there were too few validation pictures to fit one."
        return Section(
            "foreign", title, paragraph(coded(f"Pictures are not compared with the training pictures. {why}"))
        )
    total = report.data.num_images
    said = f"{distances.flagged:,} of {pictures(total)} are farther from the training pictures than the limit."
    if found is not None and found.kept_band is not None:
        low, high = found.kept_band
        said += (
            f" Of new pictures of the same kind {percent(max(0.0, 1 - high), 1)} to {percent(1 - low, 1)} are "
            "expected to be; "
            "many more say that these are of another kind: another device, another population, another view."
        )
    drawn = figure("Distance from the training pictures", distances_chart(distances))
    parts = [paragraph(said), drawn, legend([("first", "predicted rightly"), ("second", "predicted wrongly")])]
    if distances.names:
        one = Markup("<li>{}</li>")
        parts.append(heading("The farthest of them"))
        parts.append(Markup("<ol>{}</ol>").format(Markup("").join(one.format(name) for name in distances.names)))
    return Section("foreign", title, join(parts))
