"""How well few validation images calibrate: shipped weights, n of their validation images, NLL on the test split.

    python tools/calibration_study.py ../shared/data

prints the tables of docs/experiments/calibration-few.md. What the shipped weights say of their pictures is computed
once and kept in a temporary folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from recalibrate import kept_members
from torch import Tensor

import diffmiczoo
from diffmiczoo.data.readers import read_manifest
from diffmiczoo.inference.probabilities import logits_to_probs, score_logits
from diffmiczoo.metrics.pool import Pool, fit_pool

SETS = {"ham10000": "ham10000", "aptos2019": "aptos2019", "busi": "busi", "chestxray14": "chestxray14_subset"}
SIZES = (4, 8, 12, 16, 32, 64, 128)
EVEN = (0, 5, 8, 13, 20)  # n images and what was before count the same at so many
DRAWS = 60

Parts = tuple[Tensor, Tensor, Tensor]


def parts_of(name: str, folder: Path) -> tuple[str, dict[str, Parts]]:
    """Returns the task of a data set's weights, and split → (logits (N, C), members (N, 2, C), targets)."""
    entry = f"diffmicv2_nano.{name}"
    model = diffmiczoo.create_model(entry, pretrained=True)
    manifest = read_manifest(folder, class_names=model.config.labels, task=model.config.task)
    found = {split: kept_members(entry, model, manifest.split(split), split) for split in ("val", "test")}
    parts = {
        split: (score_logits(each.scores, model.config), each.members, each.targets) for split, each in found.items()
    }
    return model.config.task, parts


def loss(parts: Parts, pool: Pool, task: str) -> float:
    """Returns the NLL of an image (multi-label: of a label of it)."""
    logits, members, targets = parts
    total = logits.double() / pool.temperature
    for weight, member in zip(pool.weights, members.double().unbind(1), strict=True):
        total = total + weight * member
    probs = logits_to_probs(total, task).clamp(1e-15, 1 - 1e-15)
    if task == "multilabel":
        return float(torch.nn.functional.binary_cross_entropy(probs, targets.double()))
    return float(torch.nn.functional.nll_loss(probs.log(), targets.long()))


def of_mean(parts: Parts) -> Parts:
    """Returns parts with the mean of both priors as the only member."""
    return parts[0], parts[1].mean(1, keepdim=True), parts[2]


def study(name: str, folder: Path) -> None:
    task, splits = parts_of(name, folder)
    val, test = splits["val"], splits["test"]
    before = loss(test, Pool(1.0, (0.0, 0.0)), task)
    print(f"\n{name}: before {before:.4f}")
    kinds = [(f"{even}", even, test, lambda parts: parts) for even in EVEN]
    kinds.append(("one weight, 13", 13, of_mean(test), of_mean))
    print("| n | " + " | ".join(kind[0] for kind in kinds) + " |")
    for size in [*(size for size in SIZES if size < len(val[0])), len(val[0])]:
        cells = []
        for _, even, measured, view in kinds:
            found = []
            for draw in range(DRAWS if size < len(val[0]) else 1):
                chosen = np.random.default_rng(draw).permutation(len(val[0]))[:size]
                logits, members, targets = view(tuple(part[chosen] for part in val))  # type: ignore[no-untyped-call]
                pool = fit_pool(logits, members, targets, task=task, pseudo_images=even**2 / size)
                found.append(loss(measured, pool, task))
            worse = np.mean(np.array(found) > before + 0.01)
            cells.append(f"{np.mean(found):.3f}, {np.max(found):.3f}, {worse:.0%}")
        print(f"| {size} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    arguments = parser.parse_args()
    for name in arguments.sets:
        study(name, arguments.data / SETS[name])
