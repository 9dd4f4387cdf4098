"""The first screen: what was measured, how often it is right, where it fails, in words that need no statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from diffmiczoo.metrics.table import find_metric
from diffmiczoo.reporting.markup import join, listed, paragraph, percent, pictures, titled
from diffmiczoo.reporting.results import Report

#: Pictures of a class from which on it is named as the one that is found least often.
LEAST = 5


@dataclass(frozen=True)
class Tile:
    """One statement of the first screen.

    Attributes:
        title: the question that it answers.
        value: in large letters.
        text: the sentences below.
        style: "warning" or "".
    """

    title: str
    value: str
    text: str
    style: str = ""


def summary(report: Report) -> Markup:
    """Returns the first screen."""
    warnings = [paragraph(text, "warning") for text in cautions(report)]
    tiles = [right_tile(report), failing_tile(report), sure_tile(report), foreign_tile(report)]
    return join([paragraph(what_sentence(report), "lead"), *warnings, tiled(tiles)])


def tiled(tiles: Sequence[Tile]) -> Markup:
    """Puts statements beside each other."""
    one = Markup('<div class="tile {}"><h3>{}</h3><p class="value">{}</p><p>{}</p></div>')
    drawn = Markup("").join(one.format(tile.style, tile.title, tile.value, tile.text) for tile in tiles)
    return Markup('<div class="tiles">{}</div>').format(drawn)


def what_sentence(report: Report) -> str:
    """Says which model was measured on which pictures."""
    data, model = report.data, report.model
    split = f", split {data.split}" if data.split else ""
    groups = "" if data.num_groups is None else f" of {data.num_groups:,} groups (patients, lesions or the like)"
    kinds = "classes, one for each picture" if model.task == "multiclass" else "findings, any number in each picture"
    return (
        f"The model {model.name} was shown {pictures(data.num_images)}{groups} from {data.name}{split}, and its "
        "answers "
        f"were compared with the labels of these pictures. It tells {len(model.class_names)} {kinds}."
    )


def cautions(report: Report) -> list[str]:
    """Returns what makes the numbers mean less than they seem to."""
    data, model = report.data, report.model
    said = []
    if not model.trained:
        said.append("The weights of this model come from no training: its predictions mean nothing.")
    if data.num_trained_on:
        said.append(
            f"{data.num_trained_on:,} of these {pictures(data.num_images)} were used to train these weights: new "
            "pictures will be read less well than the numbers here say."
        )
    if data.split in ("train", "val"):
        use = "trained on" if data.split == "train" else "used to choose and calibrate the model"
        said.append(f"Pictures of split {data.split} are usually {use}: new pictures will be read a little less well.")
    if data.num_images < 2 or data.num_groups == 1:
        said.append("One picture, or one group, says nothing about others: no interval can be given.")
    elif (data.num_groups or data.num_images) < 30:
        said.append("These are few pictures: see how wide the intervals are.")
    return said


def right_tile(report: Report) -> Tile:
    """Says how often the model is right."""
    metrics = report.quality.model
    if report.model.task == "multilabel":
        area = metrics.values["auroc"]
        if area != area:
            return Tile(
                "How well does it rank?",
                "–",
                "No finding has pictures with it and without it, so nothing can be ranked.",
            )
        text = (
            "Of two pictures, one with a finding and one without, the one with it gets the higher probability in this "
            f"share of pairs, on average over the findings{_interval(report, 'auroc')}. Chance: {percent(0.5)}."
        )
        return Tile("How well does it rank?", percent(area), text)
    value = metrics.values["accuracy"]
    most = max(report.data.counts.values()) / report.data.num_images
    text = f"of the pictures get the right label{_interval(report, 'accuracy')}. "
    return Tile(
        "How often is it right?",
        percent(value),
        text + f"Always giving the most frequent label would be right for {percent(most)}.",
    )


def _interval(report: Report, name: str) -> str:
    ends = report.quality.model.intervals.get(name)
    if ends is None:
        return ""
    return f" (95 % interval: {percent(ends[0])} to {percent(ends[1])})"


def failing_tile(report: Report) -> Tile:
    """Says which class is found least often, and what it is taken for."""
    title = "Where does it fail most?"
    shown = [each for each in report.classes if each.positives]
    enough = [each for each in shown if each.positives >= LEAST] or shown
    if not enough:
        return Tile(title, "–", "No picture shows any of the classes.")
    worst = min(enough, key=lambda each: each.values["recall"])
    recall = worst.values["recall"]
    name = titled(worst.name, report.model.class_labels)
    if recall == 1:
        return Tile(title, "nowhere here", "Every class that these pictures show is found in all of its pictures.")
    found = round(recall * worst.positives)
    are = "is" if found == 1 else "are"
    share = percent(recall) + _recall_ends(worst.intervals)
    text = f"Of {pictures(worst.positives)} that show it, {found:,} {are} found ({share})."
    return Tile(title, name, text + _taken_for(report, worst.name), "long" if len(name) > 12 else "")


def _recall_ends(intervals: dict[str, tuple[float, float]]) -> str:
    return (
        f"; 95 % interval {percent(intervals['recall'][0])} to {percent(intervals['recall'][1])}"
        if "recall" in intervals
        else ""
    )


def _taken_for(report: Report, name: str) -> str:
    if report.confusion is None:
        return ""
    place = report.model.class_names.index(name)
    row = [0 if other == place else count for other, count in enumerate(report.confusion[place])]
    if not max(row):
        return ""
    other = titled(report.model.class_names[row.index(max(row))], report.model.class_labels)
    return f" It is most often taken for {other} ({max(row):,})."


def sure_tile(report: Report) -> Tile:
    """Says whether probabilities are to be believed, and how many errors there are among the surest half."""
    title = "Can its probabilities be believed?"
    if not report.model.calibrated:
        return Tile(
            title,
            "only their order",
            "The probabilities were not calibrated on validation pictures: take them for a ranking.",
        )
    gap = report.quality.model.values[find_metric("ece").name]
    half = report.risk.y[min(len(report.risk.y) - 1, 49)]
    text = (
        "That is how far they are from what happens, on average; none at all is best. Among the half of the pictures "
        f"that it is surest about, {percent(half)} are wrong; among all, {percent(report.risk.y[-1])}."
    )
    return Tile(title, f"{percent(gap)} off", text)


def foreign_tile(report: Report) -> Tile:
    """Says how often the model calls a picture unlike its training pictures."""
    title = "How often is a picture strange to it?"
    limits = report.limits
    if limits.distances is None:
        text = "It does not compare pictures with its training pictures; the section on these says why."
        return Tile(title, "not known", text)
    flagged, total = limits.distances.flagged, report.data.num_images
    text = f"{flagged:,} of {pictures(total)} {'is' if flagged == 1 else 'are'} called unlike the training pictures."
    band = None if limits.report is None else limits.report.kept_band
    if band is not None:
        few, many = percent(max(0.0, 1 - band[1])), percent(1 - band[0])
        text += f" {few} to {many} are to be expected for pictures of the same kind."
    return Tile(title, percent(flagged / total), text)


def licence_sentence(report: Report) -> str:
    """Says what the weights may be used for."""
    model = report.model
    parts = [
        f"the weights are under {model.license}" if model.license else "",
        f"they were trained on pictures under {model.data_license}" if model.data_license else "",
    ]
    said = listed([part for part in parts if part]) if any(parts) else "no licence of the weights is stated"
    return f"Research only. Not for clinical use. {said[0].upper()}{said[1:]}."
