"""How many runs of the sampler an answer needs: metrics of the test split with each number, calibrated for it.

    python tools/runs_study.py diffmicv2_nano.busi --data ../shared/data/busi

Temperature and weights of the priors are fitted on the validation split for each number of runs; labels are the most
probable class. Prints a Markdown table.
"""

from __future__ import annotations

from pathlib import Path

import click

import diffmiczoo
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.members import collect_members
from diffmiczoo.metrics.calibration import fit_calibration
from diffmiczoo.metrics.classification import compute_metrics

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "nll")


@click.command()
@click.argument("names", nargs=-1, required=True)
@click.option(
    "--data", "folders", multiple=True, type=click.Path(exists=True, path_type=Path), help="One for each NAME."
)
@click.option("--runs", default="1,2,4,8,32", help="Numbers of runs.")
def main(names: tuple[str, ...], folders: tuple[Path, ...], runs: str) -> None:
    """Measure weights NAMES with each number of runs."""
    click.echo(
        "| weights | steps × runs | accuracy | balanced | macro F1 | AUROC | NLL |\n|---|---|---|---|---|---|---|"
    )
    for name, data in zip(names, folders, strict=True):
        for count in map(int, runs.split(",")):
            click.echo(_row(name, data, count))


def _row(name: str, data: Path, count: int) -> str:
    model = diffmiczoo.create_model(name, pretrained=True)
    model.trust = None
    model.config = model.config.uncalibrated().replace(num_samples=count)
    manifest = as_manifest(data, class_names=model.config.class_names, task=model.config.task)
    val, test = (collect_members(model, manifest.split(split)) for split in ("val", "test"))
    config = model.config.replace(**fit_calibration(val.scores, val.members, val.targets, model.config))
    values = compute_metrics(
        test.probs(config),
        test.targets,
        task=config.task,
        class_names=config.class_names,
        ordinal=config.ordinal,
        bootstrap=0,
    ).values
    cells = " | ".join(f"{values[metric]:.3f}" for metric in SHOWN)
    return f"| `{name}` | {config.sampling_steps} × {count} | {cells} |"


if __name__ == "__main__":
    main()
