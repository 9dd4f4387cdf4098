"""The page of a report: sections below a first screen, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from diffmiczoo.reporting.markup import Section
from diffmiczoo.reporting.results import Report
from diffmiczoo.reporting.sections import facts, gallery, limits, parts, quality
from diffmiczoo.reporting.summary import licence_sentence, summary
from diffmiczoo.runtime.text import plain_text

#: In the order of the page.
SECTIONS: tuple[Callable[[Report], Section], ...] = (
    facts.makers_section,
    quality.metrics_section,
    quality.classes_section,
    quality.curves_section,
    quality.probabilities_section,
    limits.risk_section,
    limits.sets_section,
    limits.foreign_section,
    gallery.pictures_section,
    gallery.copies_section,
    parts.subgroups_section,
    parts.robustness_section,
    facts.training_section,
    facts.facts_section,
    facts.terms_section,
)


@dataclass(frozen=True)
class Frame:
    """What stands around the sections of a page.

    Attributes:
        title: its heading.
        kind: what it is, above the title.
        skip: what its first section is called in "To the …".
        licence: the sentence below the title.
        numbers: the file with the same numbers.
        version: of diffmiczoo.
    """

    title: str
    kind: str
    skip: str
    licence: str
    numbers: str
    version: str


def page_of(report: Report) -> str:
    """Returns the page as HTML."""
    title = f"{report.model.name} on {report.data.name}" + (f", {report.data.split}" if report.data.split else "")
    frame = Frame(title, "Model report", "numbers", licence_sentence(report), "report.json", report.version)
    return rendered(frame, summary(report), [section(report) for section in SECTIONS])


def rendered(frame: Frame, first: Markup, sections: Sequence[Section]) -> str:
    """Returns a page as HTML: its first screen, contents and sections."""
    environment = _environment()
    return (
        environment.get_template("page.html").render(
            title=plain_text(frame.title),
            kind=frame.kind,
            skip=frame.skip,
            style=Markup(environment.get_template("page.css").render()),
            summary=first,
            licence=frame.licence,
            sections=sections,
            numbers=frame.numbers,
            version=frame.version,
        )
        + "\n"
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Names of classes and files are written by strangers.
    return Environment(
        loader=PackageLoader("diffmiczoo.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
