"""`diffmiczoo reproduce`: the paper's tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from diffmiczoo.cli.common import Data, Names, device_option, threads_option
from diffmiczoo.cli.output import note


@click.command()
@click.argument("table")
@click.option(
    "--data",
    type=Data(),
    metavar="PATH",
    help="Folder of data sets, or one of them: folder, table, .npz, medmnist:NAME.",
)
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Directory; several tables share one.")
@click.option("--budget", type=click.Choice(["small", "full"]), default="small", show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Runs of each row.")
@click.option(
    "--methods", type=Names(), metavar="NAME,...", help="Rows of tables 1, 2, 3 and 6; by default the budget's."
)
@click.option(
    "--protocol",
    "protocols",
    type=click.Choice(["paper", "grouped"]),
    multiple=True,
    help="How pictures are split: by image as in the paper, or relatives together; by default the table's; may be "
    "repeated.",
)
@click.option(
    "--dataset", "datasets", metavar="NAME", multiple=True, help="Of the table's data sets only this; may be repeated."
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at once.")
@click.option("--dry-run", is_flag=True, help="List the runs and what they take, and do none.")
@click.option("--tables-only", is_flag=True, help="Make the table from the runs that are there.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@device_option
@threads_option
def reproduce(
    table: str,
    data: str | None,
    output: str,
    budget: str,
    seeds: int,
    methods: Any,
    protocols: tuple[str, ...],
    datasets: tuple[str, ...],
    jobs: int,
    dry_run: bool,
    tables_only: bool,
    quiet: bool,
    device: str,
) -> None:
    """Make a table or figure of the paper, TABLE, from your data: by the paper's split and by a leak-free one.

    table1 PMG2000 (BUSI in its place), table2 HAM10000 and APTOS2019, table3 ChestX-ray14, table4 the ablation, table5
    and fig4 the sweeps of K, Np and H, table6 costs, fig3 maps, fig5 features of each step, fig6 convergence.

    A run that was stopped goes on when the command is given again; finished ones are not repeated. Of budget small
    everything is small, so that two cores can do it; budget full is the paper's setting and needs a GPU.
    """
    from diffmiczoo.reporting.reproduction.dry_run import listing
    from diffmiczoo.reporting.reproduction.reproduce import plan_reproduction
    from diffmiczoo.reporting.reproduction.reproduce import reproduce as make

    if dry_run:
        plan = plan_reproduction(
            table, data, budget=budget, seeds=seeds, methods=methods or (), protocols=protocols, datasets=datasets
        )
        click.echo(listing(plan, Path(output), device))
        return
    try:
        made = make(
            table,
            data,
            output,
            budget=budget,
            seeds=seeds,
            methods=methods or (),
            protocols=protocols,
            datasets=datasets,
            jobs=jobs,
            device=device,
            tables_only=tables_only,
            progress=False if quiet else None,
            say=_silent if quiet else note,
        )
    except KeyboardInterrupt as interruption:
        stopped = str(interruption) or "stopped"
        raise KeyboardInterrupt(f"{stopped}; to go on, give the same command again") from interruption
    click.echo(made)


def _silent(line: str) -> None:
    """Takes a line of progress that nobody wants to see."""
