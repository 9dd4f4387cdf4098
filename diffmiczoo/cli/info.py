"""`diffmiczoo info`: what is known of a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from diffmiczoo.cli.common import format_option
from diffmiczoo.cli.output import echo_json

if TYPE_CHECKING:
    from diffmiczoo.config import DiffMICConfig
    from diffmiczoo.zoo.info import ModelInfo


@click.command()
@click.argument("name")
@format_option("table", "json")
def info(name: str, style: str) -> None:
    """Show what is known of NAME: parameters, MACs, classes, input, weights, licence, metrics."""
    import diffmiczoo

    found = diffmiczoo.model_info(name)
    if style == "json":
        echo_json(found.to_dict())
        return
    for key, value in _rows(found).items():
        click.echo(f"{key:<16}{value}")


def _rows(found: ModelInfo) -> dict[str, str]:
    config = found.config
    return {
        "name": found.name + (f" (entry {found.entry})" if found.entry not in (None, found.name) else ""),
        "task": f"{config.task}, {config.num_classes} classes: {', '.join(_classes(found))}",
        "input": _input(config),
        **_networks(config),
        "parameters": ", ".join(f"{part} {count:,}" for part, count in found.parameters.items()),
        "MACs per image": ", ".join(f"{part} {count:,}" for part, count in found.macs.items()),
        "weights": found.weights,
        "licence": f"weights {found.license}; data {found.data_license}" if found.license else "no weights",
        "test metrics": ", ".join(f"{key} {value:.3f}" for key, value in found.metrics.items()) or "none",
    }


def _input(config: DiffMICConfig) -> str:
    text = f"{config.input_size} × {config.input_size} pixels, {config.crop_mode} crop"
    if config.input_size != config.image_size:
        text += f"; seen whole at {config.image_size} × {config.image_size}"
    return text + (f"; mean over views, tta={config.tta}" if config.tta != "none" else "")


def _networks(config: DiffMICConfig) -> dict[str, str]:
    if config.predictor == "classifier":
        return {"network": f"timm's {config.dcg_encoder}, a plain classifier"}
    return {
        "encoders": f"raw {config.raw_encoder}, ROI {config.roi_encoder}, DCG {config.dcg_encoder}",
        "sizes": f"H {config.latent_dim}, Np {config.num_points}, K {config.num_rois} × {config.roi_size} pixels",
    }


def _classes(found: ModelInfo) -> list[str]:
    """Returns the class names, with what they mean where that is another word."""
    labels = {name: found.class_labels.get(name, name) for name in found.config.labels}
    same = {name for name, label in labels.items() if name.lower().replace("_", " ") == label.lower()}
    return [name if name in same else f"{name} ({label})" for name, label in labels.items()]
