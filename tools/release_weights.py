"""Turns the best weights of a run into a weights entry of the package: float16 file, config, metrics, card.

    python tools/release_weights.py RUN... ENTRY DATA FACTS --commands COMMANDS.txt

Of several RUNs that differ in the seed only, the one that is best on the validation split is released, by the metric
that its recipe selects epochs with, and the card tells mean and standard deviation of all. FACTS is a JSON file with
`training_data`, `split` and `limits` for the card (tools/facts/). COMMANDS.txt holds the commands that made the RUNs,
for the card. Fields given with --config (sampling steps, runs) go into the config. Temperature and prior
weight are fitted on the validation split for the stored float16 file, and the metrics are those of that file.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from logistic import logistic_on_features
from torch import Tensor

from diffmiczoo.cli.common import assignments
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.evaluation.ablation import ablate
from diffmiczoo.evaluation.dcg_report import predict_with_dcg
from diffmiczoo.evaluation.members import collect_members
from diffmiczoo.hub.card import render_card, render_license
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE, read_facts
from diffmiczoo.hub.checklist import CHECKLIST_FILE, render_checklist
from diffmiczoo.hub.checksums import sha256_of
from diffmiczoo.hub.client import FILES
from diffmiczoo.hub.licenses import LICENSE_FILE
from diffmiczoo.inference.probabilities import scores_to_probs
from diffmiczoo.metrics.calibration import fit_calibration, pseudo_images
from diffmiczoo.metrics.decisions import fit_decision
from diffmiczoo.metrics.pool import TEMPERATURE_RANGE, fit_pool
from diffmiczoo.metrics.report import Metrics
from diffmiczoo.metrics.table import find_metric
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.weights import INDEX, INTENDED_USE, WEIGHTS, WEIGHTS_DIRECTORY

#: Of the validation images into halves, for what a member of the pool is worth.
_DIVISIONS = 10


def _calibrated(config: DiffMICConfig, model: DiffMICv2, validation: Manifest, balance_labels: float) -> DiffMICConfig:
    """Returns the config with all that is fitted on validation images."""
    found = model.predict([record.item() for record in validation.records])
    targets = torch.from_numpy(validation.targets())
    base = config.uncalibrated()
    fitted = base.replace(**released_calibration(found.scores, found.members, targets, base))
    return fit_decision(scores_to_probs(found.scores, fitted, found.members), targets, fitted, balance_labels)


def released_calibration(scores: Tensor, members: Tensor, targets: Tensor, config: DiffMICConfig) -> dict[str, Any]:
    """Returns `fit_calibration`'s fields; the sampler has next to no say in them unless it is worth it.

    It is where ŷ_g and ŷ_l with it are more likely than without on validation images that they were not fitted to, by
    more than one standard error: the second stage has seen the training images as often as the priors have, and
    errs with more certainty.
    """
    fitted = fit_calibration(scores, members, targets, config)
    if config.predictor != "diffusion" or "prior_weight" not in fitted:
        return fitted
    gains = torch.zeros(len(targets), dtype=torch.float64)
    for seed in range(_DIVISIONS):
        halves = torch.from_numpy(np.random.default_rng(seed).permutation(len(targets)) % 2)
        for half in (0, 1):
            there, here = halves != half, halves == half
            parts = (scores[there], members[there], targets[there])
            both = (_without_sampler(*parts, config), fit_calibration(*parts, config))
            losses = [
                _losses(scores_to_probs(scores[here], config.replace(**each), members[here]), targets[here])
                for each in both
            ]
            gains[here] += (losses[0] - losses[1]) / _DIVISIONS
    mean, error = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
    kept = mean > error
    click.echo(f"the sampler gains {mean:+.4f} ± {error:.4f} in NLL on validation: {'kept' if kept else 'left out'}")
    return fitted if kept else _without_sampler(scores, members, targets, config)


def _without_sampler(scores: Tensor, members: Tensor, targets: Tensor, config: DiffMICConfig) -> dict[str, Any]:
    pool = fit_pool(None, members[:, :2], targets, task=config.task, pseudo_images=pseudo_images(len(scores)))
    return {"temperature": TEMPERATURE_RANGE[1], "prior_weight": pool.weights}


def _losses(probs: Tensor, targets: Tensor) -> Tensor:
    """Returns the negative log-likelihood of each image, (N,)."""
    logs = probs.double().clamp_min(1e-12).log()
    if targets.ndim == 1:
        return -logs.gather(1, targets[:, None])[:, 0]
    return -(targets * logs + (1 - targets) * (1 - probs.double()).clamp_min(1e-12).log()).sum(1)


@dataclass(frozen=True)
class _Candidate:
    """A run as it would be released: float16 weights in `directory`, calibrated, and measured.

    `quality` is on the validation split, and more is better.
    """

    run: Path
    directory: Path
    seed: int
    quality: float
    report: dict[str, Any]


def _candidate(run: Path, directory: Path, entry: str, data: Path, fields: tuple[str, ...]) -> _Candidate:
    model = DiffMICv2.from_pretrained(run / "best")
    model.config = model.config.replace(**assignments(fields))
    model.weights_name = entry
    manifest = read_manifest(data, class_names=model.config.class_names, task=model.config.task)
    model.save_pretrained(directory, dtype=torch.float16)
    stored = DiffMICv2.from_pretrained(directory)
    recipe = recipe_of(run)
    stored.config = _calibrated(stored.config, stored, manifest.split("val"), recipe.get("balance_labels", 0.0))
    stored.save_pretrained(directory, dtype=torch.float16)
    report = {split: predict_with_dcg(stored, manifest.split(split)).report().to_dict() for split in ("val", "test")}
    quality = find_metric(recipe["select"]).quality(report["val"]["model"]["values"][recipe["select"]])
    return _Candidate(run, directory, recipe["seed"], quality, report)


def _seeds(candidates: list[_Candidate]) -> dict[str, dict[int, dict[str, float]]]:
    return {
        part: {candidate.seed: candidate.report["test"][part]["values"] for candidate in candidates}
        for part in ("model", "dcg")
    }


def _ablation(directory: Path, data: Path) -> dict[str, Any]:
    """Returns what each member of a diffusion's pool is worth, for metrics.json; nothing without a second stage."""
    model = DiffMICv2.from_pretrained(directory)
    config = model.config
    if config.predictor != "diffusion":
        return {}
    manifest = read_manifest(data, class_names=config.class_names, task=config.task)
    train, val, test = (collect_members(model, manifest.split(split)) for split in ("train", "val", "test"))
    logistic = logistic_on_features(train, val, test, config.task)
    return {"ablation": ablate(config, val, test, manifest.split("test"), logistic=logistic).to_dict()}


def recipe_of(run: Path) -> dict[str, Any]:
    """Returns the recipe that a run was trained with."""
    recipe: dict[str, Any] = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    return recipe


def _release_command(runs: tuple[Path, ...], entry: str, data: Path, facts: Path, fields: tuple[str, ...]) -> str:
    options = "".join(f" --config {text}" for text in fields)
    shown = f"{' '.join(f'runs/{run.name}' for run in runs)} {entry} {data.name} {facts}"
    return f"python tools/release_weights.py {shown} --commands COMMANDS.txt{options}"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def write_card(directory: Path, entry: str, facts: dict[str, Any]) -> None:
    """Writes the card and what goes with it beside weights and metrics, from the facts that `push` would publish."""
    (directory / CARD_FILE).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    model = DiffMICv2.from_pretrained(directory)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    known = read_facts(directory)
    card = render_card(entry, model.config, parameters, known)
    texts = {
        "README.md": card,
        CHECKLIST_FILE: render_checklist(entry, model.config, known),
        LICENSE_FILE: render_license(entry, model.config, known),
    }
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")


def write_index(directory: Path, entry: str) -> None:
    """Writes down what the entry's files hold; every load compares them with it."""
    index = json.loads(INDEX.read_text(encoding="utf-8"))
    files = {name: {"sha256": sha256_of(directory / name), "size": (directory / name).stat().st_size} for name in FILES}
    index[entry] = {"files": files, "revision": None}
    INDEX.write_text(json.dumps(index, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("entry", type=click.Choice(sorted(WEIGHTS)))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("facts", type=click.Path(exists=True, path_type=Path))
@click.option("--commands", required=True, type=click.Path(exists=True, path_type=Path), help="What made the RUNs.")
@click.option("--commit", help="Of the code that made the RUNs; the current one by default.")
@click.option("--config", "fields", multiple=True, metavar="FIELD=JSON", help="Change how the entry samples.")
def main(
    runs: tuple[Path, ...],
    entry: str,
    data: Path,
    facts: Path,
    commands: Path,
    commit: str | None,
    fields: tuple[str, ...],
) -> None:
    """Releases the best of RUNS as the weights ENTRY, measured on the test split of DATA."""
    with tempfile.TemporaryDirectory(dir=WEIGHTS_DIRECTORY, prefix=".releasing-") as temporary:
        candidates = [_candidate(run, Path(temporary) / run.name, entry, data, fields) for run in runs]
        best = max(candidates, key=lambda candidate: candidate.quality)
        for candidate in candidates:
            click.echo(f"{candidate.run.name}: seed {candidate.seed}, {candidate.quality:.4f} on the validation split")
        manifest = read_manifest(data)
        best.report["test"] |= _ablation(best.directory, data)
        report = best.report | ({"seeds": _seeds(candidates)} if len(candidates) > 1 else {})
        (best.directory / METRICS_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        known = {
            "description": WEIGHTS[entry].description,
            "dataset": WEIGHTS[entry].dataset.name,
            "license": WEIGHTS[entry].dataset.weights_license,
            "data_license": WEIGHTS[entry].dataset.data_license,
            "intended_use": INTENDED_USE,
            "counts": {split: len(manifest.split(split)) for split in ("train", "val", "test")},
            "commands": [
                *commands.read_text(encoding="utf-8").strip().splitlines(),
                _release_command(runs, entry, data, facts, fields),
                f"diffmiczoo predict {data.name}/labels.csv --split test --model {entry} --format csv",
            ],
            "commit": commit or git("rev-parse", "HEAD"),
        }
        write_card(best.directory, entry, known | json.loads(facts.read_text(encoding="utf-8")))
        write_index(best.directory, entry)
        shutil.rmtree(WEIGHTS_DIRECTORY / entry, ignore_errors=True)
        shutil.copytree(best.directory, WEIGHTS_DIRECTORY / entry)
    for part in ("model", "dcg"):
        click.echo(f"{part}\n{Metrics.from_dict(report['test'][part])}\n")
    click.echo(f"differences {json.dumps(report['test']['difference'])}")


if __name__ == "__main__":
    sys.exit(main())
