"""`diffmiczoo report`: one page about a model and labelled images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.columns import column_options, data_source, tell
from diffmiczoo.cli.common import (
    Data,
    batch_size_option,
    bootstrap_option,
    class_names_option,
    device_option,
    model_option,
    split_option,
    threads_option,
)
from diffmiczoo.errors import warn
from diffmiczoo.files import check_directory

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice
    from diffmiczoo.data.manifest import Manifest
    from diffmiczoo.training.fit import TrainingResult
    from diffmiczoo.training.plan import Plan


@click.command()
@click.argument("data", type=Data())
@model_option()
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Directory of the page and its numbers.")
@split_option
@class_names_option
@column_options(labels=True)
@click.option("--against", metavar="NAME", multiple=True, help="Another model on the same images; may be repeated.")
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
@click.option(
    "--members",
    is_flag=True,
    help="Show also what each prior, their weighted sum and the sampler alone reach, calibrated on split val of DATA.",
)
@click.option(
    "--pictures",
    type=click.IntRange(0),
    default=12,
    show_default=True,
    help="How many of the confident errors, and as many of the least sure images, are shown; 0 for none.",
)
@click.option(
    "--explain",
    metavar="METHOD",
    help="Draw another map than the saliency on the images shown, as for `predict --explain`.",
)
@bootstrap_option(0)
@batch_size_option()
@device_option
@threads_option
def report(
    data: str,
    name: str,
    output: Path,
    choice: ColumnChoice,
    against: tuple[str, ...],
    device: str,
    **options: Any,
) -> None:
    """Write one page about a model on labelled images DATA: OUTPUT/report.html, and its numbers as report.json.

    Without --split these are the images of split test where the data have splits, else all. The page needs no other
    file and no network. It shows some of the images.
    """
    check_directory(output)
    import diffmiczoo

    model = diffmiczoo.create_model(name, pretrained=True, device=device)
    others = {other: diffmiczoo.create_model(other, pretrained=True, device=device) for other in against}
    tell(())
    found = diffmiczoo.report(model, data_source(data, choice), output, against=others, **options)
    tell(found.data.notes)
    click.echo(f"{output / 'report.html'}: {found.quality.model.headline()}")


def report_run(result: TrainingResult, plan: Plan, progress: bool | None) -> None:
    """Writes a page about a finished run for its validation and its test images; one that fails is a warning."""
    from diffmiczoo.reporting.report import ReportOptions, write_report

    if os.environ.get("RANK", "0") != "0":  # of several processes the first one writes
        return
    options = ReportOptions(run=result.output, progress=progress)
    for split, manifest in _splits(plan).items():
        directory = result.output / f"report-{split}"
        try:
            write_report(result.model, manifest, directory, options)
        except Exception as error:  # the weights are on the disk by now
            warn(f"{directory} could not be written ({type(error).__name__}: {error}); the weights are complete")
        else:
            click.echo(f"report on {len(manifest):,} images of split {split}: {directory / 'report.html'}")


def _splits(plan: Plan) -> dict[str, Manifest]:
    test = plan.whole.with_records(record for record in plan.whole.records if record.split == "test")
    return {"val": plan.val, **({"test": test} if len(test) else {})}
