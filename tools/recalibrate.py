"""Fits the calibration of shipped weights anew, on the validation split alone, without training anything.

For pictures of another place see `diffmiczoo recalibrate`, which starts from the calibration that there is.

    python tools/recalibrate.py diffmicv2_nano.busi --data ../shared/data/busi

Rewrites the entry's config, metrics, card and digests, and the stored predictions of its test split. The tensors stay
bit for bit; of the seeds' runs nothing but their metrics is left, so that those keep the calibration they had. What
the model says of the pictures is kept in a temporary folder, for a second run. Afterwards `tools/fit_trust.py` fits
what the weights know about their limits.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import click
import torch
from logistic import logistic_on_features
from release_weights import released_calibration, write_card, write_index
from safetensors.torch import load_file
from store_predictions import store

import diffmiczoo
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.ablation import ablate
from diffmiczoo.evaluation.dcg_report import PredictionsWithDcg
from diffmiczoo.evaluation.members import MemberLogits, collect_members
from diffmiczoo.hub.card_facts import CARD_FILE, METRICS_FILE
from diffmiczoo.metrics.decisions import fit_decision
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.weights import WEIGHTS, WEIGHTS_DIRECTORY

#: Of runs whose weights are not kept.
SEEDS_NOTE = "The runs were measured with the calibration that each had at first; their predictions are not kept."


def kept_members(name: str, model: DiffMICv2, images: Manifest, split: str) -> MemberLogits:
    """Returns what a model's members say of the pictures of a split, from the temporary folder where it is there."""
    path = Path(tempfile.gettempdir()) / "diffmiczoo-members" / f"{name}-{split}.pt"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        torch.save(vars(collect_members(model, images)), path)
    found = MemberLogits(**torch.load(path))
    if found.targets.tolist() != images.targets().tolist():
        raise click.ClickException(f"{path} is of other pictures; remove it")
    return found


@click.command()
@click.argument("name", type=click.Choice(sorted(WEIGHTS)))
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="What they were trained on.")
def main(name: str, data: Path) -> None:
    """Fit the calibration of shipped weights NAME anew."""
    directory = WEIGHTS_DIRECTORY / name
    tensors = load_file(directory / "model.safetensors")
    model = diffmiczoo.create_model(name, pretrained=True)
    manifest = as_manifest(data, class_names=model.config.class_names, task=model.config.task)
    images = {split: manifest.split(split) for split in ("train", "val", "test")}
    members = {split: kept_members(name, model, images[split], split) for split in images}
    before, val, config = model.config, members["val"], model.config.uncalibrated()
    config = config.replace(**released_calibration(val.scores, val.members, val.targets, config))
    facts = json.loads((directory / CARD_FILE).read_text(encoding="utf-8"))
    balance = re.search(r"balance_labels=([\d.]+)", " ".join(facts["commands"]))
    model.config = config = fit_decision(val.probs(config), val.targets, config, float(balance[1]) if balance else 0.0)
    metrics = json.loads((directory / METRICS_FILE).read_text(encoding="utf-8"))
    if "seeds" in metrics:
        metrics.setdefault("seeds_note", SEEDS_NOTE)
    for split in ("val", "test"):
        each = members[split]
        both = PredictionsWithDcg.of(images[split], each.probs(config), each.dcg_probs(config), config)
        metrics[split] = both.report().to_dict()
    logistic = logistic_on_features(members["train"], val, members["test"], config.task)
    ablation = ablate(config, val, members["test"], images["test"], logistic=logistic)
    metrics["test"]["ablation"] = ablation.to_dict()
    if config != before:
        model.trust = None
        metrics.pop("trust", None)
        click.echo(f"{name}: what it knew about its limits was fitted to the old calibration; run tools/fit_trust.py")
    if config != before:  # the file's bytes would change without a reason: its metadata have no order
        model.save_pretrained(directory, dtype=torch.float16)
    after = load_file(directory / "model.safetensors")
    if tensors.keys() != after.keys() or not all(torch.equal(tensors[key], after[key]) for key in tensors):
        raise click.ClickException(f"{name}: the tensors are not those from before; restore {directory}")
    (directory / METRICS_FILE).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    write_card(directory, name, facts)
    write_index(directory, name)
    test = members["test"]
    store(name, images["test"], test.probs(config), test.dcg_probs(config))
    click.echo(f"{name}: temperature {config.temperature}, prior_weight {config.prior_weight} {config.thresholds}")
    click.echo(f"{ablation.table()}\n{ablation.verdict()}")


if __name__ == "__main__":
    main()
