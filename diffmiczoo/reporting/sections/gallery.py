"""Pictures to look at: the confident errors, the least sure ones, and pictures that show the same."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence

from markupsafe import Markup

from diffmiczoo.data.finding import CopiedImages
from diffmiczoo.reporting.markup import (
    Section,
    Text,
    heading,
    join,
    number,
    paragraph,
    percent,
    pictures,
    table,
    titled,
)
from diffmiczoo.reporting.results import Report, Shown

#: Rows of a table of copies.
_MOST = 50


def pictures_section(report: Report) -> Section:
    """Returns the pictures, each with where the model looked and what it says."""
    found = report.gallery
    total, shown = report.data.num_images, len(found.errors) + len(found.uncertain)
    parts = [paragraph(f"{found.wrong:,} of {pictures(total)} are given labels that are not exactly the true ones.")]
    if not shown and found.wrong:
        parts.append(paragraph("No pictures are shown: they were not asked for."))
        return Section("pictures", "Pictures to look at", join(parts))
    parts.append(paragraph(_marks(report)))
    parts.append(heading("Wrong, and sure of it"))
    if found.errors:
        parts.append(paragraph("Worth a look first: the model is wrong, or the label is."))
        parts.append(_cards(report, found.errors))
    else:
        parts.append(paragraph("There are none: every picture is given exactly its true labels."))
    parts.append(heading("Least sure"))
    if found.uncertain:
        parts.append(_cards(report, found.uncertain))
    else:
        parts.append(paragraph("There are none besides those above."))
    return Section("pictures", "Pictures to look at", join(parts))


def _marks(report: Report) -> str:
    """Says what is drawn on the pictures."""
    shown = (*report.gallery.errors, *report.gallery.uncertain)
    # Without a local stream all regions have the same share.
    closely = any(len(set(each.roi_attention)) > 1 for each in shown)
    boxes = "the regions that it read closely, 1 the one with the most attention"
    return (
        f"Left the picture, right the same one with where the model looked ({report.gallery.map_title}): the stronger "
        "the colour, the more it counts for the most probable class; the line is at one half; boxes are "
        f"{boxes if closely else 'regions where that is strongest, which it does not read by themselves'}."
    )


def _cards(report: Report, shown: Sequence[Shown]) -> Markup:
    return Markup('<div class="cards">{}</div>').format(join([_card(report, each) for each in shown]))


def _card(report: Report, shown: Shown) -> Markup:
    truth, given = (_labels(report, labels) for labels in (shown.truth, shown.predicted))
    name = os.path.basename(shown.name) or shown.name
    images = _images(report, shown, f"{name}: labelled {truth}, predicted {given}")
    one = Markup('<li><span>{}</span> <b>{}</b><i style="--share:{}"></i></li>')
    bars = Markup("").join(
        one.format(titled(label, report.model.class_labels), percent(value), f"{value:.3f}")
        for label, value in shown.top
    )
    notes = Markup("").join(Markup("<li>{}</li>").format(text) for text in _notes(report, shown))
    whole = (
        '<article class="card">{}<h4>{}</h4><p>labelled <b>{}</b>, predicted <b>{}</b></p>'
        '<ul class="probabilities">{}</ul><ul class="notes">{}</ul></article>'
    )
    return Markup(whole).format(images, name, truth, given, bars, notes)


def _labels(report: Report, labels: Sequence[str]) -> str:
    return ", ".join(titled(label, report.model.class_labels) for label in labels) or "no finding"


def _images(report: Report, shown: Shown, words: str) -> Markup:
    if not shown.drawn:
        return paragraph("This picture could not be read again, or was handed in without a file.")
    looked = f"The same picture with where the model looked for {titled(shown.looked_for, report.model.class_labels)}"
    one = Markup('<img src="data:image/jpeg;base64,{}" alt="{}">')
    drawn = [(shown.drawn, words), (shown.marked, looked)]
    images = [one.format(base64.b64encode(jpeg).decode("ascii"), alt) for jpeg, alt in drawn]
    return Markup('<div class="pair">{}</div>').format(Markup("").join(images))


def _notes(report: Report, shown: Shown) -> list[str]:
    said = [f"uncertainty {number(shown.uncertainty, 2)} (0: sure, 1: knows nothing)"]
    if shown.possible:
        said.append(f"not ruled out: {_labels(report, shown.possible)}")
    if shown.ood_score is not None and shown.ood_score > 1:
        said.append(f"UNLIKE THE TRAINING PICTURES ({shown.ood_score:.1f} times the limit)")
    said += [
        f"shows the same as {_others(copied, shown.name)}"
        for copied in (*report.copies.conflicts, *report.copies.repeated)
        if any(shown.name.endswith(name) for name in copied.names)
    ]
    return said


def _others(copied: CopiedImages, own: str) -> str:
    others = [
        f"{name} ({label})" for name, label in zip(copied.names, copied.labels, strict=True) if not own.endswith(name)
    ]
    return f"{', '.join(others[:3])}: {copied.how}"


def copies_section(report: Report) -> Section:
    """Returns pictures that show the same, those with different labels first."""
    title, found = "Copies and labels that contradict each other", report.copies
    if found.missing:
        return Section("copies", title, paragraph(found.missing))
    if not found.conflicts and not found.repeated:
        text = "None: no two of these pictures, of different groups if there are any, show the same."
        return Section("copies", title, paragraph(text))
    parts = []
    if found.conflicts:
        said = "The same picture with different labels: at least one of them is wrong, and so is a number here."
        if not all(copied.certain for copied in found.conflicts):
            said = (
                "The same picture with different labels, or two of the same patient: look at each. Of the same picture "
                "at least one label is wrong, and so is a number here."
            )
        parts += [paragraph(said), _copies("Pictures that show the same and have different labels", found.conflicts)]
    if found.repeated:
        said = "The same picture more than once: it counts more than once, and makes intervals too narrow."
        parts += [paragraph(said), _copies("Pictures that show the same", found.repeated)]
    return Section("copies", title, join(parts))


def _copies(caption: str, copies: Sequence[CopiedImages]) -> Markup:
    rows: list[list[Text]] = [
        [" = ".join(copied.names[:4]) + " = …" * (len(copied.names) > 4), " / ".join(copied.labels[:4]), copied.how]
        for copied in copies[:_MOST]
    ]
    more = f"; the first {_MOST} of {len(copies):,}" if len(copies) > _MOST else ""
    return table(caption + more, ["pictures", "labels", "how alike"], rows, "words")
