"""`evaluate` and `compare`: how good a model is, and whether another one is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from diffmiczoo.cli.common import checked_device, clear_errors
from diffmiczoo.errors import InvalidValueError

_TABLE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("data", type=click.Path(exists=True))
@click.option("--model", "name", required=True, help="Registered name or local-dir:PATH.")
@click.option("--split", help="Which images; by default test where the data have splits, else all.")
@click.option("--predictions", type=_TABLE, help="Write the model's predictions as a CSV.")
@click.option("--dcg-predictions", type=_TABLE, help="Write the predictions of its DCG alone as a CSV.")
@click.option("--save", is_flag=True, help="Add the metrics to metrics.json beside the weights of a local-dir:.")
@click.option("--bootstrap", type=click.IntRange(0), default=1000, show_default=True, help="Resamples, 0 for none.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--json", "json_output", is_flag=True, help="Write JSON, not tables.")
def evaluate(
    data: str,
    name: str,
    split: str | None,
    predictions: Path | None,
    dcg_predictions: Path | None,
    save: bool,
    bootstrap: int,
    batch_size: int,
    device: str,
    json_output: bool,
) -> None:
    """Measure a model on labelled images DATA, beside its DCG alone, with 95 % bootstrap intervals."""
    with clear_errors():
        from diffmiczoo.hub.names import parse_model_name

        source = parse_model_name(name)
        if save and source.kind != "local-dir":
            raise InvalidValueError("--save needs the weights of a local-dir: model; others are not yours to change")
        from diffmiczoo.evaluation.dcg_report import predict_with_dcg
        from diffmiczoo.evaluation.evaluate import evaluation_split
        from diffmiczoo.zoo.factory import create_model

        model = create_model(name, pretrained=True, device=checked_device(device))
        manifest = evaluation_split(model.config, data, split)
        predicted = predict_with_dcg(model, manifest, batch_size)
        for part, path in ((predicted.model, predictions), (predicted.dcg, dcg_predictions)):
            if path is not None:
                part.save(path)
        report = predicted.report(bootstrap)
        if save:
            _add(source.path / "metrics.json", split or _split_of(manifest), report.to_dict())
    if json_output:
        click.echo(json.dumps(report.to_dict(), indent=1))
        return
    click.echo(f"model\n{report.model}\n\nits DCG alone\n{report.dcg}")
    for metric, (gap, low, high) in report.difference.items():
        click.echo(f"{'model - DCG: ' + metric:<32} {gap:+.3f} [{low:+.3f}, {high:+.3f}]")


@click.command()
@click.argument("first", type=click.Path(exists=True, dir_okay=False))
@click.argument("second", type=click.Path(exists=True, dir_okay=False))
@click.option("--bootstrap", type=click.IntRange(1), default=1000, show_default=True, help="Resamples.")
@click.option("--json", "json_output", is_flag=True, help="Write JSON, not tables.")
def compare(first: str, second: str, bootstrap: int, json_output: bool) -> None:
    """Compare two tables of predictions for the same images, as `evaluate --predictions` writes them.

    Shows differences with 95 % bootstrap intervals, and paired tests: t-test, McNemar, DeLong.
    """
    import dataclasses

    with clear_errors():
        from diffmiczoo.evaluation.results import LabelledPredictions
        from diffmiczoo.evaluation.significance import paired_tests, tests_as_markdown

        one, other = LabelledPredictions.load(first), LabelledPredictions.load(second)
        results, gaps = paired_tests(one, other), one.difference(other, bootstrap)
    if json_output:
        tests = [dataclasses.asdict(result) for result in results]
        click.echo(json.dumps({"tests": tests, "difference": gaps}, indent=1))
        return
    click.echo(tests_as_markdown(results) + "\n\n| metric | first - second | 95 % interval |\n|---|---|---|")
    for metric, (gap, low, high) in gaps.items():
        click.echo(f"| {metric} | {gap:+.4f} | {low:+.4f} to {high:+.4f} |")


def _split_of(manifest: Any) -> str:
    return str(manifest.records[0].split or "test")


def _add(path: Path, split: str, report: dict[str, Any]) -> None:
    """Puts a report under the name of its split, beside what is there."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    path.write_text(json.dumps({**known, split: report}, indent=1) + "\n", encoding="utf-8")
