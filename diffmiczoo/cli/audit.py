"""`diffmiczoo audit`: what is wrong with labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.columns import column_options, data_source, tell
from diffmiczoo.cli.common import (
    TASKS,
    Data,
    batch_size_option,
    class_names_option,
    device_option,
    format_option,
    threads_option,
)
from diffmiczoo.cli.output import echo_json
from diffmiczoo.files import check_directory

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice


@click.command()
@click.argument("data", type=Data())
@click.option("--model", "name", metavar="NAME", help="Rank labels by how confidently this model contradicts them.")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Directory for audit.html and audit.json."
)
@column_options(labels=True)
@class_names_option
@click.option("--task", type=click.Choice(TASKS), help="By default what the labels tell.")
@batch_size_option()
@device_option
@threads_option
@format_option("table", "json")
@click.pass_context
def audit(
    ctx: click.Context,
    data: str,
    name: str | None,
    output: Path | None,
    choice: ColumnChoice,
    class_names: Any,
    task: str | None,
    batch_size: int,
    device: str,
    style: str,
) -> None:
    """Look for what is wrong with labelled images DATA, before anything is trained on them. No model is needed.

    Unreadable files, copies, groups and copies in two splits, conflicting labels, classes without images, statistics
    that give the label away; with --model also labels that it contradicts. Exit status 1 where something is wrong.
    The page shows some of the images; it needs no other file and no network.
    """
    if output is not None:
        check_directory(output)
    import diffmiczoo
    from diffmiczoo.data.summary import count_lines, reading_lines
    from diffmiczoo.evaluation.audit import audited
    from diffmiczoo.reporting.audit_page import write_audit

    tell(())
    manifest = audited(data_source(data, choice), class_names=class_names, task=task)
    tell([*count_lines(manifest), *reading_lines(manifest)])
    model = None if name is None else diffmiczoo.create_model(name, pretrained=True, device=device)
    report = diffmiczoo.audit(manifest, model=model, model_name=name or "", batch_size=batch_size)
    if output is not None:
        write_audit(report, manifest, output)
    if style == "json":
        echo_json(report.to_dict())
    else:
        click.echo(report)
    ctx.exit(int(report.wrong))
