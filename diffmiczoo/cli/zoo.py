"""`list`, `info`, `convert`, `push`: the zoo's names and weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from diffmiczoo.cli.common import clear_errors


@click.command("list")
@click.argument("filter", default="")
@click.option("--pretrained", is_flag=True, help="Only names whose weights exist.")
def list_command(filter: str, pretrained: bool) -> None:
    """List the registered names; FILTER is a part of the name or a pattern such as 'diffmicv2_nano*'."""
    from diffmiczoo.zoo.registry import has_weights, list_models

    names = list_models(filter, pretrained)
    if not names:
        click.echo(f"no name matches {filter!r}; `diffmiczoo list` shows them all", err=True)
        sys.exit(1)
    for name in names:
        click.echo(f"{name:<40}{'weights' if has_weights(name) else ''}".rstrip())


@click.command()
@click.argument("name")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def info(name: str, style: str) -> None:
    """Show what is known of NAME: parameters, MACs, classes, input, weights, licence, metrics."""
    from diffmiczoo.zoo.info import model_info

    with clear_errors():
        found = model_info(name)
    if style == "json":
        click.echo(json.dumps(found.to_dict(), indent=2))
        return
    config = found.config
    rows = {
        "name": found.name + (f" (entry {found.entry})" if found.entry not in (None, found.name) else ""),
        "task": f"{config.task}, {config.num_classes} classes: {', '.join(config.labels)}",
        "input": f"{config.image_size} × {config.image_size} pixels, {config.crop_mode} crop",
        "encoders": f"raw {config.raw_encoder}, ROI {config.roi_encoder}, DCG {config.dcg_encoder}",
        "sizes": f"H {config.latent_dim}, Np {config.num_points}, K {config.num_rois} × {config.roi_size} pixels",
        "parameters": ", ".join(f"{part} {count:,}" for part, count in found.parameters.items()),
        "MACs per image": ", ".join(f"{part} {count:,}" for part, count in found.macs.items()),
        "weights": found.weights,
        "licence": f"weights {found.license}; data {found.data_license}" if found.license else "no weights",
        "test metrics": ", ".join(f"{key} {value:.3f}" for key, value in found.metrics.items()) or "none",
    }
    for key, value in rows.items():
        click.echo(f"{key:<16}{value}")


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.argument("dcg_checkpoint", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory to write.")
@click.option("--class-names", default="", help="Joined by commas, in the order of the outputs.")
@click.option("--task", type=click.Choice(["multiclass", "multilabel"]), default="multiclass", show_default=True)
@click.option("--roi-size", type=click.IntRange(4), help="Pixels; by default 112 for 4 ROIs, else 32, as in the paper.")
@click.option("--force", is_flag=True, help="Replace a model that OUTPUT holds already.")
def convert(
    checkpoint: str,
    dcg_checkpoint: str | None,
    output: Path,
    class_names: str,
    task: str,
    roi_size: int | None,
    force: bool,
) -> None:
    """Turn a CHECKPOINT of the released DiffMIC-v2 program into a directory of this package.

    The DCG may lie in a DCG_CHECKPOINT of its own. The weights keep the licence that they were given.
    """
    from diffmiczoo.zoo.convert import convert_official

    names = [name.strip() for name in class_names.split(",") if name.strip()]
    with clear_errors():
        if (output / "model.safetensors").exists() and not force:
            raise ValueError(f"{output} holds a model already; choose another directory, or --force to replace it")
        model = convert_official(checkpoint, dcg_checkpoint, class_names=names, task=task, roi_size=roi_size)
        model.save_pretrained(output)
    config = model.config
    click.echo(
        f"{config.num_classes} classes, H {config.latent_dim}, K {config.num_rois} × {config.roi_size} pixels, "
        f"{config.raw_encoder}, {config.roi_encoder}, {config.task}, {config.image_size} pixels"
    )
    click.echo(f'load it with create_model("local-dir:{output}", pretrained=True)')


@click.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.argument("repository")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--token", help="Of an account that may write it; HF_TOKEN by default.")
def push(directory: str, repository: str, private: bool, token: str | None) -> None:
    """Publish the weights in DIRECTORY with their card as REPOSITORY (organisation/name) on the Hugging Face Hub.

    DIRECTORY holds what `fit` leaves in best/, a card.json (license, data_license, training_data, split, intended_use,
    limits) and a metrics.json. What is missing is listed, and nothing is published.
    """
    from diffmiczoo.hub.publish import push_directory
    from diffmiczoo.model import DiffMICv2

    with clear_errors():
        address = push_directory(
            directory, repository, DiffMICv2.from_pretrained(directory), private=private or None, token=token
        )
    click.echo(f"published: {address}")
    click.echo(f'load it with create_model("hf-hub:{repository}", pretrained=True)')
