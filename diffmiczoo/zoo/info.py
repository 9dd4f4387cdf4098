"""`model_info`: what is known of a name without loading weights."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.hub.client import HUB_PREFIX
from diffmiczoo.zoo.registry import LOCAL_PREFIX, config_of, describe, resolve, shipped_directory, weights_state
from diffmiczoo.zoo.weights import WeightsEntry


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a name without loading weights.

    Attributes:
        name: as asked for; `entry` are the weights that it names, `architecture` is what it is built from.
        description: the architecture's or the entry's own sentence.
        config: the model's `DiffMICConfig`.
        parameters: of each part ("dcg", "feature_prior", "unet") and "total".
        macs: multiply-accumulates for one image of "dcg", "raw_encoder", "roi_encoder", "feature_prior" (with its
            projections), "condition" (all that is computed once), "unet" (in every step) and "total" with the config's
            own sampling steps and runs.
        weights: "shipped", "on the Hub", "not published", or for a bare architecture "none" or "shipped as" the entry
            that `pretrained=True` loads.
        license, data_license: of the weights and of what they were trained on; None without an entry.
        metrics: of the shipped weights on the test split, name → value; empty without weights.
    """

    name: str
    entry: str | None
    architecture: str
    description: str
    config: DiffMICConfig
    parameters: dict[str, int]
    macs: dict[str, int]
    weights: str
    license: str | None = None
    data_license: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return {**self.__dict__, "config": self.config.to_dict()}


def model_info(name: str) -> ModelInfo:
    """Returns sizes, cost, weights, licences and metrics of a registered name or a local directory.

    Raises:
        ValueError: the name is unknown; the nearest names are suggested.
    """
    from diffmiczoo.zoo.complexity import count_macs, count_parameters

    config = config_of(name)
    if name.startswith((LOCAL_PREFIX, HUB_PREFIX)):
        architecture, entry, weights = name, None, "local" if name.startswith(LOCAL_PREFIX) else "Hub"
        text = f"Weights in {name.partition(':')[2]}."
    else:
        architecture, entry = resolve(name)
        text = describe(name)
        weights = weights_state(name, entry)
    return ModelInfo(
        name=name,
        entry=None if entry is None else entry.name,
        architecture=architecture,
        description=text,
        config=config,
        parameters=count_parameters(config),
        macs=count_macs(config),
        weights=weights,
        license=None if entry is None else entry.license,
        data_license=None if entry is None else entry.data_license,
        metrics=_metrics(entry),
    )


def _metrics(entry: WeightsEntry | None) -> dict[str, float]:
    directory = None if entry is None else shipped_directory(entry)
    path = None if directory is None else directory / "metrics.json"
    if path is None or not path.is_file():
        return {}
    values: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["test"]["model"]["values"]
    return values
