"""`fit`: training on one's own images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from diffmiczoo.commands.common import assignments, checked_device, clear_errors

if TYPE_CHECKING:
    from diffmiczoo.config import DiffMICConfig
    from diffmiczoo.data.manifest import Manifest


@click.command()
@click.option("--model", "name", required=True, help="Registered name or local-dir:PATH.")
@click.option("--pretrained", is_flag=True, help="Start from the model's trained weights.")
@click.option("--pretrained-backbones", is_flag=True, help="Start the encoders from ImageNet weights.")
@click.option("--train", required=True, type=click.Path(exists=True), help="CSV manifest or folder of images.")
@click.option("--val", type=click.Path(exists=True), help="The same; by default the images of split val.")
@click.option("--output", required=True, type=click.Path(file_okay=False), help="Directory of the run.")
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False), help="JSON with fields of a recipe.")
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Change a field of the recipe.")
@click.option("--task", type=click.Choice(["multiclass", "multilabel"]), help="By default what the labels tell.")
@click.option("--ablation", help="A row of the paper's table IV: c1 to c6, or dcg.")
@click.option("--config", "overrides", multiple=True, metavar="FIELD=VALUE", help="Change a field of the model.")
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--resume", type=click.Choice(["auto", "never"]), default="auto", show_default=True)
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
) -> None:
    """Train a model on your images, in two stages; continues an interrupted run.

    Without --recipe the settings are the preset of the model.
    """
    import torch

    import diffmiczoo
    from diffmiczoo.registry import model_config
    from diffmiczoo.training.presets import preset_recipe
    from diffmiczoo.training.recipe import Recipe

    with clear_errors():
        base = Recipe.load(recipe) if recipe else preset_recipe(model_config(name))
        chosen = Recipe.from_dict({**base.to_dict(), **assignments(settings)}, source="--set")
        torch.manual_seed(chosen.seed)
        manifest = manifest_for(model_config(name, pretrained=pretrained), train, task)
        fields = assignments(overrides)
        wrong = sorted({"task", "class_names", "num_classes"} & fields.keys())
        if wrong:
            raise ValueError(f"--config {wrong[0]}: comes from the data; see --task for the task")
        model = diffmiczoo.create_model(
            name,
            pretrained,
            class_names=manifest.class_names,
            task=manifest.task,
            device=checked_device(device),
            pretrained_backbones=pretrained_backbones,
            ablation=ablation,
            **fields,
        )
        result = diffmiczoo.fit(model, manifest, val, chosen, output=output, resume=resume)
    kept: dict[str, Any] = next((row for row in reversed(result.history) if row.get("kept")), {})
    shown = ", ".join(f"{key} {kept[key]:.4f}" for key in ("accuracy", "macro_f1", "auroc") if key in kept)
    which = f"kept epoch {kept['epoch']} of stage {kept['stage']}" if kept else "nothing was trained"
    click.echo(f"{which}; on validation: {shown}" if kept else which)
    click.echo(f'weights: {result.output}/best  (create_model("local-dir:{result.output}/best", pretrained=True))')


def manifest_for(own: DiffMICConfig, train: str, task: str | None) -> Manifest:
    """Reads the training data; classes keep the order of the model's own where they are the same."""
    from diffmiczoo.data.manifest import read_manifest

    manifest = read_manifest(train, task=task)
    if set(manifest.class_names) <= set(own.class_names):
        return read_manifest(train, class_names=own.class_names, task=task or own.task)
    return manifest
