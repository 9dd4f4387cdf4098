"""Turns the best weights of a run into a weights entry of the package: float16 file, config, metrics, card.

    python tools/release_weights.py RUN ENTRY DATA FACTS --commands COMMANDS.txt

FACTS is a JSON file with `data_source`, `split` and `limits` for the card (tools/facts/). COMMANDS.txt holds the
commands that made RUN, for the card. Fields given with --config (sampling steps, runs) go into the config. The
temperature is fitted on the validation split for the stored float16 file, and the metrics are those of that file.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import torch

import diffmiczoo
from diffmiczoo.card import CardFacts, render_card
from diffmiczoo.data.manifest import Manifest, read_manifest
from diffmiczoo.entries import ENTRIES
from diffmiczoo.evaluation.calibration import fit_temperature
from diffmiczoo.evaluation.evaluate import probabilities
from diffmiczoo.evaluation.metrics import Metrics, compare_metrics, compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.prediction import score_logits

WEIGHTS = Path(diffmiczoo.__file__).parent / "weights"


def _fitted_temperature(model: DiffMICv2, validation: Manifest) -> float:
    scores = model.predict([record.path for record in validation.records]).scores
    logits = score_logits(scores, model.config)
    return fit_temperature(logits, torch.from_numpy(validation.targets()), task=model.config.task)


def _measured(model: DiffMICv2, split: Manifest) -> dict[str, Any]:
    """Returns the metrics of the model and of its DCG alone, and their differences, for the images of one split."""
    probs = {part: probabilities(model, split, dcg_alone=part == "dcg") for part in ("model", "dcg")}
    targets, groups, task = split.targets(), split.groups(), model.config.task
    names = model.config.labels
    report: dict[str, Any] = {
        part: compute_metrics(rows, targets, task=task, class_names=names, groups=groups).to_dict()
        for part, rows in probs.items()
    }
    return report | {"difference": compare_metrics(*probs.values(), targets, task=task, groups=groups)}


def _release_command(run: Path, entry: str, data: Path, facts: Path, fields: tuple[str, ...]) -> str:
    options = "".join(f" --config {text}" for text in fields)
    shown = f"runs/{run.name} {entry} {data.name} {facts}"
    return f"python tools/release_weights.py {shown} --commands COMMANDS.txt{options}"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("entry", type=click.Choice(sorted(ENTRIES)))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("facts", type=click.Path(exists=True, path_type=Path))
@click.option("--commands", required=True, type=click.Path(exists=True, path_type=Path), help="What made RUN.")
@click.option("--commit", help="Of the code that made RUN; the current one by default.")
@click.option("--config", "fields", multiple=True, metavar="FIELD=JSON", help="Change how the entry samples.")
def main(
    run: Path, entry: str, data: Path, facts: Path, commands: Path, commit: str | None, fields: tuple[str, ...]
) -> None:
    """Releases RUN/best as the weights ENTRY, measured on the test split of DATA."""
    target = WEIGHTS / entry
    model = diffmiczoo.create_model(f"local-dir:{run / 'best'}", pretrained=True)
    model.config = model.config.replace(**{name: json.loads(text) for name, text in (f.split("=") for f in fields)})
    model.weights_name = entry
    model.save_pretrained(target, dtype=torch.float16)
    manifest = read_manifest(data, class_names=model.config.class_names, task=model.config.task)
    stored = diffmiczoo.create_model(f"local-dir:{target}", pretrained=True)
    stored.config = stored.config.replace(temperature=_fitted_temperature(stored, manifest.split("val")))
    stored.save_pretrained(target, dtype=torch.float16)

    report = {split: _measured(stored, manifest.split(split)) for split in ("val", "test")}
    (target / "metrics.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    model_metrics, dcg_metrics = (Metrics.from_dict(report["test"][part]) for part in ("model", "dcg"))

    given = json.loads(facts.read_text(encoding="utf-8"))
    card = render_card(
        ENTRIES[entry],
        stored.config,
        CardFacts(
            model=model_metrics,
            dcg=dcg_metrics,
            differences=report["test"]["difference"],
            counts={split: len(manifest.split(split)) for split in ("train", "val", "test")},
            parameters=sum(parameter.numel() for parameter in stored.parameters()),
            commands=(
                *commands.read_text(encoding="utf-8").strip().splitlines(),
                _release_command(run, entry, data, facts, fields),
                f"diffmiczoo predict {data.name}/labels.csv --split test --model {entry} --format csv",
            ),
            commit=commit or git("rev-parse", "HEAD"),
            data_source=given["data_source"],
            split=given["split"],
            limits=tuple(given["limits"]),
        ),
    )
    (target / "README.md").write_text(card, encoding="utf-8")
    click.echo(f"model\n{model_metrics}\n\ndcg\n{dcg_metrics}\n\n{json.dumps(report['test']['difference'])}")
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    click.echo(f"{target}: {size:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
