"""`diffmiczoo evaluate`: how good a model is, beside its DCG alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.columns import column_options, data_source, tell
from diffmiczoo.cli.common import (
    OUTPUT_FILE,
    Data,
    batch_size_option,
    bootstrap_option,
    class_names_option,
    device_option,
    format_option,
    model_option,
    split_option,
    threads_option,
)
from diffmiczoo.cli.output import echo_json
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import check_file, read_json_object, write_text
from diffmiczoo.hub.names import parse_model_name

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice
    from diffmiczoo.evaluation.dcg_report import DcgReport


#: Parts of a report that are measured where an option asks for them.
_EXTRAS = ("ablation", "subgroups", "robustness")


@click.command()
@click.argument("data", type=Data())
@model_option()
@split_option
@class_names_option
@column_options(labels=True)
@click.option("--predictions", type=OUTPUT_FILE, help="Write the model's predictions as a CSV.")
@click.option("--dcg-predictions", type=OUTPUT_FILE, help="Write the predictions of its DCG alone as a CSV.")
@click.option("--save", is_flag=True, help="Add the metrics to metrics.json beside the weights of a local-dir:.")
@click.option(
    "--members",
    is_flag=True,
    help="Show also what each prior, their weighted sum and the sampler alone reach, calibrated on split val of DATA.",
)
@click.option(
    "--by",
    metavar="COLUMN",
    multiple=True,
    help="Show the metrics also for each value of a column of DATA's table, such as sex or age; may be repeated.",
)
@click.option(
    "--robustness",
    is_flag=True,
    help="Show also what the model reaches on the images with eight corruptions of three severities each; takes 25 "
    "predictions of each image.",
)
@bootstrap_option(0)
@batch_size_option()
@device_option
@threads_option
@format_option("table", "json")
def evaluate(
    data: str,
    name: str,
    split: str | None,
    class_names: Any,
    choice: ColumnChoice,
    predictions: Path | None,
    dcg_predictions: Path | None,
    save: bool,
    members: bool,
    by: tuple[str, ...],
    robustness: bool,
    bootstrap: int,
    batch_size: int,
    device: str,
    style: str,
) -> None:
    """Measure a model on labelled images DATA, beside its DCG alone, with 95 % bootstrap intervals.

    Without --split these are the images of split test where the data have splits, else all.
    """
    saved = _saved_beside(name) if save else None
    for file, option in ((predictions, "--predictions"), (dcg_predictions, "--dcg-predictions"), (saved, "--save")):
        if file is not None:
            check_file(file, option)
    import diffmiczoo
    from diffmiczoo.data.subgroups import divide
    from diffmiczoo.data.summary import reading_lines
    from diffmiczoo.evaluation.ablation import ablation_of, calibration_images
    from diffmiczoo.evaluation.dcg_report import predict_with_dcg
    from diffmiczoo.evaluation.evaluate import evaluation_split
    from diffmiczoo.evaluation.robustness import robustness_of
    from diffmiczoo.evaluation.subgroups import subgroup_table

    model = diffmiczoo.create_model(name, pretrained=True, device=device)
    tell(())
    manifest = evaluation_split(model.config, data_source(data, choice), split, class_names)
    tell(reading_lines(manifest))
    divisions = [divide(manifest, column) for column in by]
    val = calibration_images(model.config, data_source(data, choice), manifest, class_names) if members else None
    predicted = predict_with_dcg(model, manifest, batch_size)
    for part, path in ((predicted.model, predictions), (predicted.dcg, dcg_predictions)):
        if path is not None:
            part.save(path)
    report = predicted.report(bootstrap)
    if val is not None:
        report = replace(report, ablation=ablation_of(model, val, predicted, manifest, batch_size, bootstrap))
    tables = tuple(subgroup_table(predicted.model, division, bootstrap) for division in divisions)
    corrupted = robustness_of(model, manifest, batch_size=batch_size) if robustness else None
    report = replace(report, subgroups=tables, robustness=corrupted)
    if saved is not None:
        _add(saved, split or manifest.records[0].split or "test", report.to_dict())
    if style == "json":
        echo_json(report.to_dict())
    else:
        _echo(report, plain=model.config.predictor == "classifier")


def _echo(report: DcgReport, *, plain: bool) -> None:
    other, short = ("the same, not calibrated", "not calibrated") if plain else ("its DCG alone", "DCG")
    click.echo(f"model\n{report.model}\n\n{other}\n{report.dcg}")
    for metric, (gap, low, high) in report.difference.items():
        click.echo(f"{f'model - {short}: {metric}':<32} {gap:+.3f} [{low:+.3f}, {high:+.3f}]")
    if report.ablation is not None:
        click.echo(f"\n{report.ablation.table()}\n\n{report.ablation.verdict()}")
    for table in report.subgroups:
        click.echo(f"\n{table.table()}")
    if report.robustness is not None:
        click.echo(f"\n{report.robustness.table()}")


def _saved_beside(name: str) -> Path:
    """Returns the file of metrics beside the weights of a model's name."""
    source = parse_model_name(name)
    if source.kind != "local-dir":
        raise InvalidValueError("--save needs the weights of a local-dir: model; others are not yours to change")
    return source.path / "metrics.json"


def _add(path: Path, split: str, report: dict[str, Any]) -> None:
    """Puts a report under the name of its split, beside what is there.

    What takes long and was not measured this time stays where the model's metrics are the same to the last digit: it
    is about the same weights and images.
    """
    known = read_json_object(path) if path.is_file() else {}
    before = known.get(split)
    if isinstance(before, dict) and _values(before) == _values(report):
        report = {**{name: before[name] for name in _EXTRAS if name in before}, **report}
    write_text(path, json.dumps({**known, split: report}, indent=1) + "\n")


def _values(report: dict[str, Any]) -> Any:
    model = report.get("model")
    return [model.get(name) for name in ("values", "num_images")] if isinstance(model, dict) else None
