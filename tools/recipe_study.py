"""What each ingredient of a recipe is worth: a plain classifier's validation metrics with and without it.

    python tools/recipe_study.py ../shared/data/ham10000 --output runs/study --config image_size=160 --epochs 20

Each row trains a classifier once: `timm/tf_efficientnet_lite0`, or with `--model diffmicv2_nano --config
predictor=global` the global stream of a model. The table is printed and written to OUTPUT/table.md; rows that are
trained already are not trained again.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import click
from train_release import PLAIN, run_all

#: Teachers of the rows that have some: the first row and its two other seeds, of the same OUTPUT.
TEACHERS = ("base", "base_1", "base_2")

#: Row → the recipe's fields that differ from the first.
ROWS = {
    "base": (),
    "base_1": ("seed=1",),
    "base_2": ("seed=2",),
    "cutmix": ("cutmix=1.0",),
    "mixup": ("mixup=0.2",),
    "label_smoothing": ("label_smoothing=0.1",),
    "drop_path": ("drop_path=0.1",),
    "strong": ("min_scale=0.4", "color_jitter=0.25"),
    "strong_mixup": ("min_scale=0.4", "color_jitter=0.25", "mixup=0.2"),
    "reflect": ("fill=reflect",),
    "balanced": ("class_weights=balanced",),
    "fast": ("encoder_lr=0.001", "dcg_lr=0.002"),
    "slow": ("encoder_lr=0.00025", "dcg_lr=0.0005"),
    "average": ("ema_decay=0.998",),
    "batch64": ("batch_size=64",),
    "slow_mixup": ("encoder_lr=0.00025", "dcg_lr=0.0005", "mixup=0.2", "ema_decay=0.998"),
    "rand_augment": ("rand_augment=9",),
    "grades": ("ordinal_smoothing=0.5",),
    "degrade": ("degrade=0.3",),
    "small_first": ("start_size=96",),
    "squash": (),
    "teachers": (),
    "teachers_alone": ("teacher_share=1.0",),
    "teachers_mixup": ("teacher_share=1.0", "mixup=0.2"),
}

#: Row → the model's fields that differ from the first.
CONFIGS = {"squash": ("crop_mode=squash",)}

_COLUMNS = ("nll", "accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece")


def best_epoch(run: Path) -> dict[str, str]:
    """Returns the row of the epoch that was selected, {} of a run that has none."""
    path = run / "metrics.csv"
    rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else []
    measured = [row for row in rows if row.get("nll")]
    return min(measured, key=lambda row: float(row["nll"]), default={})


def table(output: Path, names: list[str]) -> str:
    """Returns the Markdown table of what is there."""
    lines = [f"| | epoch | {' | '.join(_COLUMNS)} |", "|---" * (len(_COLUMNS) + 2) + "|"]
    for name in names:
        found = best_epoch(output / name)
        values = [f"{float(found[column]):.4f}" if found.get(column) else "" for column in _COLUMNS]
        lines.append(f"| {name} | {found.get('epoch', '')} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--model", default=PLAIN, show_default=True)
@click.option("--row", "names", multiple=True, type=click.Choice(list(ROWS)), help="All by default.")
@click.option("--epochs", default=12, show_default=True)
@click.option("--config", "config", multiple=True, metavar="FIELD=JSON")
@click.option("--set", "settings", multiple=True, metavar="FIELD=JSON", help="Of the recipe, in all rows.")
@click.option("--jobs", default=1, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--seconds", type=float, help="After these all runs stop.")
def main(
    data: Path,
    output: Path,
    model: str,
    names: tuple[str, ...],
    epochs: int,
    config: tuple[str, ...],
    settings: tuple[str, ...],
    jobs: int,
    device: str,
    seconds: float | None,
) -> None:
    """Trains a row for each ingredient on DATA and prints the table."""
    output.mkdir(parents=True, exist_ok=True)
    rows = list(names or ROWS)
    common = ("select=nll", f"dcg_epochs={epochs}", "batch_size=32", *settings)
    commands: dict[bool, list[list[str]]] = {False: [], True: []}
    for name in rows:
        fields = [f"--config={each}" for each in (*config, *CONFIGS.get(name, ()))]
        taught = name.startswith("teachers")
        teachers = (f"teachers={json.dumps([str(output / each / 'best') for each in TEACHERS])}",) if taught else ()
        fields += [f"--set={each}" for each in (*common, *ROWS[name], *teachers)]
        where = ["--train", str(data), "--output", str(output / name), "--device", device]
        commands[taught].append(["fit", "--pretrained-backbones", "--model", model, *where, *fields])
    # Who is taught comes after those who teach.
    failed = [log for taught in (False, True) for log in run_all(commands[taught], jobs, seconds)]
    text = table(output, rows)
    (output / "table.md").write_text(text, encoding="utf-8")
    click.echo(text)
    if failed:
        raise click.ClickException(f"these runs failed or were stopped: {json.dumps([str(log) for log in failed])}")


if __name__ == "__main__":
    main()
