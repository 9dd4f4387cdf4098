"""Writes README.md's table of the weights that ship, from their metrics.json.

    python tools/weights_table.py [--check]

The table stands between two comments in README.md; `--check` changes nothing and exits with 1 where it differs.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import click

from diffmiczoo.files import read_json_object, write_text
from diffmiczoo.metrics.table import find_metric

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = Path("diffmiczoo/weights")
BEGIN, END = "<!-- weights table: written by tools/weights_table.py -->", "<!-- weights table: end -->"

#: Weights that show how something is done; a row among the results would say more than they can.
EXAMPLES = ("diffmicv2_nano.chestxray14",)

#: Of the rows.
ORDER = (
    "diffmicv2_nano.ham10000",
    "diffmicv2_small.ham10000",
    "diffmicv2_nano.aptos2019",
    "diffmicv2_nano.busi",
)

#: Plain classifiers → what people call them.
TITLES = {
    "timm/tf_efficientnet_lite0": "plain EfficientNet-Lite0",
    "timm/tf_efficientnet_lite2": "plain EfficientNet-Lite2",
}

COLUMNS = ("accuracy", "macro_f1", "auroc", "ece", "nll")
GRADES = "quadratic_kappa"  # beside the row's name, as few weights have it


def table() -> str:
    """Returns the table as Markdown."""
    shipped = [path.parent.name for path in (ROOT / WEIGHTS).glob("*/metrics.json")]
    order = sorted((name for name in shipped if name not in EXAMPLES), key=ORDER.index)
    header = ["weights, test images", "", *(find_metric(name).short_label for name in COLUMNS)]
    rows = [_line(header), "|" + "---|" * len(header)]
    for name in order:
        rows += _rows(name)
    return "\n".join(rows)


def _rows(name: str) -> list[str]:
    metrics = read_json_object(ROOT / WEIGHTS / name / "metrics.json")
    measured, seeds = metrics["test"], metrics.get("seeds", {}).get("model", {})
    count, labels = measured["model"]["num_images"], len(measured["model"]["per_class"])
    # Only a model of several labels has an average precision of its own.
    several = f", {labels} labels" if "average_precision" in measured["model"]["values"] else ""
    parts = {"model": _texts(measured["model"]["values"])}
    if len(seeds) > 1:
        parts[f"mean ± sd of {len(seeds)} seeds"] = _spreads(list(seeds.values()))
    parts["its DCG alone"] = _texts(measured["dcg"]["values"])
    if "opponent" in metrics:
        runs = list(metrics["opponent"]["seeds"].values())
        parts[f"{TITLES[metrics['opponent']['name']]}, {len(runs)} seeds"] = _spreads(runs)
    first = f"[`{name}`]({WEIGHTS.as_posix()}/{name}/README.md), {count:,}{several}"
    return [
        _line([first if part == "model" else "", _named(part, texts), *(texts.get(key, "") for key in COLUMNS)])
        for part, texts in parts.items()
    ]


def _named(part: str, texts: dict[str, str]) -> str:
    return f"{part}, κ {texts[GRADES]}" if GRADES in texts else part


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: f"{value:.3f}" for name, value in values.items() if value is not None}


def _spreads(runs: list[dict[str, float]]) -> dict[str, str]:
    columns = {name: [run[name] for run in runs] for name in runs[0]}
    return {name: f"{statistics.mean(each):.3f} ± {statistics.stdev(each):.3f}" for name, each in columns.items()}


def _line(cells: list[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 where the table differs.")
@click.option("--readme", default=ROOT / "README.md", type=click.Path(exists=True, path_type=Path))
def main(check: bool, readme: Path) -> None:
    """Writes the table of weights into README.md."""
    text = readme.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise click.ClickException(f"{readme}: needs the comments {BEGIN} and {END}, once each")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"
    if new == text:
        return
    if check:
        raise click.ClickException(f"{readme}: the table of weights differs; run python tools/weights_table.py")
    write_text(readme, new)


if __name__ == "__main__":
    sys.exit(main())
