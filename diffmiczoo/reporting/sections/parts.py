"""The model on parts of the pictures, and on pictures that went wrong."""

from __future__ import annotations

from markupsafe import Markup

from diffmiczoo.metrics.robustness import Robustness, RobustnessRow
from diffmiczoo.metrics.subgroups import SubgroupTable
from diffmiczoo.reporting.markup import Section, Text, coded, heading, join, paragraph, table
from diffmiczoo.reporting.results import Report


def subgroups_section(report: Report) -> Section:
    """Returns metrics on the values of each column that was asked for."""
    if not report.quality.subgroups:
        text = (
            "Not asked for: `--by COLUMN` divides the pictures by a column of their table, such as sex, age or device."
        )
        return Section("subgroups", "Subgroups", paragraph(coded(text)))
    parts = [paragraph("Small subgroups have wide intervals: look at those before comparing.")]
    for each in report.quality.subgroups:
        parts += _subgroup(each)
    return Section("subgroups", "Subgroups", join(parts))


def _subgroup(found: SubgroupTable) -> list[Markup]:
    columns = found.columns()
    rows: list[list[Text]] = [list(row) for row in zip(*columns.values(), strict=True)]
    notes = found.notes()
    drawn = [heading(f"By {found.column}"), table(f"By {found.column}", list(columns), rows)]
    return [*drawn, paragraph(notes)] if notes else drawn


def robustness_section(report: Report) -> Section:
    """Returns what becomes of the numbers on corrupted pictures."""
    title, found = "Pictures that went wrong", report.quality.robustness
    if found is None:
        text = (
            "Not asked for: `--robustness` measures the model also on blurred, noisy, dark, compressed and otherwise "
            "corrupted copies of the pictures, which takes 25 predictions of each."
        )
        return Section("robustness", title, paragraph(coded(text)))
    said = (
        "The same pictures, corrupted as it happens in a clinic, at three severities. Prediction sets and the flag "
        "for strange "
        "pictures should grow as the numbers fall."
    )
    return Section("robustness", title, join([paragraph(said), _corruptions(found)]))


def _corruptions(found: Robustness) -> Markup:
    def row(each: RobustnessRow) -> list[Text]:
        severity = f", severity {each.severity}" if each.severity else ""
        return [each.corruption.replace("_", " ") + severity, *found.cells(each)]

    rows = [row(each) for each in (found.clean, *found.rows, found.mean)]
    return table(
        f"{found.num_images:,} pictures in {len(found.rows)} corrupted versions",
        ["pictures", *found.columns().values()],
        rows,
    )
