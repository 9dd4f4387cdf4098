"""What an exported file says of itself: classes, thresholds, pre-processing, licence, and whose numbers it holds."""

from __future__ import annotations

import json
from typing import Any

from diffmiczoo._version import __version__
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.export.graph import OUTPUTS, GraphSettings
from diffmiczoo.files import read_json_object
from diffmiczoo.hub.card_facts import CARD_FILE
from diffmiczoo.hub.checksums import sha256_of
from diffmiczoo.hub.client import WEIGHTS_FILE
from diffmiczoo.hub.companions import weights_digest
from diffmiczoo.hub.serialization import same_tensors
from diffmiczoo.inference.certificate import ExportSettings
from diffmiczoo.model import DiffMICv2

#: Fields of a config that a reader of pictures needs.
PREPROCESSING = ("crop_mode", "interpolation", "mean", "std")

#: What of a card travels along.
_OF_CARD = ("license", "data_license", "intended_use", "limits", "out_of_scope", "training_data", "citation")

NOT_CLINICAL = "For research. Not a medical device, not for clinical use."


def describe(model: DiffMICv2, graph: GraphSettings, settings: ExportSettings, names: list[str]) -> dict[str, str]:
    """Returns the file's metadata: name → text; what is no text is JSON.

    Args:
        model: that is exported.
        graph: what was built in.
        settings: what was asked for.
        names: of the outputs.
    """
    config = model.config
    values: dict[str, Any] = {
        "model": model.display_name,
        "weights_sha256": weights_digest(model),
        "version": __version__,
        "warning": NOT_CLINICAL,
        "task": config.task,
        "labels": config.labels,
        "class_labels": model.class_labels,
        "thresholds": (config.thresholds or (0.5,) * config.num_classes) if config.task == "multilabel" else (),
        "label_adjustment": config.label_adjustment,
        "ordinal": config.ordinal,
        "image_size": config.input_size,
        **{name: getattr(config, name) for name in PREPROCESSING},
        "calibration": _calibration(model, graph),
        "alphas": [] if graph.sets is None else [rule.alpha for rule in graph.sets.rules],
        "defer_error": settings.defer_error,
        "steps": graph.steps,
        "num_samples": graph.num_samples,
        "tta": config.tta,
        "precision": settings.precision,
        "trained": model.trained,
        "notes": graph.notes,
        "outputs": {name: OUTPUTS[name] for name in names},
        "config": config.to_dict(),
        **_of_directory(model),
    }
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def _calibration(model: DiffMICv2, graph: GraphSettings) -> str:
    config = model.config
    if config.temperature is None:
        return "not calibrated: probabilities are a ranking only"
    how = f"temperature {config.temperature:.4f}"
    if any(config.pool_weights):
        how += f", weights of the priors {', '.join(f'{weight:.4f}' for weight in config.pool_weights)}"
    how += ", offsets of the classes" if config.class_offsets else ""
    where = "validation images" if model.recalibration is None else "local images (recalibrated)"
    meant = (config.sampling_steps, config.num_samples)
    other = "" if meant == (graph.steps, graph.num_samples) else f"; for {meant[0]} steps and {meant[1]} runs"
    return f"{how}, fitted on {where}{other}"


def _of_directory(model: DiffMICv2) -> dict[str, Any]:
    """Returns what is known of the weights' file and from its card, where the model is still as it was loaded."""
    directory = model.loaded_from
    if directory is None or not (directory / WEIGHTS_FILE).is_file() or not same_tensors(model, directory):
        return {}
    found: dict[str, Any] = {"weights_file_sha256": sha256_of(directory / WEIGHTS_FILE)}
    try:
        facts = read_json_object(directory / CARD_FILE)
    except (OSError, InvalidValueError):  # weights of one's own have no card
        return found
    return found | {name: facts[name] for name in _OF_CARD if facts.get(name)}
