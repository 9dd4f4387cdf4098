"""The page of an audit: what is wrong and what to look at, with the pictures side by side."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from diffmiczoo._version import __version__
from diffmiczoo.data.copies import shared_names
from diffmiczoo.data.data_report import DataReport
from diffmiczoo.data.finding import LOOK, WRONG, CopiedImages, Finding
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.files import write_text
from diffmiczoo.images.items import Item
from diffmiczoo.reporting.markup import Section, Text, heading, join, number, paragraph, pictures, shaded, table
from diffmiczoo.reporting.page import Frame, rendered
from diffmiczoo.reporting.pictures import small_jpeg
from diffmiczoo.reporting.summary import Tile, tiled
from diffmiczoo.runtime.text import plain_text

#: Pairs of pictures that are shown of a finding, names that are listed, pictures of a pair, and their longer side.
_PAIRS, _NAMES, _SIDES, _SIDE = 12, 100, 4, 240

#: What each kind of finding is called, and what it means.
_KINDS = {
    "unreadable": ("Files that cannot be read", "Mend them or take them out: training stops at the first."),
    "class without images": ("Classes without images", "A class cannot be learned or measured without images."),
    "class without training images": ("Classes without training images", "A class cannot be learned without images."),
    "group in two splits": (
        "Groups in two splits",
        "Pictures of one patient or lesion are alike; a model that has seen some of them knows the others.",
    ),
    "leak": (
        "The same picture in two splits",
        "A model has seen the answer; take the copies out of one of the splits.",
    ),
    "conflict": ("The same picture with different labels", "At least one of the labels is wrong."),
    "likely conflict": (
        "Pictures that are much alike with different labels",
        "They may be one picture, of which one label is wrong, or two of the same patient at different times.",
    ),
    "class not measured": ("Classes that are not measured", "No figure will say how well these are found."),
    "copy": (
        "The same picture more than once",
        "Within a split it counts more than once; a new split may put copies on two sides.",
    ),
    "blank": ("Pictures that show nothing", "All of one grey; the label cannot be seen in them."),
    "imbalance": ("Uneven classes", "Figures over all images say little about the small ones."),
    "give-away": (
        "Statistics that give the label away",
        "Each of these alone, without a look at what is shown, tells labels apart: 0.5 is chance, 1 is always right.",
    ),
    "suspicious label": (
        "Labels that the model contradicts",
        "The model is sure of another label. It may be wrong, or the label is: look at the picture.",
    ),
}


def write_audit(report: DataReport, manifest: Manifest, directory: Path) -> None:
    """Writes `audit.html`, which needs no other file, and `audit.json` with the same findings.

    Args:
        report: of `audit`.
        manifest: that it was made of; some of its pictures are shown.
        directory: made where it is not there.

    Raises:
        OSError: the directory cannot be written, or the disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    report.save(directory / "audit.json")
    write_text(directory / "audit.html", audit_page(report, manifest))


def audit_page(report: DataReport, manifest: Manifest) -> str:
    """Returns the page as HTML; names of files and classes are escaped."""
    items = {name: record.item() for name, record in zip(shared_names(manifest.records), manifest.records, strict=True)}
    sections = [
        _findings_section("wrong", "What is wrong", WRONG, report, items),
        _findings_section("look", "What to look at", LOOK, report, items),
        _classes_section(report),
        _statistics_section(report),
        _reading_section(report),
    ]
    frame = Frame(
        f"Audit of {report.name}", "Data audit", "findings", "Not for clinical use.", "audit.json", __version__
    )
    return rendered(frame, _summary(report, manifest), sections)


def _summary(report: DataReport, manifest: Manifest) -> Markup:
    found = {severity: [each for each in report.findings if each.severity == severity] for severity in (WRONG, LOOK)}
    splits = ", ".join(
        f"{sum(record.split == (None if split == 'all' else split) for record in manifest.records):,} {split}"
        for split in report.counts
    )
    lead = (
        f"{report.name} has {pictures(len(manifest))} of {len(manifest.class_names)} classes ({splits}). Every one was "
        "read and compared with all others."
    )
    readable = len(manifest) - len(report.unreadable)
    tiles = [
        Tile("How many can be read?", f"{readable:,}", f"of {pictures(len(manifest))}"),
        _tile("Is anything wrong?", found[WRONG], "Nothing that makes figures wrong was found."),
        _tile("Anything to look at?", found[LOOK], "Nothing."),
    ]
    return join([paragraph(plain_text(lead), "lead"), tiled(tiles)])


def _tile(title: str, found: Sequence[Finding], none: str) -> Tile:
    kinds = ", ".join(dict.fromkeys(_title(each.kind).lower() for each in found))
    return Tile(title, "yes" if found else "no", f"{kinds[:1].upper()}{kinds[1:]}." if found else none)


def _title(kind: str) -> str:
    return _KINDS[kind][0]


def _findings_section(name: str, title: str, severity: str, report: DataReport, items: Mapping[str, Item]) -> Section:
    parts: list[Markup] = []
    told = ""
    for finding in report.findings:
        if finding.severity != severity:
            continue
        if finding.kind != told:
            parts += [heading(_title(finding.kind)), paragraph(_KINDS[finding.kind][1])]
            told = finding.kind
        parts += _drawn(finding, report, items)
    return Section(name, title, join(parts or [paragraph("Nothing was found.")]))


def _drawn(finding: Finding, report: DataReport, items: Mapping[str, Item]) -> Iterator[Markup]:
    yield paragraph(plain_text(finding.text), "warning" if finding.severity == WRONG else "")
    if finding.copies:
        yield _cards(_copy_card(copied, items) for copied in finding.copies[:_PAIRS])
    elif finding.kind == "suspicious label" and report.opinion is not None:
        yield _cards(_card([label.name], [str(label)], "", items) for label in report.opinion.labels[:_PAIRS])
    rest = finding.examples[_PAIRS:] if finding.copies else finding.examples if finding.count > 1 else ()
    if rest:
        entries = Markup("").join(Markup("<li>{}</li>").format(plain_text(text)) for text in rest[:_NAMES])
        more = paragraph(f"… and {len(rest) - _NAMES:,} more, in audit.json") if len(rest) > _NAMES else Markup("")
        said = "the others" if finding.copies else "all of them"
        yield Markup("<details><summary>{} ({:,})</summary><ul>{}</ul>{}</details>").format(
            said, len(rest), entries, more
        )


def _cards(cards: Iterator[Markup]) -> Markup:
    return Markup('<div class="cards">{}</div>').format(join(list(cards)))


def _copy_card(copied: CopiedImages, items: Mapping[str, Item]) -> Markup:
    groups = copied.groups or ("",) * len(copied.names)
    words = [
        f"{name}: {label}, {split}{f', group {group}' if group else ''}"
        for name, label, split, group in zip(copied.names, copied.labels, copied.splits, groups, strict=True)
    ]
    return _card(copied.names, words, copied.how, items)


def _card(names: Sequence[str], words: Sequence[str], how: str, items: Mapping[str, Item]) -> Markup:
    images = Markup("").join(_image(name, items) for name in names[:_SIDES])
    lines = Markup("").join(Markup("<li>{}</li>").format(plain_text(each)) for each in words[: 2 * _SIDES])
    more = f"… and {len(words) - 2 * _SIDES} more; {how}" if len(words) > 2 * _SIDES else how
    return Markup(
        '<article class="card"><div class="pair">{}</div><ul>{}</ul><p class="notes">{}</p></article>'
    ).format(images, lines, more)


def _image(name: str, items: Mapping[str, Item]) -> Markup:
    jpeg = small_jpeg(items[name], _SIDE)
    if not jpeg:
        return paragraph("This picture could not be read again.")
    one = Markup('<img src="data:image/jpeg;base64,{}" alt="{}">')
    return one.format(base64.b64encode(jpeg).decode("ascii"), plain_text(name))


def _classes_section(report: DataReport) -> Section:
    splits = list(report.counts)
    rows: list[list[Text]] = [
        [plain_text(name), *(f"{report.counts[split][name]:,}" for split in splits)]
        for name in report.counts[splits[0]]
    ]
    return Section("classes", "Classes and splits", table("Images of each class", ["class", *splits], rows))


def _statistics_section(report: DataReport) -> Section:
    title = "How well statistics of files and pixels tell the label"
    if not report.give_aways:
        return Section("statistics", title, paragraph("Too few images of each class to tell."))
    labels = list(report.give_aways[0].auroc)
    rows: list[list[Text]] = [
        [
            given.statistic,
            *(
                shaded(
                    f"{number(each.value, 2)} [{number(each.low, 2)}, {number(each.high, 2)}]", abs(2 * each.value - 1)
                )
                for each in given.auroc.values()
            ),
        ]
        for given in report.give_aways
    ]
    said = (
        "AUROC of a small predictor that sees only this statistic, cross-validated, with its 95 % interval: 0.5 is "
        "chance. Borders, sizes and formats are no signs of a disease; brightness and colour may be."
    )
    drawn = table("AUROC of each label against the rest", ["statistic", *map(plain_text, labels)], rows)
    return Section("statistics", title, join([paragraph(said), drawn]))


def _reading_section(report: DataReport) -> Section:
    notes = report.notes or ["Nothing was left out."]
    lines = Markup("").join(Markup("<li>{}</li>").format(plain_text(note)) for note in notes)
    return Section("reading", "How the data were read", Markup("<ul>{}</ul>").format(lines))
