"""Which maps tell where shipped weights look? Deletion and insertion on test pictures, a Markdown table.

    python tools/explanation_study.py diffmicv2_nano.busi --data ../shared/data/busi

The class that is explained is the most probable one. docs/explanations.md has the tables.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

import diffmiczoo
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.trust import some_of
from diffmiczoo.reporting.deletion import compare_maps


@click.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="What they were trained on.")
@click.option("--count", type=int, default=24, show_default=True, help="Test pictures.")
def main(name: str, data: Path, count: int) -> None:
    """Measure the maps of the weights NAME."""
    model = diffmiczoo.create_model(name, pretrained=True)
    manifest = as_manifest(data, class_names=model.config.class_names, task=model.config.task).split("test")
    scores = compare_maps(model, [record.item() for record in some_of(manifest, count).records], steps=8)
    click.echo("| map | deletion | insertion | better than random maps by |\n|---|---|---|---|")
    for score in scores:
        low, high = score.interval
        gain = "–" if score.method == "random" else f"{score.gain:+.3f} [{low:+.3f}, {high:+.3f}]"
        click.echo(f"| {score.title} | {score.deletion:.3f} | {score.insertion:.3f} | {gain} |")


if __name__ == "__main__":
    sys.exit(main())
