"""Stores what shipped weights predict for their test split; tests compare cards and `predict` with it.

    python tools/store_predictions.py diffmicv2_nano.busi --data ../shared/data/busi

Run it for weights that are released anew, and commit tests/zoo/predictions/NAME.npz with them: `files` (N,) names,
`model` and `dcg` (N, C) float32 probabilities.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from torch import Tensor

import diffmiczoo
from diffmiczoo.data.manifest import Manifest
from diffmiczoo.data.readers import as_manifest
from diffmiczoo.evaluation.evaluate import probabilities

DIRECTORY = Path(__file__).parents[1] / "tests" / "zoo" / "predictions"


@click.command()
@click.argument("name")
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="What they were trained on.")
def main(name: str, data: Path) -> None:
    """Write the predictions of shipped weights NAME."""
    model = diffmiczoo.create_model(name, pretrained=True)
    test = as_manifest(data, class_names=model.config.class_names, task=model.config.task).split("test")
    store(name, test, probabilities(model, test), probabilities(model, test, dcg_alone=True))


def store(name: str, test: Manifest, model: Tensor, dcg: Tensor) -> None:
    """Writes the probabilities (N, C) of a model and of its DCG alone for the images of its test split."""
    DIRECTORY.mkdir(exist_ok=True)
    np.savez_compressed(
        DIRECTORY / f"{name}.npz",
        files=np.array([record.path.name for record in test.records]),
        model=model.numpy(),
        dcg=dcg.numpy(),
    )


if __name__ == "__main__":
    main()
