"""`diffmiczoo compare`: whether one model is better than another on the same images."""

from __future__ import annotations

import dataclasses

import click

from diffmiczoo.cli.common import bootstrap_option, format_option
from diffmiczoo.cli.output import echo_json


@click.command()
@click.argument("first", type=click.Path(exists=True, dir_okay=False))
@click.argument("second", type=click.Path(exists=True, dir_okay=False))
@bootstrap_option(1)
@format_option("table", "json")
def compare(first: str, second: str, bootstrap: int, style: str) -> None:
    """Compare two tables of predictions for the same images, as `evaluate --predictions` writes them.

    Shows differences with 95 % bootstrap intervals, and paired tests: t-test, McNemar, DeLong.
    """
    from diffmiczoo.evaluation.results import LabelledPredictions
    from diffmiczoo.evaluation.significance import paired_tests, tests_as_markdown

    one, other = LabelledPredictions.load(first), LabelledPredictions.load(second)
    results, gaps = paired_tests(one, other), one.difference(other, bootstrap)
    if style == "json":
        echo_json({"tests": [dataclasses.asdict(result) for result in results], "difference": gaps})
        return
    click.echo(tests_as_markdown(results) + "\n\n| metric | first - second | 95 % interval |\n|---|---|---|")
    for metric, (gap, low, high) in gaps.items():
        click.echo(f"| {metric} | {gap:+.4f} | {low:+.4f} to {high:+.4f} |")
