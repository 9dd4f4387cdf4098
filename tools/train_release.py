"""Trains what weights entries are, or will be, released from: seeds of the model, and of what it has to beat.

    python tools/train_release.py diffmicv2_nano.busi --data ../shared/data --output runs --jobs 2
    python tools/train_release.py diffmicv2_nano.busi diffmicv2_nano.aptos2019 --data … --output runs \
        --device cuda --jobs 12

Several small runs share one GPU well: none of them keeps it busy alone. Runs that are there already go on where they
stopped, finished ones are left alone. The opponents are a plain classifier, and with `--kind global` the model's own
global stream without anything else. They see the same pictures at the same size with the same augmentation, for as many
epochs as all stages of the model have together; their best epochs are selected and calibrated in the same way. Because
that can be too long for them, `--kind short` trains the plain classifier for as long as one stream. The
commands are written to OUTPUT/ENTRY.commands.txt, for `release_weights.py --commands`.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from diffmiczoo.zoo.factory import get_config

PLAIN = "timm/tf_efficientnet_lite0"

#: What all are trained with on every set.
COMMON = ("select=nll", "balance_labels=0.01", "degrade=0.3", "precision=bf16")

#: What is trained: the model, the plain classifier, the model's global stream alone, the plain one for a shorter time.
KINDS = ("model", "plain", "global", "short")
MODEL_ONLY = ("encoder_start=trained",)


@dataclass(frozen=True)
class Release:
    """How an entry is trained.

    Attributes:
        data: folder of the data set.
        config: fields of the model, NAME=JSON.
        recipe: fields of both recipes.
        epochs: of each of the DCG's two streams, and of the diffusion.
        plain: the plain classifier to beat.
    """

    data: str
    config: tuple[str, ...]
    recipe: tuple[str, ...]
    epochs: tuple[int, int]
    plain: str = PLAIN

    @property
    def all_epochs(self) -> int:
        """How often the model sees each picture, and so its opponents."""
        return 2 * self.epochs[0] + self.epochs[1]


#: Four ROIs up to a stride of 16, see docs/experiments/local-stream.md; H = 128 keeps the model below 5 million
#: parameters. `diffmicv2_nano` has these since.
FIELDS = (
    "num_rois=4",
    "local_out_index=3",
    "latent_dim=128",
    "roi_saliency=top",
    "sampling_steps=5",
    "num_samples=8",
    "clip_sample=false",
)
#: The global stream is all of Lite0 instead of its first five stages, which leaves the raw encoder of F three.
TRUNK = ("dcg_trunk=true", "dcg_out_index=-1", "raw_out_index=2")
TURNED = ("vflip=0.5", "rotation=180")

#: Beside `diffmicv2_small`.
SMALL_PLAIN = "timm/tf_efficientnet_lite2"

#: Short, because longer training learns the pictures by heart, see docs/experiments/gpu.md.
RELEASES = {
    "diffmicv2_nano.ham10000": Release(
        "ham10000",
        ("image_size=192", "crop_mode=squash", "roi_size=56", *TRUNK, *FIELDS),
        (*TURNED, "batch_size=64", "start_size=144"),
        (7, 3),
    ),
    "diffmicv2_nano.aptos2019": Release(
        "aptos2019",
        ("image_size=192", "roi_source_size=224", "roi_size=64", *FIELDS),
        (*TURNED, "batch_size=32"),
        (14, 12),
    ),
    "diffmicv2_nano.busi": Release(
        "busi",
        ("image_size=192", "roi_size=56", *TRUNK, *FIELDS),
        ("rotation=15", "batch_size=32"),
        (16, 10),
    ),
    "diffmicv2_small.ham10000": Release(
        "ham10000",
        ("image_size=224", "crop_mode=squash"),
        (*TURNED, "batch_size=64", "start_size=160"),
        (7, 3),
        SMALL_PLAIN,
    ),
    "diffmicv2_small.aptos2019": Release(
        "aptos2019",
        ("image_size=224",),
        (*TURNED, "batch_size=32"),
        (14, 12),
        SMALL_PLAIN,
    ),
    "diffmicv2_small.busi": Release(
        "busi",
        ("image_size=224",),
        ("rotation=15", "batch_size=32"),
        (16, 10),
        SMALL_PLAIN,
    ),
}


def command(
    entry: str, release: Release, data: Path, output: Path, seed: int, kind: str = "model", device: str = "cpu"
) -> list[str]:
    """Returns the arguments of `diffmiczoo` that train one seed of what KINDS lists."""
    name = f"{entry}{'' if kind == 'model' else f'.{kind}'}.s{seed}"
    model, config, named = entry, release.config, list[str]()
    if kind == "model":
        epochs = (f"dcg_epochs={release.epochs[0]}", f"diffusion_epochs={release.epochs[1]}", *MODEL_ONLY)
    else:
        seen = tuple(field for field in config if field.startswith(("image_size", "crop_mode")))
        of_global = (entry.split(".")[0], (*config, "predictor=global"))
        model, config = of_global if kind == "global" else (release.plain, seen)
        long = release.epochs[0] if kind == "short" else release.all_epochs
        epochs = (f"dcg_epochs={long}", "diffusion_epochs=0")
        # What the entry knows of its classes: the same order, and that they are grades.
        known = get_config(entry)
        config += ("ordinal=true",) if known.ordinal else ()
        named = ["--class-names", ",".join(known.class_names)]
    fields = [f"--config={field}" for field in config]
    settings = [f"--set={field}" for field in (f"seed={seed}", *COMMON, *release.recipe, *epochs)]
    where = ["--train", str(data / release.data), "--output", str(output / name)]
    # A lent GPU does not wait for a page that can be made of the weights later.
    named += [] if device == "cpu" else ["--device", device, "--no-report"]
    return ["fit", "--pretrained-backbones", "--model", model, *fields, *named, *where, *settings]


def run(arguments: list[str], log: Path, until: float | None = None) -> int:
    """Trains one seed in a process with one thread; returns its exit status.

    Args:
        arguments: of `diffmiczoo`.
        log: its output is added to this file.
        until: `time.monotonic()` at which it is asked to write a checkpoint and stop.
    """
    left = None if until is None else until - time.monotonic()
    if left is not None and left <= 0:
        return 1
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("a") as file:
        line = [sys.executable, "-m", "diffmiczoo.cli", *arguments]
        process = subprocess.Popen(line, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            return process.wait(left)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            return process.wait()


def run_all(commands: list[list[str]], jobs: int, seconds: float | None) -> list[Path]:
    """Runs commands, some at once; returns the logs of those that failed or were stopped."""
    until = None if seconds is None else time.monotonic() + seconds
    logs = [Path(f"{arguments[arguments.index('--output') + 1]}.log") for arguments in commands]
    with ThreadPoolExecutor(jobs) as pool:
        status = list(pool.map(lambda pair: run(*pair, until), zip(commands, logs, strict=True)))
    return [log for log, code in zip(logs, status, strict=True) if code]


@click.command()
@click.argument("entries", nargs=-1, required=True, type=click.Choice(sorted(RELEASES)))
@click.option(
    "--data", required=True, type=click.Path(exists=True, path_type=Path), help="Holds the data sets' folders."
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Holds the runs.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0, 1, 2), show_default=True)
@click.option("--jobs", type=int, default=1, show_default=True, help="Runs at once, one thread each.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(KINDS), help="Model and plain by default.")
@click.option("--device", default="cpu", show_default=True, help="Of all runs, as `diffmiczoo fit` takes it.")
@click.option("--seconds", type=float, help="After these all runs write a checkpoint and stop.")
def main(
    entries: tuple[str, ...],
    data: Path,
    output: Path,
    seeds: tuple[int, ...],
    jobs: int,
    kinds: tuple[str, ...],
    device: str,
    seconds: float | None,
) -> None:
    """Trains the seeds of ENTRIES, one kind after the other."""
    output.mkdir(parents=True, exist_ok=True)
    commands: list[list[str]] = []
    for kind in kinds or KINDS[:2]:
        for entry in entries:
            commands += [command(entry, RELEASES[entry], data, output, seed, kind, device) for seed in seeds]
    for entry in entries:
        own = [each for each in commands if f"/{entry}." in each[each.index("--output") + 1]]
        shown = [
            shlex.join(["diffmiczoo", *each]).replace(f"{data}/", "").replace(f"{output}/", "runs/") for each in own
        ]
        (output / f"{entry}.commands.txt").write_text("\n".join(shown) + "\n", encoding="utf-8")
    if failed := run_all(commands, jobs, seconds):
        raise click.ClickException(f"these runs failed or were stopped: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()
