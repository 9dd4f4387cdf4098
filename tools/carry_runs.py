"""Packs what a release needs of finished runs into parts of a size, to carry them from the machine that trained them.

    python tools/carry_runs.py runs --output parts --megabytes 15
    cat parts/runs.*.part | tar x -C runs

Of each run with best weights: those in float16, as they are released, and the small files beside them.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import click
import torch

from diffmiczoo.model import DiffMICv2

_SMALL = (".json", ".csv", ".md", ".txt", ".log")


def pack(runs: Path, scratch: Path) -> bytes:
    """Returns a tar of all finished runs in a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for path in sorted(runs.glob("*.txt")) + sorted(runs.glob("*.log")):
            tar.add(path, path.name)
        for run in sorted(path.parent for path in runs.glob("*/best")):
            half = scratch / run.name
            DiffMICv2.from_pretrained(run / "best").save_pretrained(half, dtype=torch.float16)
            tar.add(half, f"{run.name}/best")
            for path in sorted(run.iterdir()):
                if path.suffix in _SMALL:
                    tar.add(path, f"{run.name}/{path.name}")
    return file.getvalue()


@click.command()
@click.argument("runs", type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--megabytes", default=15, show_default=True, help="2²⁰ bytes, of a part at most.")
def main(runs: Path, output: Path, megabytes: int) -> None:
    """Packs the finished runs in RUNS into OUTPUT."""
    output.mkdir(parents=True, exist_ok=True)
    data, size = pack(runs, output / "scratch"), megabytes * 2**20
    for number, start in enumerate(range(0, len(data), size)):
        (output / f"runs.{number:02d}.part").write_bytes(data[start : start + size])
    click.echo(f"{len(data) / 2**20:.1f} MiB in {-(-len(data) // size)} parts")


if __name__ == "__main__":
    main()
