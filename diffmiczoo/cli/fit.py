"""`fit`: training on one's own images."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from diffmiczoo.cli.common import assignments, checked_device, clear_errors

if TYPE_CHECKING:
    from diffmiczoo.training.fit import TrainingResult


@click.command()
@click.option("--model", "name", required=True, help="Registered name or local-dir:PATH.")
@click.option("--pretrained", is_flag=True, help="Start from the model's trained weights.")
@click.option("--pretrained-backbones", is_flag=True, help="Start the encoders from ImageNet weights.")
@click.option("--train", required=True, type=click.Path(exists=True), help="Table, folder or .npz of images.")
@click.option("--val", type=click.Path(exists=True), help="The same; by default the images of split val.")
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Directory of the run.")
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False), help="JSON with fields of a recipe.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe.")
@click.option("--task", type=click.Choice(["multiclass", "multilabel"]), help="By default what the labels tell.")
@click.option("--ablation", help="A row of the paper's table IV: c1 to c6, or dcg.")
@click.option("--config", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change a field of the model.")
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--resume", type=click.Choice(["auto", "never"]), default="auto", show_default=True)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Between checkpoints within an epoch.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard too.")
def fit(
    name: str,
    pretrained: bool,
    pretrained_backbones: bool,
    train: str,
    val: str | None,
    output: str,
    recipe: str | None,
    settings: tuple[str, ...],
    task: str | None,
    ablation: str | None,
    overrides: tuple[str, ...],
    device: str,
    resume: str,
    checkpoint_minutes: float,
    tensorboard: bool,
) -> None:
    """Train a model on your images, in two stages; continues an interrupted run.

    Without --recipe the settings are the preset for the model and the number of images, with --pretrained that for
    fine-tuning.
    """
    import diffmiczoo
    from diffmiczoo.training.prepare import prepare
    from diffmiczoo.training.recipe import Recipe

    with clear_errors():
        prepared = prepare(
            name,
            train,
            val,
            Recipe.load(recipe) if recipe else None,
            changes=assignments(settings),
            task=task,
            pretrained=pretrained,
            pretrained_backbones=pretrained_backbones,
            ablation=ablation,
            config=assignments(overrides),
            device=checked_device(device),
        )
        try:
            result = diffmiczoo.fit(
                prepared.model,
                prepared.plan,
                recipe=prepared.recipe,
                output=output,
                resume=resume,
                checkpoint_minutes=checkpoint_minutes,
                tensorboard=tensorboard,
            )
        except KeyboardInterrupt as interruption:
            click.echo(f"{interruption or 'stopped'}; to go on, start it again with the same options", err=True)
            sys.exit(130)
    _tell(result)


def _tell(result: TrainingResult) -> None:
    """Says how good the model is on validation images, and where its weights are."""
    if result.metrics is None:
        click.echo("nothing was trained that answers" if result.history else "nothing was trained")
        return
    click.echo(f"on validation: {result.metrics.headline()}; more in {result.output}/README.md")
    click.echo(f'weights: {result.output}/best  (create_model("local-dir:{result.output}/best", pretrained=True))')
