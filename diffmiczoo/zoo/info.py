"""`model_info`: what is known of a name without loading weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.data.catalog import class_labels
from diffmiczoo.files import read_json_object
from diffmiczoo.hub.card_facts import METRICS_FILE
from diffmiczoo.hub.names import parse_model_name
from diffmiczoo.zoo.complexity import count_macs, count_parameters
from diffmiczoo.zoo.factory import get_config
from diffmiczoo.zoo.registry import describe, resolve, weights_state
from diffmiczoo.zoo.weights import Weights


@dataclass(frozen=True)
class ModelInfo:
    """What is known of a name without loading weights.

    Attributes:
        name: as asked for; `entry` are the weights that it names, `architecture` is what it is built from.
        description: the architecture's or the entry's own sentence.
        config: the model's `DiffMICConfig`.
        class_labels: class name → what it means in words; empty where that is not known.
        parameters: of each part ("dcg", "feature_prior", "unet") and "total".
        macs: multiply-accumulates for one image of "dcg", "raw_encoder", "roi_encoder", "feature_prior" (with its
            projections), "condition" (all that is computed once), "unet" (in every step) and "total" with the config's
            own sampling steps and runs.
        weights: "shipped", "on the Hub", "not published"; for a bare architecture "none" or "shipped as" the entry that
            `pretrained=True` loads; "local" or "Hub" for a directory or repository.
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
    class_labels: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON-ready values."""
        return {**self.__dict__, "config": self.config.to_dict()}


def model_info(name: str) -> ModelInfo:
    """Returns sizes, cost, weights, licences and metrics of whatever `create_model` takes as a name.

    Raises:
        ValueError: the name is unknown; the nearest names are suggested.
        FileNotFoundError: a local directory does not exist.
        HubError: the Hub does not give a repository's files.
    """
    config, parsed = get_config(name), parse_model_name(name)
    entry: Weights | None = None
    if parsed.kind == "registered":
        architecture, entry = resolve(name)
        description, state = describe(name), weights_state(name)
    else:
        source, state = (parsed.path, "local") if parsed.kind == "local-dir" else (parsed.repository, "Hub")
        architecture, description = name, f"Weights in {source}."
    return ModelInfo(
        name=name,
        entry=None if entry is None else entry.name,
        architecture=architecture,
        description=description,
        config=config,
        parameters=count_parameters(config),
        macs=count_macs(config),
        weights=state,
        license=None if entry is None else entry.dataset.weights_license,
        data_license=None if entry is None else entry.dataset.data_license,
        metrics={} if entry is None else _metrics(entry),
        class_labels=class_labels(config.class_names),
    )


def _metrics(weights: Weights) -> dict[str, float]:
    path = None if weights.directory is None else weights.directory / METRICS_FILE
    if path is None or not path.is_file():
        return {}
    values: dict[str, float] = read_json_object(path)["test"]["model"]["values"]
    return values
