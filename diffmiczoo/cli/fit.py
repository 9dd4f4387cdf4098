"""`diffmiczoo fit`: training on one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.cli.columns import column_options, data_source, tell, validation_source
from diffmiczoo.cli.common import (
    TASKS,
    Data,
    Names,
    class_names_option,
    device_option,
    fields_option,
    model_option,
    threads_option,
)
from diffmiczoo.cli.report import report_run
from diffmiczoo.errors import InvalidValueError
from diffmiczoo.files import check_directory

if TYPE_CHECKING:
    from diffmiczoo.data.columns import ColumnChoice


@click.command()
@model_option()
@click.option("--pretrained", is_flag=True, help="Start from the model's trained weights.")
@click.option("--pretrained-backbones", is_flag=True, help="Start the encoders from ImageNet weights.")
@click.option(
    "--train",
    required=True,
    type=Data(),
    metavar="PATH",
    help="Table, folder or .npz of images, or medmnist:NAME[@SIZE].",
)
@click.option("--val", type=Data(), metavar="PATH", help="The same; by default the images of split val.")
@column_options(labels=True)
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Directory of the run.")
@click.option(
    "--recipe", "recipe_file", type=click.Path(exists=True, dir_okay=False), help="JSON with fields of a recipe."
)
@fields_option("--set", "changes", "recipe")
@click.option("--task", type=click.Choice(TASKS), help="By default what the labels tell.")
@class_names_option
@click.option("--classes", type=Names(), metavar="NAME,...", help="Learn only these; images of others are left out.")
@click.option("--ablation", help="A row of the paper's table IV: c1 to c6, or dcg.")
@fields_option("--config", "config", "model")
@device_option
@click.option("--resume", type=click.Choice(["auto", "never"]), default="auto", show_default=True)
@click.option(
    "--checkpoint-minutes",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Between checkpoints within an epoch.",
)
@click.option("--tensorboard", is_flag=True, help="Write curves for TensorBoard too.")
@click.option(
    "--log-every",
    type=click.IntRange(0),
    help="Epochs from one line of progress to the next, 0 for none; by default 1 where no bars are shown.",
)
@click.option("--quiet", is_flag=True, help="Show neither bars nor lines of progress.")
@click.option(
    "--report/--no-report",
    "with_report",
    default=True,
    show_default=True,
    help="Write a page as `diffmiczoo report` does, for the validation and the test images, into the run.",
)
@threads_option
def fit(
    name: str,
    train: str,
    val: str | None,
    recipe_file: str | None,
    output: str,
    resume: str,
    checkpoint_minutes: float,
    tensorboard: bool,
    choice: ColumnChoice,
    log_every: int | None,
    quiet: bool,
    with_report: bool,
    **options: Any,
) -> None:
    """Train a model on your images, first the DCG and then the diffusion; continues a run. Also called `train`.

    Without --recipe the settings are the preset for the model and the number of images, with --pretrained that for
    fine-tuning.
    """
    import diffmiczoo
    from diffmiczoo.training.budget import budget_of
    from diffmiczoo.training.prepare import prepare

    check_directory(Path(output))
    _check_places(options["changes"], options["config"])
    recipe = diffmiczoo.Recipe.load(recipe_file) if recipe_file else None
    tell(())  # the plan is told below
    prepared = prepare(name, data_source(train, choice), validation_source(val, choice), recipe, **options)
    budget = budget_of(prepared.recipe, prepared.model.config, len(prepared.plan.train))
    tell([*prepared.plan.lines(), budget.sentence])
    try:
        result = diffmiczoo.fit(
            prepared.model,
            prepared.plan,
            recipe=prepared.recipe,
            output=output,
            resume=resume,
            checkpoint_minutes=checkpoint_minutes,
            tensorboard=tensorboard,
            progress=False if quiet else None,
            log_every=log_every,
        )
    except KeyboardInterrupt as interruption:
        stopped = str(interruption) or "stopped"
        raise KeyboardInterrupt(f"{stopped}; to go on, start it again with the same options") from interruption
    click.echo(result)
    if with_report and result.metrics is not None:
        report_run(result, prepared.plan, progress=False if quiet else None)


def _check_places(changes: dict[str, Any], config: dict[str, Any]) -> None:
    """Tells fields of the recipe from those of the model, where one stands for the other.

    Raises:
        ValueError: names the option that takes the field.
    """
    from diffmiczoo.config import DiffMICConfig
    from diffmiczoo.config.settings import field_kinds
    from diffmiczoo.training.recipe import Recipe

    of_recipe, of_model = field_kinds(Recipe), field_kinds(DiffMICConfig)
    wrong = [("--set", "--config", "model", name) for name in changes if name in of_model and name not in of_recipe]
    wrong += [("--config", "--set", "recipe", name) for name in config if name in of_recipe and name not in of_model]
    for given, right, what, name in wrong:
        raise InvalidValueError(f"{given} {name}: {name} is a field of the {what}; give it as {right} {name}=…")
