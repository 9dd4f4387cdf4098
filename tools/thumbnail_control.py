"""What a thumbnail tells: logistic regression on 8 × 8 pixels and grey levels, beside a weights entry.

    python tools/thumbnail_control.py diffmicv2_nano.chestxray14 DATA

A data set whose classes come from different people or machines can be told apart by what is not the finding. This
control sees the mean of each of 8 × 8 squares, eleven quantiles of the grey levels and their standard deviation, and
nothing of the picture's structure. Strength of the regularisation is chosen on validation images, per label.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import interpolate

import diffmiczoo
from diffmiczoo.data.image_cache import load_squares
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import read_manifest

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
LEAST_CASES = 10


def thumbnail_features(squares: Tensor) -> np.ndarray:
    """Maps uint8 squares (N, 3, S, S) to what the control sees, (N, 76)."""
    grey = squares.float().mean(1) / 255
    cells = interpolate(grey[:, None], (8, 8), mode="area").flatten(1)
    levels = torch.quantile(grey.flatten(1), torch.linspace(0, 1, 11), dim=1).T
    return torch.cat([cells, levels, grey.flatten(1).std(1, keepdim=True)], 1).numpy()


def indicator(manifest: Manifest) -> np.ndarray:
    targets = manifest.targets()
    return targets if targets.ndim == 2 else np.eye(len(manifest.class_names))[targets]


def control(parts: dict[str, np.ndarray], truth: dict[str, np.ndarray], label: int) -> np.ndarray:
    """Returns the control's probabilities of a label for the test images."""

    def fitted(strength: float) -> object:
        pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        return pipeline.fit(parts["train"], truth["train"][:, label])

    def quality(strength: float) -> float:
        shown = truth["val"][:, label]
        if not 0 < shown.sum() < len(shown):
            return 0.0
        return float(roc_auc_score(shown, fitted(strength).predict_proba(parts["val"])[:, 1]))

    return fitted(max(STRENGTHS, key=quality)).predict_proba(parts["test"])[:, 1]


@click.command()
@click.argument("entry")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
def main(entry: str, data: Path) -> None:
    """Prints AUROC on the test split, label by label, of the control and of the weights ENTRY."""
    model = diffmiczoo.create_model(entry, pretrained=True)
    manifest = read_manifest(data, class_names=model.config.class_names, task=model.config.task)
    splits = {name: manifest.split(name) for name in ("train", "val", "test")}
    parts = {name: thumbnail_features(load_squares(part, model.config)) for name, part in splits.items()}
    truth = {name: indicator(part) for name, part in splits.items()}
    probs = model.predict([record.item() for record in splits["test"].records]).probs.numpy()
    rows = []
    for label, name in enumerate(model.config.labels):
        shown = truth["test"][:, label]
        if truth["train"][:, label].sum() < LEAST_CASES or not 0 < shown.sum() < len(shown):
            continue
        pair = [float(roc_auc_score(shown, each)) for each in (control(parts, truth, label), probs[:, label])]
        rows.append((int(shown.sum()), *pair))
        click.echo(f"{name:<20}{rows[-1][0]:>5} images  control {pair[0]:.3f}  weights {pair[1]:.3f}")
    often = [row for row in rows if row[0] >= LEAST_CASES]
    for what, chosen in (("all of these", rows), (f"those with {LEAST_CASES} test images or more", often)):
        if chosen:
            means = np.mean([row[1:] for row in chosen], axis=0)
            click.echo(f"mean of {what}: control {means[0]:.3f}, weights {means[1]:.3f}")


if __name__ == "__main__":
    main()
