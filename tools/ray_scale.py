"""Sends many paths through `--engine ray` with stages that neither read nor compute: what Ray itself takes.

    python tools/ray_scale.py ../shared/data/ham10000/images --count 1000000
    python tools/ray_scale.py ../shared/data/ham10000/images --count 50000 --pixels 192

With `--pixels`, parts go through the object store as large as decoded pictures of this size make them. What is printed
is in docs/scaling.md. Needs Linux and psutil.
"""

from __future__ import annotations

import pickle
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parent))
from memory_check import MEGABYTE, make_model, make_pictures

from diffmiczoo.engines import predict_with_ray, ray_data, read_results
from diffmiczoo.engines.ray_data import RayOptions
from diffmiczoo.engines.results import arrow_table, write_part


def read_nothing(pixels: int, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    found = np.empty(len(batch["part"]), dtype=object)
    for row, text in enumerate(batch["part"]):
        part = pickle.loads(text)
        squares = [bytes(3 * pixels * pixels) for _ in range(part.size)]
        found[row] = pickle.dumps((part.number, part.paths, squares))
    return {"read": found}


class AnswersConstants:
    """Writes the same answer for every picture, without weights."""

    def __init__(self, name: str, settings: dict[str, Any], output: Path, job: Any) -> None:
        self.output, self.job = output, job

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes = []
        for content in batch["read"]:
            number, paths, _ = pickle.loads(content)
            rows = len(paths)
            columns = {"id": np.array(paths, dtype=object), "probs": np.full((rows, 7), 1 / 7, np.float32)}
            for name, value in {"label": "nv", "error": "", "weights_sha256": self.job.weights_sha256}.items():
                columns[name] = np.full(rows, value, dtype=object)
            write_part(arrow_table(columns, number), self.job.file_of(self.output, number))
            sizes.append(rows)
        return {"pictures": np.array(sizes), "errors": np.zeros(len(sizes), int)}


class Watcher(threading.Thread):
    """Samples the memory of this process and of the object store every half second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.began, self.seen = time.monotonic(), list[tuple[float, int, int]]()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.seen.append((time.monotonic() - self.began, psutil.Process().memory_info().rss, stored()))


def stored() -> int:
    """Returns how many bytes are in the object store."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    if not ray.is_initialized():
        return 0
    try:
        state = get_state_from_address(ray.get_runtime_context().gcs_address)
        return int(get_memory_info_reply(state).store_stats.object_store_bytes_used)
    except Exception:  # while Ray starts or ends
        return 0


@click.command()
@click.argument("pictures", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", default=1_000_000)
@click.option("--pixels", default=0, help="Of a side of what goes through the object store for each picture.")
@click.option("--workers", default=1)
def main(pictures: Path, count: int, pixels: int, workers: int) -> None:
    warnings.simplefilter("ignore")
    ray_data._read = lambda _, batch: read_nothing(pixels, batch)  # type: ignore[assignment]
    ray_data._ComputeAndWrite = AnswersConstants  # type: ignore[assignment,misc]
    with tempfile.TemporaryDirectory() as temporary:
        name, output = make_model(Path(temporary, "model")), Path(temporary, "out")
        make_pictures(pictures, Path(temporary, "pictures"), count, per_folder=1000)
        watcher, before = Watcher(), psutil.Process().memory_info().rss
        watcher.start()
        options = RayOptions(workers=workers)
        predict_with_ray(Path(temporary, "pictures"), name, output, options=options, device="cpu", progress=False)
        watcher.ended.set()
        written = [path.stat().st_mtime for path in output.glob("part-*")]
        took = max(written) - min(written)
        click.echo(f"{len(read_results(output)):,} pictures, {time.monotonic() - watcher.began:.0f} s")
        click.echo(f"{took:.0f} s from the first part to the last: {1e6 * took / count:.0f} µs a picture")
    for share in (0.1, 0.25, 0.5, 0.75, 1):
        at, rss, held = watcher.seen[int(share * (len(watcher.seen) - 1))]
        tell(f"{at:.0f} s", rss - before, held)
    tell("largest", max(rss for _, rss, _ in watcher.seen) - before, max(held for *_, held in watcher.seen))


def tell(when: str, own: int, held: int) -> None:
    click.echo(f"{when}: this process {own / MEGABYTE:+.0f} MB, object store {held / MEGABYTE:.1f} MB")


if __name__ == "__main__":
    main()
