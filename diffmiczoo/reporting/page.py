"""The page of a report: sections below a first screen, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Callable
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


def page_of(report: Report) -> str:
    """Returns the page as HTML."""
    sections = [section(report) for section in SECTIONS]
    title = f"{report.model.name} on {report.data.name}" + (f", {report.data.split}" if report.data.split else "")
    environment = _environment()
    return (
        environment.get_template("page.html").render(
            title=plain_text(title),
            style=Markup(environment.get_template("page.css").render()),
            summary=summary(report),
            licence=licence_sentence(report),
            sections=sections,
            version=report.version,
        )
        + "\n"
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Names of classes and files are written by strangers.
    return Environment(
        loader=PackageLoader("diffmiczoo.reporting"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
