"""Trains what a weights entry is released from: seeds of the model, and of the plain classifier that it has to beat.

    python tools/train_release.py diffmicv2_nano.busi --data ../shared/data --output runs --jobs 2

Runs that are there already go on where they stopped, finished ones are left alone. The plain classifier sees the same
pictures at the same size with the same augmentation, for as many epochs as all stages of the model have together, and
its best epoch is selected and calibrated in the same way. The commands are written to OUTPUT/ENTRY.commands.txt, for
`release_weights.py --commands`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from diffmiczoo.zoo.factory import get_config

PLAIN = "timm/tf_efficientnet_lite0"

#: What the model is trained with on every set, and the plain classifier where the field means something for it.
COMMON = ("select=nll", "batch_size=32", "balance_labels=0.01")
MODEL_ONLY = ("encoder_start=trained",)


@dataclass(frozen=True)
class Release:
    """How an entry is trained.

    Attributes:
        data: folder of the data set.
        config: fields of the model, NAME=JSON.
        recipe: fields of both recipes.
        epochs: of each of the DCG's two streams, and of the diffusion.
    """

    data: str
    config: tuple[str, ...]
    recipe: tuple[str, ...]
    epochs: tuple[int, int]

    @property
    def all_epochs(self) -> int:
        """How often the model sees each picture, and so the plain classifier."""
        return 2 * self.epochs[0] + self.epochs[1]


#: Four ROIs of two sevenths of the side through four stages, see docs/experiments/local-stream.md; H = 128 keeps the
#: model below 5 million parameters.
ROIS = (
    "num_rois=4",
    "local_out_index=3",
    "latent_dim=128",
    "roi_saliency=top",
    "sampling_steps=5",
    "num_samples=8",
    "clip_sample=false",
)
UPRIGHT, TURNED = ("rotation=15",), ("vflip=0.5", "rotation=180")

RELEASES = {
    "diffmicv2_nano.ham10000": Release(
        "ham10000", ("image_size=160", "crop_mode=squash", "roi_size=48", *ROIS), TURNED, (10, 10)
    ),
    "diffmicv2_nano.aptos2019": Release(
        "aptos2019", ("image_size=192", "roi_source_size=224", "roi_size=64", *ROIS), TURNED, (14, 14)
    ),
    "diffmicv2_nano.busi": Release("busi", ("image_size=192", "roi_size=56", *ROIS), UPRIGHT, (25, 25)),
}


def command(entry: str, release: Release, data: Path, output: Path, seed: int, plain: bool) -> list[str]:
    """Returns the arguments of `diffmiczoo` that train one seed."""
    name = f"{entry}{'.plain' if plain else ''}.s{seed}"
    model, config, named = entry, release.config, list[str]()
    epochs = (f"dcg_epochs={release.epochs[0]}", f"diffusion_epochs={release.epochs[1]}", *MODEL_ONLY)
    if plain:
        model, config = PLAIN, tuple(field for field in config if field.startswith(("image_size", "crop_mode")))
        epochs = (f"dcg_epochs={release.all_epochs}", "diffusion_epochs=0")
        # What the entry knows of its classes: the same order, and that they are grades.
        known = get_config(entry)
        config += ("ordinal=true",) if known.ordinal else ()
        named = ["--class-names", ",".join(known.class_names)]
    fields = [f"--config={field}" for field in config]
    settings = [f"--set={field}" for field in (f"seed={seed}", *COMMON, *release.recipe, *epochs)]
    where = ["--train", str(data / release.data), "--output", str(output / name)]
    return ["fit", "--pretrained-backbones", "--model", model, *fields, *named, *where, *settings]


def run(arguments: list[str], log: Path) -> int:
    """Trains one seed in a process with one thread; returns its exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        line = [sys.executable, "-m", "diffmiczoo.cli", *arguments]
        return subprocess.run(line, env=environment, stdout=file, stderr=subprocess.STDOUT, check=False).returncode


@click.command()
@click.argument("entry", type=click.Choice(sorted(RELEASES)))
@click.option(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), help="Holds the data sets' folders."
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Holds the runs.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--jobs", type=int, default=1, show_default=True, help="Runs at once, one thread each.")
@click.option(
    "--plain/--model", "plain", default=None, help="The plain classifier or the model alone; both by default."
)
def main(entry: str, data: Path, output: Path, seeds: tuple[int, ...], jobs: int, plain: bool | None) -> None:
    """Trains the seeds of ENTRY, the model's first."""
    output.mkdir(parents=True, exist_ok=True)
    kinds = (False, True) if plain is None else (plain,)
    commands = [command(entry, RELEASES[entry], data, output, seed, kind) for kind in kinds for seed in seeds]
    shown = [
        shlex.join(["diffmiczoo", *each]).replace(f"{data}/", "").replace(f"{output}/", "runs/") for each in commands
    ]
    (output / f"{entry}.commands.txt").write_text("\n".join(shown) + "\n", encoding="utf-8")
    with ThreadPoolExecutor(jobs) as pool:
        logs = [Path(f"{arguments[arguments.index('--output') + 1]}.log") for arguments in commands]
        failed = [log for log, status in zip(logs, pool.map(run, commands, logs), strict=True) if status]
    if failed:
        raise click.ClickException(f"these runs failed or were stopped: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()
