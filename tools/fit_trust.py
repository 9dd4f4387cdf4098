"""Fits what weights know about their limits (gate, prediction sets, deferral) and stores it with them, as it does the
start noise; the tensors stay bit for bit.

    python tools/fit_trust.py diffmicv2_nano.busi --data ../shared/data/busi --foreign ../shared/data/ham10000 …

The covariance of the gate is that of training pictures, all limits are fitted on the validation split. The report on
the test split and on pictures of other data sets goes into metrics.json ("trust"), as does how the weights hold on
corrupted test pictures ("robustness"). With --output DIRECTORY weights and
report are written there, and the package stays as it is.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch
from release_weights import write_card, write_index
from safetensors.torch import load_file

import diffmiczoo
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.members import collect_members
from diffmiczoo.evaluation.robustness import robustness_of
from diffmiczoo.evaluation.trust import Known, fit_limits, measure_trust, some_of
from diffmiczoo.files import write_text
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE
from diffmiczoo.metrics.trust import TrustReport
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.weights import WEIGHTS, WEIGHTS_DIRECTORY

#: Pictures of each foreign set.
MOST_FOREIGN = 250


def fitted(model: DiffMICv2, data: Path, foreign: tuple[Path, ...]) -> TrustReport:
    """Gives a model what it knows about its limits, and measures it."""
    trust, config, others = fit_limits(model, data), model.config, {}
    test = as_manifest(data, class_names=config.class_names, task=config.task).split("test")
    for path in foreign:
        found = as_manifest(path)
        some = some_of(found.split("test") if found.has_splits else found, MOST_FOREIGN)
        others[path.stem] = collect_members(model, some).features
    return measure_trust(trust, config, Known.of(collect_members(model, test), test, config), others)


@click.command()
@click.argument("name", type=click.Choice(sorted(WEIGHTS)))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="What they were trained on.")
@click.option("--foreign", multiple=True, type=click.Path(exists=True, path_type=Path), help="Pictures of other kinds.")
@click.option("--output", type=click.Path(path_type=Path), help="Write weights and trust.json there instead.")
def main(name: str, data: Path, foreign: tuple[Path, ...], output: Path | None) -> None:
    """Fit what shipped weights NAME know about their limits."""
    model = diffmiczoo.create_model(name, pretrained=True)
    report = fitted(model, data, foreign)
    directory = WEIGHTS_DIRECTORY / name if output is None else output
    before = load_file(WEIGHTS_DIRECTORY / name / "model.safetensors")
    model.save_pretrained(directory, dtype=torch.float16)
    after = load_file(directory / "model.safetensors")
    if before.keys() != after.keys() or not all(torch.equal(before[key], after[key]) for key in before):
        raise click.ClickException(f"{name}: the tensors are not those from before; restore {directory}")
    if output is None:
        metrics = json.loads((directory / METRICS_FILE).read_text(encoding="utf-8"))
        metrics["trust"] = report.to_dict()
        test = as_manifest(data, class_names=model.config.class_names, task=model.config.task).split("test")
        metrics["test"]["robustness"] = robustness_of(model, test).to_dict()
        (directory / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        write_card(directory, name, json.loads((directory / CARD_FILE).read_text(encoding="utf-8")))
        write_index(directory, name)
    else:
        write_text(directory / "trust.json", json.dumps(report.to_dict(), indent=1) + "\n")
    click.echo(f"{name}\n{report.table()}")


if __name__ == "__main__":
    main()
