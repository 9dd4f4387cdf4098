"""Writes docs/trust.md's table of what shipped weights know about their limits, from the reports in their metrics.json.

    python tools/trust_table.py [--check]

The table stands between two comments; `--check` changes nothing and exits with 1 where it differs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from diffmiczoo.files import read_json_object, write_text

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "diffmiczoo" / "weights"
BEGIN, END = "<!-- limits table: written by tools/trust_table.py -->", "<!-- limits table: end -->"
NOTHING = "None of the shipped weights knows its limits yet; `tools/fit_trust.py` fits them."
HEADER = [
    "weights",
    "own pictures that pass",
    "foreign ones flagged",
    "sets at .1, overall: covered, classes",
    "by class: covered, least of a class, classes",
    "5 % error: a person sees, wrong of the rest",
    "least error that can be promised",
    "AURC",
]


def table(weights: Path) -> str:
    """Returns the table as Markdown, a row for each directory of weights whose metrics.json has a report."""
    found = {path.parent.name: read_json_object(path).get("trust") for path in sorted(weights.glob("*/metrics.json"))}
    rows = [_row(name, report) for name, report in found.items() if report is not None]
    if not rows:
        return NOTHING
    return "\n".join([_line(HEADER), "|" + "---|" * len(HEADER), *rows])


def _row(name: str, report: dict[str, Any]) -> str:
    sets = {(each["alpha"], each["by_class"]): each for each in report["sets"]}
    overall, by_class = sets[0.1, False], sets[0.1, True]
    bounded = [share for share, band in by_class["class_coverage"].values() if band is not None]
    least = _percent(min(bounded)) if bounded else "no class has enough"
    promise = next(each for each in report["deferral"] if each["error"] == 0.05)
    rest = "cannot be promised"
    if promise["seen"] is not None:
        rest = f"{_percent(promise['seen'])}, {_percent(promise['found'])} of {promise['others']}"
    low, high = report["kept_band"] or (None, None)
    kept = "no gate" if low is None else f"{_percent(report['kept'])} ({100 * low:.0f} to {100 * high:.0f})"
    flagged = ", ".join(f"{other} {_percent(share)}" for other, (share, _) in sorted(report["flagged"].items()))
    cells = [
        f"`{name}`",
        kept,
        flagged,
        f"{_percent(overall['coverage'])}, {overall['size']:.2f}",
        f"{_percent(by_class['coverage'])}, {least}, {by_class['size']:.2f}",
        rest,
        "none" if report["least_error"] is None else _percent(report["least_error"]),
        f"{report['aurc']:.4f}",
    ]
    return _line(cells)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _line(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " for cell in cells) + "|"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where the table differs.")
@click.option("--page", default=ROOT / "docs" / "trust.md", type=click.Path(exists=True, path_type=Path))
@click.option("--weights", default=WEIGHTS, type=click.Path(exists=True, path_type=Path))
def main(check: bool, page: Path, weights: Path) -> None:
    """Writes the table of limits into docs/trust.md."""
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise click.ClickException(f"{page}: needs the comments {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n\n{table(weights)}\n\n{END}{rest.split(END)[1]}"
    if new == text:
        return
    if check:
        raise click.ClickException(f"{page}: the table of limits differs; run python tools/trust_table.py")
    write_text(page, new)


if __name__ == "__main__":
    sys.exit(main())
