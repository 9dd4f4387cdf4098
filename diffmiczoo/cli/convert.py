"""`diffmiczoo convert`: a checkpoint of the released program as weights of this package."""

from __future__ import annotations

from pathlib import Path

import click

from diffmiczoo.cli.common import TASKS
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import check_directory


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, dir_okay=False))
@click.argument("dcg_checkpoint", required=False, type=click.Path(exists=True, dir_okay=False))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory to write.")
@click.option("--class-names", default="", help="Joined by commas, in the order of the outputs.")
@click.option("--task", type=click.Choice(TASKS), default=TASKS[0], show_default=True)
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
    import diffmiczoo

    if (output / "model.safetensors").exists() and not force:
        raise InvalidValueError(f"{output} holds a model already; choose another directory, or --force to replace it")
    check_directory(output)
    names = [name.strip() for name in class_names.split(",") if name.strip()]
    model = diffmiczoo.convert_official(checkpoint, dcg_checkpoint, class_names=names, task=task, roi_size=roi_size)
    model.save_pretrained(output)
    config = model.config
    click.echo(
        f"{config.num_classes} classes, H {config.latent_dim}, K {config.num_rois} × {config.roi_size} pixels, "
        f"{config.raw_encoder}, {config.roi_encoder}, {config.task}, {config.image_size} pixels"
    )
    click.echo(f'load it with create_model("local-dir:{output}", pretrained=True)')
