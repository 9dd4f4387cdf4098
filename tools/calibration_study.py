"""How well few validation images calibrate: subsets of the validation split, measured on the whole test split.

    python tools/calibration_study.py ../shared/data

prints the tables of docs/experiments/calibration-few.md. The predictions of the shipped weights are computed once and
kept in a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import diffmiczoo
from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.calibration import fit_pool, pseudo_images

SETS = {"ham10000": "ham10000", "aptos2019": "aptos2019", "busi": "busi", "chestxray14": "chestxray14_subset"}
SIZES = (4, 8, 16, 32, 64, 128)
DRAWS = 30


def predictions(name: str, folder: Path) -> tuple[DiffMICConfig, dict[str, tuple[Tensor, Tensor, Tensor]]]:
    """Returns the config of a data set's weights, and split → (logits, DCG's logits, targets)."""
    model = diffmiczoo.create_model(f"diffmicv2_{name}", pretrained=True)
    kept = Path(tempfile.gettempdir()) / f"calibration-study-{name}.pt"
    if not kept.exists():
        found = {}
        for split in ("val", "test"):
            manifest = read_manifest(folder, class_names=model.config.labels, task=model.config.task).split(split)
            prediction = model.predict([record.item() for record in manifest.records], batch_size=32)
            targets = torch.from_numpy(manifest.targets())
            found[split] = (score_logits(prediction.scores, model.config), prediction.dcg_logits, targets)
        torch.save(found, kept)
    return model.config, torch.load(kept)


def loss(parts: tuple[Tensor, Tensor, Tensor], temperature: float, weight: float, task: str) -> float:
    """Returns the NLL of an image (multi-label: of a label of it)."""
    logits, prior, targets = parts
    probs = logits_to_probs(logits.double() / temperature + weight * prior.double(), task).clamp(1e-15, 1 - 1e-15)
    if task == "multilabel":
        return float(torch.nn.functional.binary_cross_entropy(probs, targets.double()))
    return float(torch.nn.functional.nll_loss(probs.log(), targets.long()))


def study(name: str, folder: Path) -> None:
    config, splits = predictions(name, folder)
    val, test = splits["val"], splits["test"]
    before = loss(test, 1.0, 0.0, config.task)
    print(
        f"\n{name}: before {before:.4f}, shipped {loss(test, config.temperature, config.prior_weight, config.task):.4f}"
    )
    for size in [*(size for size in SIZES if size < len(val[0])), len(val[0])]:
        cells = []
        for few in (0.0, pseudo_images(size)):
            rows = []
            for draw in range(DRAWS if size < len(val[0]) else 1):
                chosen = np.random.default_rng(draw).permutation(len(val[0]))[:size]
                parts = [part[chosen] for part in val]
                fitted = fit_pool(*parts, task=config.task, pseudo_images=few)
                rows.append((loss(test, *fitted, config.task), *fitted))
            nll, temperature, weight = np.array(rows).T
            worse = np.mean(nll > before + 0.01)
            cells.append(
                f"{nll.mean():.3f} (max {nll.max():.3f}, worse {worse:3.0%}, "
                f"T {temperature.min():.2f}-{temperature.max():.2f}, w {weight.mean():.2f})"
            )
        print(f"| {size} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    for name, folder in SETS.items():
        study(name, arguments.data / folder)
