"""Command line `diffmiczoo`: each command is a thin call into the package."""

from __future__ import annotations

import glob
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from diffmiczoo._version import __version__
from diffmiczoo.answers import as_csv, as_json, as_table, printable, write_overlays, write_text

if TYPE_CHECKING:
    from diffmiczoo.config import DiffMICConfig
    from diffmiczoo.data.manifest import Manifest
    from diffmiczoo.model import DiffMICv2

DEFAULT_MODEL = "diffmicv2_ham10000"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="diffmiczoo")
def main() -> None:
    """DiffMIC-v2 diffusion classifiers for medical images. Not for clinical use."""


@main.command("list")
@click.argument("filter", default="")
@click.option("--pretrained", is_flag=True, help="Only names whose weights exist.")
def list_command(filter: str, pretrained: bool) -> None:
    """List the registered names; FILTER is a part of the name or a pattern such as 'diffmicv2_nano*'."""
    from diffmiczoo.registry import has_weights, list_models

    names = list_models(filter, pretrained)
    if not names:
        click.echo(f"no name matches {filter!r}; `diffmiczoo list` shows them all", err=True)
        sys.exit(1)
    for name in names:
        click.echo(f"{name:<40}{'weights' if has_weights(name) else ''}".rstrip())


@main.command()
@click.argument("name")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
def info(name: str, style: str) -> None:
    """Show what is known of NAME: parameters, MACs, classes, input, weights, licence, metrics."""
    from diffmiczoo.registry import model_info

    with _clear_errors():
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


@main.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--model", "name", default=DEFAULT_MODEL, show_default=True, help="Registered name or local-dir:PATH.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Of a CSV manifest: only this split.")
@click.option("--steps", type=click.IntRange(1), help="DDIM steps; by default the model's own.")
@click.option("--num-samples", type=click.IntRange(1), help="Sampler runs to average; by default the model's own.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the starting noise.")
@click.option("--batch-size", type=click.IntRange(1), default=32, show_default=True)
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--format", "style", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file, not to the screen.")
@click.option("--overlay", type=click.Path(file_okay=False, path_type=Path), help="Write a PNG per image into DIR.")
@click.option("--on-error", type=click.Choice(["skip", "raise"]), default="skip", show_default=True)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True)
def predict(
    images: tuple[str, ...],
    name: str,
    split: str | None,
    device: str,
    style: str,
    output: Path | None,
    overlay: Path | None,
    **options: Any,
) -> None:
    """Classify IMAGES: files, folders, patterns such as 'scans/*.png', or a CSV manifest with a column `file`.

    What cannot be read is listed on the standard error, and the exit status is then 1.
    """
    with _clear_errors():
        if output is not None and not output.parent.is_dir():
            raise ValueError(f"{output.parent} is not a directory; --output needs one that exists")
        files = _image_files(images, split)
        prediction = _load_model(name, _checked_device(device)).predict(files, **options)
        text = {"table": as_table, "csv": as_csv, "json": as_json}[style](prediction)
        if output is None:
            click.echo(printable(text))
        else:
            write_text(output, text + "\n")
        if overlay is not None:
            write_overlays(prediction, overlay)
    for message in prediction.errors.values():
        click.echo(f"skipped {message}", err=True)
    if prediction.errors:
        sys.exit(1)


@main.command()
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

    with _clear_errors():
        base = Recipe.load(recipe) if recipe else preset_recipe(model_config(name))
        chosen = Recipe.from_dict({**base.to_dict(), **assignments(settings)}, source="--set")
        torch.manual_seed(chosen.seed)
        manifest = _manifest_for(model_config(name, pretrained=pretrained), train, task)
        fields = assignments(overrides)
        wrong = sorted({"task", "class_names", "num_classes"} & fields.keys())
        if wrong:
            raise ValueError(f"--config {wrong[0]}: comes from the data; see --task for the task")
        model = diffmiczoo.create_model(
            name,
            pretrained,
            class_names=manifest.class_names,
            task=manifest.task,
            device=_checked_device(device),
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


@main.command()
@click.option(
    "--model", "name", default="diffmicv2_resnet18", show_default=True, help="Registered name or local-dir:PATH."
)
@click.option("--batch", "batches", type=click.IntRange(1), multiple=True, help="Images at once; may be repeated.")
@click.option("--steps", type=click.IntRange(2), help="DDIM steps; by default the model's own.")
@click.option(
    "--repeats", type=click.IntRange(1), default=5, show_default=True, help="Timed runs after one to warm up."
)
@click.option("--device", default="cpu", show_default=True, help="For example cuda.")
@click.option("--precision", type=click.Choice(["bf16", "fp16"]), default="bf16", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Also time encoders through torch.compile.")
@click.option("--json", "json_output", is_flag=True, help="Write JSON, not a table.")
def benchmark(
    name: str,
    batches: tuple[int, ...],
    steps: int | None,
    repeats: int,
    device: str,
    precision: str,
    compiled: bool,
    json_output: bool,
) -> None:
    """Time the plain order of work and ours side by side on this machine, with random weights and images."""
    import dataclasses

    from diffmiczoo import benchmark as timing
    from diffmiczoo.registry import create_model

    with _clear_errors():
        model = create_model(name, device=device)
        model.config = model.config.replace(sampling_steps=steps or model.config.sampling_steps)
        where = timing.machine(model.default_noise.device)
        tables = {
            batch: timing.benchmark(model, batch_size=batch, repeats=repeats, rows=timing.variants(precision, compiled))
            for batch in batches or (1, 32)
        }
    if json_output:
        rows = {batch: [dataclasses.asdict(row) for row in table] for batch, table in tables.items()}
        click.echo(json.dumps({"model": name, **where, "batches": rows}, indent=2))
        return
    click.echo(
        f"{name}, {model.config.sampling_steps} steps; " + ", ".join(f"{key} {value}" for key, value in where.items())
    )
    for batch, table in tables.items():
        click.echo(f"\nbatch {batch}\n\n{timing.as_table(table)}")


@main.command()
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
    from diffmiczoo.convert import convert_official

    names = [name.strip() for name in class_names.split(",") if name.strip()]
    with _clear_errors():
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


@main.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.argument("repository")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--token", help="Of an account that may write it; HF_TOKEN by default.")
def push(directory: str, repository: str, private: bool, token: str | None) -> None:
    """Publish the weights in DIRECTORY with their card as REPOSITORY (organisation/name) on the Hugging Face Hub.

    DIRECTORY holds what `fit` leaves in best/, a card.json (license, data_license, training_data, split, intended_use,
    limits) and a metrics.json. What is missing is listed, and nothing is published.
    """
    from diffmiczoo.hub import push_directory

    with _clear_errors():
        address = push_directory(directory, repository, private=private, token=token)
    click.echo(f"published: {address}")
    click.echo(f'load it with create_model("hf-hub:{repository}", pretrained=True)')


def _manifest_for(own: DiffMICConfig, train: str, task: str | None) -> Manifest:
    """Reads the training data; classes keep the order of the model's own where they are the same."""
    from diffmiczoo.data.manifest import read_manifest

    manifest = read_manifest(train, task=task)
    if set(manifest.class_names) <= set(own.class_names):
        return read_manifest(train, class_names=own.class_names, task=task or own.task)
    return manifest


def _checked_device(device: str) -> str:
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"--device {device} is not known; take cpu, cuda, cuda:1, …, or mps") from None
    missing = (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.mps.is_available())
    if missing:
        raise ValueError(f"there is no {kind} device here; use --device cpu")
    return device


def _load_model(name: str, device: str) -> DiffMICv2:
    from diffmiczoo.registry import create_model

    return create_model(name, pretrained=True, device=device)


def _image_files(images: tuple[str, ...], split: str | None) -> list[str]:
    """Expands patterns and manifests; folders are left to `predict`."""
    files: list[str] = []
    for text in images:
        if Path(text).suffix.lower() == ".csv":
            from diffmiczoo.data.manifest import read_files

            files += [str(path) for path in read_files(text, split)]
            continue
        if split is not None:
            raise ValueError(f"{text}: --split {split} needs a CSV with a column split, for example {text}/labels.csv")
        found = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) and not Path(text).exists() else [text]
        if not found:
            raise ValueError(f"{text}: no file matches this pattern")
        files += found
    return files


def assignments(texts: tuple[str, ...]) -> dict[str, Any]:
    """Returns field → value of texts FIELD=VALUE; a value is JSON, or a text.

    Raises:
        ValueError: a text has no "=".
    """
    values = {}
    for text in texts:
        field, sign, value = text.partition("=")
        if not sign:
            raise ValueError(f"{text!r}: expected FIELD=VALUE")
        try:
            values[field.strip()] = json.loads(value)
        except json.JSONDecodeError:
            values[field.strip()] = value
    return values


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turns the package's own errors into one line and exit status 2, without a traceback."""
    try:
        yield
    except (ValueError, TypeError, OSError, ImportError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
