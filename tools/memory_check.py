"""Predicts a folder of many small pictures, and says how much memory all processes of the job take as it goes on.

    python tools/memory_check.py ../shared/data/ham10000/images --count 100000
    python tools/memory_check.py ../shared/data/ham10000/images --count 100000 --engine ray

The pictures are hard links to a few hundred small copies, the weights a small untrained model: what is looked at is
what holds memory, not what is predicted. What is printed is in docs/scaling.md. Needs Linux and psutil.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from PIL import Image

from diffmiczoo import DiffMICConfig, DiffMICv2
from diffmiczoo.engines.work import PART

SMALL = "test_resnet"
MEGABYTE = 1 << 20

#: Words of a command line → what a process is called here, the first that fits.
ROLES = {
    "_ComputeAndWrite": "actors",
    "(_read)": "readers",
    "raylet/raylet": "raylet",
    "gcs_server": "gcs",
    "ray::": "idle",
}


@dataclass(frozen=True)
class Sample:
    """Memory at a moment, in bytes.

    Attributes:
        seconds: since the start.
        done: pictures with an answer.
        total: of all processes, shared pages divided among those that share them.
        roles: memory of their own of all processes of a role.
        largest: of one process, by role.
        stored: pages of the object store that the process has touched that has touched most.
    """

    seconds: float
    done: int
    total: int
    roles: dict[str, int]
    largest: dict[str, int]
    stored: int


def make_model(folder: Path) -> str:
    encoders = {f"{name}_encoder": SMALL for name in ("dcg", "raw", "roi")}
    places = {f"{name}_out_index": -1 for name in ("dcg", "local", "raw", "roi")}
    config = DiffMICConfig(
        num_classes=3, image_size=32, roi_size=32, num_rois=1, num_points=2, latent_dim=8, attention_dim=4,
        num_train_timesteps=10, sampling_steps=1, **encoders, **places,
    )  # fmt: skip
    DiffMICv2(config).eval().save_pretrained(folder)
    return f"local-dir:{folder}"


def make_pictures(sources: Path, folder: Path, count: int, different: int = 300, per_folder: int = 0) -> None:
    originals = folder.with_name("originals")
    originals.mkdir()
    folder.mkdir()
    files = sorted(path for path in sources.iterdir() if path.suffix in (".jpg", ".png"))[:different]
    for number, path in enumerate(files):
        Image.open(path).convert("RGB").resize((32, 32)).save(originals / f"{number}.jpg")
    for number in range(count):
        place = folder / f"{number // per_folder}" if per_folder else folder
        place.mkdir(exist_ok=True)
        os.link(originals / f"{number % len(files)}.jpg", place / f"scan{number}.jpg")


def sample(root: psutil.Process, began: float, done: int) -> Sample:
    roles: dict[str, int] = defaultdict(int)
    largest: dict[str, int] = defaultdict(int)
    total = stored = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            words, memory = " ".join(process.cmdline()), process.memory_full_info()
            own, shared = pages(process.pid)
        except (psutil.Error, OSError):
            continue
        role = "driver" if process == root else next((role for word, role in ROLES.items() if word in words), "others")
        roles[role] += own
        largest[role] = max(largest[role], own)
        stored = max(stored, shared)
        total += memory.pss
    return Sample(time.monotonic() - began, done, total, dict(roles), dict(largest), stored)


def pages(process: int) -> tuple[int, int]:
    """Returns how many bytes are a process's own, and how many of shared memory it has touched."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    own, shared = (int(lines.get(name, "0 kB").split()[0]) << 10 for name in ("RssAnon", "RssShmem"))
    return own, shared


def watched(command: list[str], done: Callable[[], int], every: float, log: Path) -> list[Sample]:
    """Runs a command, and samples its memory until it ends."""
    found, began = [], time.monotonic()
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                found.append(sample(root, began, done()))
            except psutil.NoSuchProcess:
                break
            time.sleep(every)
    if process.returncode:
        raise click.ClickException(log.read_text()[-2000:])
    return found


def tell(samples: list[Sample], count: int) -> None:
    roles = sorted({role for each in samples for role in each.roles})
    click.echo(" | ".join(["pictures", "seconds", "total MB", "store MB", *(f"{role} MB (largest)" for role in roles)]))
    working = [each for each in samples if each.done]
    for share in (0.0, 0.05, 0.25, 0.5, 0.75, 0.95):
        at = next((each for each in working if each.done >= share * count), None)
        if at is None:
            continue
        cells = [f"{at.roles.get(role, 0) / MEGABYTE:.0f} ({at.largest.get(role, 0) / MEGABYTE:.0f})" for role in roles]
        click.echo(
            " | ".join(
                [
                    f"{at.done:,}",
                    f"{at.seconds:.0f}",
                    f"{at.total / MEGABYTE:.0f}",
                    f"{at.stored / MEGABYTE:.0f}",
                    *cells,
                ]
            )
        )
    peak = max(samples, key=lambda each: each.total)
    click.echo(f"peak: {peak.total / MEGABYTE:.0f} MB at {peak.done:,} pictures, {peak.seconds:.0f} s")
    half = [each for each in working if 2 * each.done >= count and each.done < count]
    early = [each for each in working if 0.05 * count <= each.done and 4 * each.done <= count]
    if half and early:
        means = [sum(each.total for each in some) / len(some) / MEGABYTE for some in (early, half)]
        click.echo(f"mean: {means[0]:.0f} MB from 5 % to a quarter, {means[1]:.0f} MB from half to the end")
    click.echo(f"{samples[-1].seconds:.0f} s, {len(samples)} samples")


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=100_000)
@click.option("--per-folder", default=0, help="Pictures of a sub-folder; by default all are in one folder.")
@click.option("--engine", type=click.Choice(["ray"]))
@click.option("--every", default=1.0, help="Seconds between two samples.")
def main(pictures: Path, count: int, per_folder: int, engine: str | None, every: float) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        name = make_model(place / "model")
        make_pictures(pictures, place / "pictures", count, per_folder=per_folder)
        output = place / ("answers" if engine else "answers.csv")
        command = [sys.executable, "-W", "ignore", "-m", "diffmiczoo.cli", "predict", str(place / "pictures")]
        command += ["--model", name, "--device", "cpu", "--batch-size", "256", "--output", str(output)]
        if engine:
            command += ["--engine", engine]
            samples = watched(command, lambda: PART * len(list(output.glob("part-*"))), every, place / "log")
        else:
            command += ["--threads", "1"]
            partial = output.with_name(output.name + ".partial")
            # Lines of the untrained model have nearly the same length.
            samples = watched(command, lambda: lines_of(partial), every, place / "log")
        tell(samples, count)


def lines_of(file: Path) -> int:
    """Returns about how many lines a file has, by the length of its first ones."""
    try:
        with file.open("rb") as opened:
            start = opened.read(1 << 16)
        return int(start.count(b"\n") * file.stat().st_size / len(start)) if start else 0
    except OSError:
        return 0


if __name__ == "__main__":
    main()
