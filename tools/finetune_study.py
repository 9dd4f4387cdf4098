"""Does fine-tuning help? From weights of another data set against ImageNet encoders, on shares of the training images.

    python tools/finetune_study.py DATA OUTPUT --from diffmicv2_ham10000 --share 0.1 --share 0.25 --share 1 --seed 0

Adds a row per run to OUTPUT/results.csv: the metrics of the test split. Runs that are in it are not made again, and an
interrupted one goes on. A share is drawn by group and class, the same for both starts; validation and test images are
always all of the data set's.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click
import torch

import diffmiczoo
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.data.splits import make_splits
from diffmiczoo.training.presets import finetune_recipe, preset_recipe

SHOWN = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece", "nll", "brier")


def shared_part(manifest: Manifest, share: float, seed: int) -> Manifest:
    """Returns the data set with a share of its training images."""
    training = manifest.split("train")
    if share < 1:
        training = make_splits(training, val=0.0, test=1 - share, seed=seed).split("train")
    rest = [record for record in manifest.records if record.split != "train"]
    return manifest.with_records([*training.records, *rest])


def trained(start: str | None, data: Manifest, image_size: int, seed: int, output: Path) -> diffmiczoo.TrainingResult:
    """Trains from the weights `start`, or from ImageNet encoders."""
    torch.manual_seed(seed)
    images = len(data.split("train"))
    if start is not None:
        model = diffmiczoo.create_model(start, pretrained=True, image_size=image_size)
        recipe = finetune_recipe(model.config, images).replace(seed=seed, select="nll", validate_every=5)
        return diffmiczoo.finetune(model, data, recipe=recipe, output=output)
    model = diffmiczoo.create_model(
        "diffmicv2_nano",
        class_names=data.class_names,
        task=data.task,
        image_size=image_size,
        pretrained_backbones=True,
    )
    recipe = preset_recipe(model.config, images).replace(seed=seed, select="nll", validate_every=5)
    return diffmiczoo.fit(model, data, recipe=recipe, output=output)


@click.command()
@click.argument("data", type=click.Path(exists=True))
@click.argument("output", type=click.Path(file_okay=False, path_type=Path))
@click.option("--from", "start", required=True, help="Weights to fine-tune.")
@click.option("--share", "shares", type=float, multiple=True, default=(0.1, 0.25, 1.0), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--image-size", type=int, default=128, show_default=True)
def main(
    data: str, output: Path, start: str, shares: tuple[float, ...], seeds: tuple[int, ...], image_size: int
) -> None:
    """Trains from `--from` and from ImageNet on shares of DATA's training images and notes the test metrics."""
    output.mkdir(parents=True, exist_ok=True)
    table = output / "results.csv"
    done = list(csv.DictReader(table.open())) if table.exists() else []
    manifest = read_manifest(data)
    for share in shares:
        for seed in seeds:
            for name in (start, "imagenet"):
                if any((row["start"], row["share"], row["seed"]) == (name, str(share), str(seed)) for row in done):
                    continue
                part = shared_part(manifest, share, seed)
                run = output / f"{name}_{share}_{seed}"
                result = trained(None if name == "imagenet" else name, part, image_size, seed, run)
                metrics = diffmiczoo.evaluate(result.model, part, split="test", bootstrap=0).values
                row = {"start": name, "share": share, "seed": seed, "images": len(part.split("train"))}
                row |= {key: round(metrics[key], 4) for key in SHOWN if key in metrics}
                with table.open("a", newline="") as file:
                    writer = csv.DictWriter(file, list(row))
                    if not file.tell():
                        writer.writeheader()
                    writer.writerow(row)
                (run / "checkpoint.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
