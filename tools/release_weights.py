"""Turns the best weights of a run into a weights entry of the package: float16 file, config, metrics, card.

    python tools/release_weights.py RUN ENTRY DATA FACTS --train-command "..."

FACTS is a JSON file with `data_source`, `split` and `limits` for the card (tools/facts/). The metrics are those of
the stored float16 file, read back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import torch

import diffmiczoo
from diffmiczoo.card import CardFacts, render_card
from diffmiczoo.data.manifest import read_manifest
from diffmiczoo.entries import ENTRIES
from diffmiczoo.evaluation.evaluate import evaluate

WEIGHTS = Path(diffmiczoo.__file__).parent / "weights"


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


@click.command()
@click.argument("run", type=click.Path(exists=True, path_type=Path))
@click.argument("entry", type=click.Choice(sorted(ENTRIES)))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("facts", type=click.Path(exists=True, path_type=Path))
@click.option("--train-command", required=True, help="The command that made RUN.")
@click.option("--commit", help="Of the code that made RUN; the current one by default.")
def main(run: Path, entry: str, data: Path, facts: Path, train_command: str, commit: str | None) -> None:
    """Releases RUN/best as the weights ENTRY, measured on the test split of DATA."""
    target = WEIGHTS / entry
    model = diffmiczoo.create_model(f"local-dir:{run / 'best'}", pretrained=True)
    model.weights_name = entry
    model.save_pretrained(target, dtype=torch.float16)
    stored = diffmiczoo.create_model(f"local-dir:{target}", pretrained=True)

    manifest = read_manifest(data, class_names=stored.config.class_names, task=stored.config.task)
    measured = {
        split: {
            "model": evaluate(stored, manifest, split=split),
            "dcg": evaluate(stored, manifest, split=split, dcg_alone=True),
        }
        for split in ("val", "test")
    }
    report = {split: {part: metrics.to_dict() for part, metrics in row.items()} for split, row in measured.items()}
    (target / "metrics.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    given = json.loads(facts.read_text(encoding="utf-8"))
    card = render_card(
        ENTRIES[entry],
        stored.config,
        CardFacts(
            model=measured["test"]["model"],
            dcg=measured["test"]["dcg"],
            counts={split: len(manifest.split(split)) for split in ("train", "val", "test")},
            parameters=sum(parameter.numel() for parameter in stored.parameters()),
            commands=(
                train_command,
                f'python tools/release_weights.py {run} {entry} {data.name} {facts} --train-command "…"',
                f"diffmiczoo predict {data.name}/labels.csv --split test --model {entry} --format csv",
            ),
            commit=commit or git("rev-parse", "HEAD"),
            data_source=given["data_source"],
            split=given["split"],
            limits=tuple(given["limits"]),
        ),
    )
    (target / "README.md").write_text(card, encoding="utf-8")
    for split, row in measured.items():
        for part, metrics in row.items():
            click.echo(f"{split} {part}\n{metrics}\n")
    size = sum(path.stat().st_size for path in target.iterdir()) / 1e6
    click.echo(f"{target}: {size:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
