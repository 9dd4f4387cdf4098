"""Packs what a release needs of runs into parts of a size, to carry them from the machine that trained them.

    python tools/carry_runs.py runs --output parts --megabytes 15
    cat parts/runs.*.part | tar x -C runs

Of each run its best weights in float16, as they are released, and the small files beside them. A run that was stopped
has the best weights so far of the stage that it was in, in best/, marked as such by its metrics.csv: what was trained
is worth keeping even where the time ran out.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import click
import torch

from diffmiczoo.config import DiffMICConfig
from diffmiczoo.model import DiffMICv2
from diffmiczoo.training.checkpoint import load_checkpoint
from diffmiczoo.training.recipe import Recipe
from diffmiczoo.training.stages import create_stages
from diffmiczoo.training.trainer import CHECKPOINT_FILE

_SMALL = (".json", ".csv", ".md", ".txt", ".log")


def best_model(run: Path) -> DiffMICv2 | None:
    """Returns the best weights of a run, of a stopped one from its checkpoint; None where there are none yet."""
    if (run / "best").exists():
        return DiffMICv2.from_pretrained(run / "best")
    if not (run / CHECKPOINT_FILE).exists():
        return None
    checkpoint = load_checkpoint(run / CHECKPOINT_FILE)
    if checkpoint.best.weights is None:
        return None
    config = DiffMICConfig.from_dict(checkpoint.config, source=str(run))
    recipe = Recipe.from_dict(checkpoint.recipe, source=str(run))
    final = create_stages(recipe, config)[checkpoint.stage].is_final
    model = DiffMICv2(config.replace(**checkpoint.best.calibration) if final else config)
    model.load_state_dict(dict(checkpoint.best.weights))
    model.trained = True
    return model


def pack(runs: Path, scratch: Path) -> bytes:
    """Returns a tar of all runs in a folder that have weights worth keeping."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(runs.glob("*.txt")) + sorted(runs.glob("*.log")):
            tar.add(path, path.name)
        for run in sorted(path for path in runs.iterdir() if path.is_dir()):
            model = best_model(run)
            if model is None:
                continue
            model.save_pretrained(scratch / run.name, dtype=torch.float16)
            tar.add(scratch / run.name, f"{run.name}/best")
            for path in sorted(run.iterdir()):
                if path.suffix in _SMALL:
                    tar.add(path, f"{run.name}/{path.name}")
    return file.getvalue()


@click.command()
@click.argument("runs", type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--megabytes", default=15, show_default=True, help="2²⁰ bytes, of a part at most.")
def main(runs: Path, output: Path, megabytes: int) -> None:
    """Packs the runs in RUNS into OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    data, size = pack(runs, output / "scratch"), megabytes * 2**20
    for number, start in enumerate(range(0, len(data), size)):
        (output / f"runs.{number:02d}.part").write_bytes(data[start : start + size])
    click.echo(f"{len(data) / 2**20:.1f} MiB in {-(-len(data) // size)} parts")


if __name__ == "__main__":
    main()
