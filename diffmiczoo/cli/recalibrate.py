"""`diffmiczoo recalibrate`: calibration and limits of weights for pictures of the place where they are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.columns import column_options, data_source, tell
from diffmiczoo.cli.common import (
    Data,
    batch_size_option,
    class_names_option,
    device_option,
    format_option,
    model_option,
    split_option,
    threads_option,
)
from diffmiczoo.cli.output import echo_json, note
from diffmiczoo.data.medmnist_names import is_medmnist
from diffmiczoo.errors import InvalidValueError

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice
    from diffmiczoo.model import DiffMICv2


@click.command()
@click.argument("data", type=Data())
@model_option()
@click.option(
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the recalibrated weights.",
)
@click.option(
    "--unlabelled",
    is_flag=True,
    help="DATA are pictures without labels: learn from them how frequent the classes are, nothing else.",
)
@split_option
@class_names_option
@column_options(labels=True)
@batch_size_option()
@device_option
@threads_option
@format_option("table", "json")
def recalibrate(
    data: str,
    name: str,
    output: Path,
    unlabelled: bool,
    split: str | None,
    class_names: Any,
    choice: ColumnChoice,
    batch_size: int,
    device: str,
    style: str,
) -> None:
    """Fit probabilities and limits of a model to local labelled images DATA, and write it to a new folder.

    The weights' numbers stay; temperature, pool weights, class offsets, decision rule, prediction sets, deferral and
    the gate's limit are fitted to images from 50 patients or more. The table shows what that is worth, each fifth of
    the patients measured with what was fitted to the others. Without --split these are the images of split val where
    the data have splits, else all. The calibration from before stays in the folder too.
    """
    if unlabelled and is_medmnist(data):
        raise InvalidValueError(f"--unlabelled: {data} is a set of MedMNIST, which has labels; leave --unlabelled out")
    import diffmiczoo
    from diffmiczoo.hub.recalibrated import check_output, save_recalibrated

    if unlabelled:
        _check_unlabelled(split, class_names, choice)
    model = diffmiczoo.create_model(name, pretrained=True, device=device)
    check_output(output, model.loaded_from)
    if unlabelled:
        model.recalibrate(data, batch_size=batch_size)
    else:
        _with_labels(model, data_source(data, choice), split, class_names, batch_size)
    save_recalibrated(model, output)
    found = model.recalibration
    if style == "json" and found is not None:
        echo_json(found.to_dict())
    elif found is not None:
        click.echo(found.table())
    note(f'written to {output}; load it with create_model("local-dir:{output}", pretrained=True)')


def _check_unlabelled(split: str | None, class_names: Any, choice: ColumnChoice) -> None:
    from diffmiczoo.data.columns import ColumnChoice

    if split is not None or class_names is not None or choice != ColumnChoice():
        raise InvalidValueError(
            "--unlabelled takes DATA as pictures, of which no table is read: leave --split, --class-names and options "
            "on columns out"
        )


def _with_labels(model: DiffMICv2, data: Any, split: str | None, class_names: Any, batch_size: int) -> None:
    from diffmiczoo.data.summary import reading_lines

    tell(())
    manifest = model.calibration_images(data, split, class_names)
    tell(reading_lines(manifest))
    items = [record.item() for record in manifest.records]
    model.recalibrate(items, manifest.targets(), groups=manifest.groups(), batch_size=batch_size)
