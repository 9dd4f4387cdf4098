"""Puts a plain classifier of the same budget beside weights that ship: runs with several seeds, on the same test split.

    python tools/compare_plain.py diffmicv2_nano.busi ../shared/data/busi RUN RUN RUN --commands COMMANDS.txt

COMMANDS.txt holds the commands that made the RUNs. All their metrics go into metrics.json ("opponent"), and the paired
differences of the weights to the RUN that is best on the validation split; the card is written anew.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import click
from release_weights import recipe_of, write_card

from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.dcg_report import predict_with_dcg
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.trainer import HISTORY_FILE
from diffmiczoo.zoo.weights import WEIGHTS, WEIGHTS_DIRECTORY


def opponent(runs: tuple[Path, ...], own: Path, data: Path) -> dict[str, Any]:
    """Returns what plain classifiers reach on the test images of the weights in `own`, for metrics.json."""
    model = DiffMICv2.from_pretrained(own)
    manifest = read_manifest(data, class_names=model.config.class_names, task=model.config.task).split("test")
    found = {run: DiffMICv2.from_pretrained(run / "best") for run in runs}
    names = {each.config.dcg_encoder for each in found.values() if each.config.predictor == "classifier"}
    if len(names) != 1:
        raise click.ClickException(f"expected runs of one plain classifier, found {sorted(names) or 'none'}")
    predicted = {run: predict_with_dcg(each, manifest).model for run, each in found.items()}
    best = max(runs, key=_validated)
    difference = predict_with_dcg(model, manifest).model.difference(predicted[best])
    seeds = {str(recipe_of(run)["seed"]): predicted[run].metrics(bootstrap=0).values for run in runs}
    return {"name": f"timm/{names.pop()}", "seeds": seeds, "differences": difference}


def _validated(run: Path) -> float:
    """Returns how good a run is on the validation split, by the metric that its recipe selects epochs with."""
    name = recipe_of(run)["select"]
    with (run / HISTORY_FILE).open(newline="") as file:
        values = [find_metric(name).quality(float(row[name])) for row in csv.DictReader(file) if row.get(name)]
    return max(values)


@click.command()
@click.argument("entry", type=click.Choice(sorted(WEIGHTS)))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--commands", required=True, type=click.Path(exists=True, path_type=Path), help="What made the RUNs.")
def main(entry: str, data: Path, runs: tuple[Path, ...], commands: Path) -> None:
    """Compare shipped weights ENTRY with RUNS of a plain classifier on the test split of DATA."""
    directory = WEIGHTS_DIRECTORY / entry
    metrics = json.loads((directory / METRICS_FILE).read_text(encoding="utf-8"))
    metrics["opponent"] = opponent(runs, directory, data)
    (directory / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    facts = json.loads((directory / CARD_FILE).read_text(encoding="utf-8"))
    made = commands.read_text(encoding="utf-8").strip().splitlines()
    shown = f"{entry} {data.name} {' '.join(f'runs/{run.name}' for run in runs)}"
    made.append(f"python tools/compare_plain.py {shown} --commands COMMANDS.txt")
    facts["commands"] = [line for line in facts["commands"] if line not in made] + made
    write_card(directory, entry, facts)
    click.echo(json.dumps(metrics["opponent"], indent=1))


if __name__ == "__main__":
    main()
