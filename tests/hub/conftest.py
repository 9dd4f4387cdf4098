"""Fixtures of the tests of `hub`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import SMALL_ENCODERS, TINY

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.metrics.classification import compute_metrics
from diffmiczoo.model import DiffMICv2
from diffmiczoo.zoo.weights import WEIGHTS

ENTRY, REPOSITORY = "diffmicv2_nano.pmg2000", "mirror/diffmicv2_nano.pmg2000"  # known, not shipped


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the classes of ENTRY in a directory; nobody may write there."""
    torch.manual_seed(0)
    names = WEIGHTS[ENTRY].dataset.class_names
    model = DiffMICv2(DiffMICConfig(num_classes=len(names), class_names=names, **TINY, **SMALL_ENCODERS)).eval()
    model.trained = True
    directory = tmp_path_factory.mktemp("weights")
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def ready(saved: Path, tmp_path: Path) -> Path:
    """A directory with all that publishing needs."""
    directory = tmp_path / "ready"
    shutil.copytree(saved, directory)
    card = {
        "license": "apache-2.0",
        "data_license": "CC BY 4.0",
        "training_data": "Twelve pictures made for this test.",
        "split": "By picture.",
        "intended_use": "None.",
        "limits": ["It was never trained.", "Nobody should use it."],
    }
    (directory / "card.json").write_text(json.dumps(card))
    probs = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    metrics = compute_metrics(probs, np.arange(40) % 3, task="multiclass", bootstrap=20)
    (directory / "metrics.json").write_text(json.dumps({"test": {"model": metrics.to_dict()}}))
    return directory
